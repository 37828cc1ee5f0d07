"""TLS on a real server: what it says of its certificates, who finds it, and certificates exchanged while it runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from easyml_client import TLS, EasyML, errors
from tests.certificates import LOOPBACK, Pair
from tests.integration.secure import AUTHORITY, CLIENT, GOOD, STRANGER, Secure, certificate_of, presented, settings_of
from tests.integration.test_recovery import check_one_line, said_by
from tests.servers import environment, log_of, serving

# The server's side.


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (AUTHORITY.issue("localhost", begins=-9, days=-1), "expired on"),
        (Pair(CLIENT.key, GOOD.certificate), "does not belong"),
        (Pair(GOOD.key, b"junk"), "must be PEM"),
    ],
)
def test_a_server_does_not_start_with_a_certificate_that_will_not_do(tmp_path: Path, pair: Pair, words: str) -> None:
    check_one_line(*said_by(tmp_path / "data", **settings_of(tmp_path / "tls", pair)), words, "server.pem")


def test_a_server_does_not_start_without_the_files_it_was_told_of(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "tls", GOOD)
    Path(settings["TLS_CERT_FILE"]).unlink()
    check_one_line(*said_by(tmp_path / "data", **settings), "EASYML_TLS_CERT_FILE", "No such file")


def test_a_server_does_not_start_with_a_key_that_others_can_read(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "tls", GOOD)
    Path(settings["TLS_KEY_FILE"]).chmod(0o644)
    check_one_line(*said_by(tmp_path / "data", **settings), "chmod 600")


@pytest.mark.parametrize("alone", ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"])
def test_a_server_does_not_start_with_half_of_the_settings(tmp_path: Path, alone: str) -> None:
    settings = settings_of(tmp_path / "tls", GOOD, AUTHORITY)
    said = said_by(tmp_path / "data", **{alone: settings[alone]})
    check_one_line(*said, "do not fit together", "EASYML_TLS_CERT_FILE and EASYML_TLS_KEY_FILE")


def test_with_a_certificate_other_machines_may_reach_the_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data", HOST="0.0.0.0", **settings_of(tmp_path / "tls", GOOD)) as server:
        port = server.address.rsplit(":", 1)[1]
        with EasyML(f"127.0.0.1:{port}", tls=TLS(ca=AUTHORITY.pem)) as client:
            assert client.health() == "serving"


def doctor(server: Secure, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = environment({**server.server.settings, "DATA_DIR": str(server.server.data), **settings})
    own["XDG_CONFIG_HOME"] = str(server.folder / "config")
    command = (sys.executable, "-m", *command, "doctor", "--json")
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=60, check=False)


def finding(done: subprocess.CompletedProcess[str], name: str, word: str = "certificate") -> Any:
    return next(each for each in json.loads(done.stdout) if each[name] == word)


def test_the_servers_doctor_knows_names_and_days(secure: Secure, tmp_path: Path) -> None:
    found = finding(doctor(secure, "easyml_server", PORT="0"), "what")
    assert found["ok"]
    assert "ml.example.org" in found["sentence"]
    assert "89 days left" in found["sentence"]


def test_the_servers_doctor_tells_when_to_renew(secure: Secure, tmp_path: Path) -> None:
    soon = settings_of(tmp_path / "soon", AUTHORITY.issue("localhost", days=5))
    done = doctor(secure, "easyml_server", PORT="0", **soon)
    assert done.returncode == 1
    assert "4 days left. Renew it before" in finding(done, "what")["sentence"]
    late = settings_of(tmp_path / "late", AUTHORITY.issue("localhost", begins=-9, days=-1))
    assert "expired on" in finding(doctor(secure, "easyml_server", PORT="0", **late), "what")["sentence"]


def test_a_certificate_that_expires_soon_is_a_line_in_the_log(tmp_path: Path) -> None:
    soon = settings_of(tmp_path / "tls", AUTHORITY.issue("localhost", days=5))
    with serving(tmp_path / "data", **soon):
        pass
    assert "certificate_expires_soon" in log_of(tmp_path / "data").read_text()


# Both sides agree.


def test_clients_here_find_the_server_by_itself(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYML_DATA_DIR", str(secure.server.data))
    with EasyML() as client:
        assert (client.connection.target, client.health()) == (secure.address, "serving")
        assert client.auth.whoami().user.administrator


def test_clients_here_know_a_server_that_has_no_name_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path / "tls", AUTHORITY.issue("ml.example.org"))
    monkeypatch.setenv("EASYML_DATA_DIR", str(tmp_path / "data"))
    with serving(tmp_path / "data", **settings), EasyML() as client:
        assert client.health() == "serving"


def test_doctor_shows_the_certificate(secure: Secure) -> None:
    done = doctor(secure, "easyml_client.cli")
    assert done.returncode == 0, done.stdout
    found = finding(done, "check")
    assert "ml.example.org" in found["message"]
    assert "89 days left" in found["message"]


def test_doctor_shows_the_clients_own_certificate(mutual: Secure, tmp_path: Path) -> None:
    for pair, level, words in (
        (CLIENT, "ok", "89 days left"),
        (AUTHORITY.issue("me", days=5), "note", "4 days left"),
        (AUTHORITY.issue("me", begins=-9, days=-1), "bad", "expired on"),
    ):
        certificate, key = pair.write(tmp_path, "me")
        own = {"TLS_CLIENT_CERT_FILE": str(certificate), "TLS_CLIENT_KEY_FILE": str(key)}
        found = finding(doctor(mutual, "easyml_client.cli", **own), "check", "client certificate")
        assert found["level"] == level
        assert words in found["message"]


def test_refused_handshakes_are_in_the_servers_log_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the guide says."""
    monkeypatch.setenv("GRPC_VERBOSITY", "info")
    with (
        serving(tmp_path / "data", **settings_of(tmp_path / "tls", GOOD, AUTHORITY)) as server,
        EasyML(server.address, tls=TLS(ca=AUTHORITY.pem)) as client,
        pytest.raises(errors.Unavailable),
    ):
        client.health()
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in log_of(tmp_path / "data").read_text()


def test_older_versions_of_tls_are_refused(secure: Secure) -> None:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    host, port = secure.address.rsplit(":", 1)
    versions = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1):
        if version is ssl.TLSVersion.TLSv1_1:
            with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                context.minimum_version = context.maximum_version = version
        else:
            context.minimum_version = context.maximum_version = version
        with socket.create_connection((host, int(port)), 10) as plain:
            try:
                with context.wrap_socket(plain, server_hostname=host) as encrypted:
                    versions[version.name] = encrypted.version()
            except (ssl.SSLError, ConnectionResetError):
                versions[version.name] = None
    assert versions == {"TLSv1_2": "TLSv1.2", "TLSv1_1": None}


def test_a_peer_that_does_not_begin_the_handshake_is_hung_up_on(secure: Secure) -> None:
    host, port = secure.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 30) as silent:
        assert silent.recv(1) == b""


def test_grpcurl_takes_the_authority(secure: Secure, mutual: Secure, tmp_path: Path) -> None:
    grpcurl = os.environ.get("GRPCURL") or shutil.which("grpcurl")
    if grpcurl is None or not Path(grpcurl).exists():
        pytest.skip("grpcurl is not installed: run `make grpcurl`")
    ca, (certificate, key) = AUTHORITY.write(tmp_path / "ca.pem"), CLIENT.write(tmp_path, "client")

    def asked(server: Secure, *options: str) -> subprocess.CompletedProcess[str]:
        command = [grpcurl, *options, server.address, "grpc.health.v1.Health/Check"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "SERVING" in asked(secure, "-cacert", str(ca)).stdout
    assert "unknown authority" in asked(secure).stderr
    assert asked(secure, "-plaintext").returncode != 0
    assert "SERVING" in asked(mutual, "-cacert", str(ca), "-cert", str(certificate), "-key", str(key)).stdout
    assert asked(mutual, "-cacert", str(ca)).returncode != 0


# Exchanged while the server runs.


def test_a_new_certificate_is_shown_to_new_connections_and_open_streams_go_on(spoilt: Secure) -> None:
    questions: SimpleQueue[Any] = SimpleQueue()
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
    metadata = [("authorization", f"Bearer {spoilt.server.key}")]
    with grpc.secure_channel(spoilt.address, credentials) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter(questions.get, None), metadata=metadata)
        questions.put(question)
        before = next(answers)
        new = STRANGER.issue(*LOOPBACK)
        spoilt.install(new)
        assert presented(spoilt.address) == certificate_of(new)
        questions.put(question)
        assert next(answers) == before
        questions.put(None)
        assert list(answers) == []
    with spoilt.client(TLS(ca=STRANGER.pem)) as client:
        assert client.health() == "serving"


def test_the_old_certificate_stays_until_the_new_one_is_whole(spoilt: Secure) -> None:
    new = AUTHORITY.issue(*LOOPBACK)
    certificate, key = new.write(spoilt.folder, "new")
    certificate.replace(spoilt.folder / "server.pem")
    assert presented(spoilt.address) == certificate_of(GOOD)
    assert "certificate_not_taken" in log_of(spoilt.server.data).read_text()
    key.replace(spoilt.folder / "server.key")
    assert presented(spoilt.address) == certificate_of(new)


def test_another_client_authority_is_taken_too(mutual: Secure) -> None:
    strange = STRANGER.issue("a stranger")
    STRANGER.write(mutual.folder / "clients.pem")
    try:
        with mutual.client(TLS(ca=AUTHORITY.pem, certificate=strange.certificate, key=strange.key)) as client:
            assert client.health() == "serving"
        with (
            mutual.client(TLS(ca=AUTHORITY.pem, certificate=CLIENT.certificate, key=CLIENT.key)) as client,
            pytest.raises(errors.Unavailable) as caught,
        ):
            client.health()
        assert caught.value.reason == "CLIENT_CERTIFICATE_REFUSED"
    finally:
        AUTHORITY.write(mutual.folder / "clients.pem")
