"""TLS on a real server: what each side says when it does not come about, and certificates exchanged while it runs."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import grpc
import pytest
from cryptography import x509
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from easyml_client import TLS, AsyncEasyML, EasyML, errors
from tests.certificates import LOOPBACK, Authority, Pair
from tests.integration.test_recovery import check_one_line, said_by
from tests.servers import ServerProcess, environment, eventually, log_of, serving

AUTHORITY = Authority("ours")
STRANGER = Authority("stranger")
GOOD = AUTHORITY.issue("ml.example.org", *LOOPBACK)
CLIENT = AUTHORITY.issue("a client")


@dataclass(frozen=True)
class Secure:
    """A server that speaks TLS, and where its certificates lie."""

    server: ServerProcess
    folder: Path

    @property
    def address(self) -> str:
        return self.server.address

    def install(self, pair: Pair) -> None:
        pair.write(self.folder)

    def client(self, tls: TLS | bool | None = None) -> EasyML:
        return EasyML(self.address, self.server.key, tls=TLS(ca=AUTHORITY.pem) if tls is None else tls)


def settings_of(folder: Path, pair: Pair, client_ca: Authority | None = None) -> dict[str, str]:
    certificate, key = pair.write(folder)
    settings = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    if client_ca:
        settings["TLS_CLIENT_CA_FILE"] = str(client_ca.write(folder / "clients.pem"))
    return settings


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A server with a good certificate; tests that exchange it put it back."""
    folder = tmp_path_factory.mktemp("tls")
    with serving(folder / "data", **settings_of(folder / "tls", GOOD), HANDSHAKE_SECONDS="1") as server:
        yield Secure(server, folder / "tls")


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A server that asks clients for a certificate."""
    folder = tmp_path_factory.mktemp("mutual")
    with serving(folder / "data", **settings_of(folder / "tls", GOOD, AUTHORITY)) as server:
        yield Secure(server, folder / "tls")


@pytest.fixture
def spoilt(tmp_path: Path, secure: Secure) -> Iterator[Secure]:
    """The server with other certificates for a while."""
    yield secure
    secure.install(GOOD)
    assert presented(secure.address) == certificate_of(GOOD)


def presented(address: str) -> x509.Certificate:
    """What a new connection is shown."""
    host, port = address.rsplit(":", 1)
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port)), timeout=10).encode())


def certificate_of(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


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


# The client's side.


async def refused(server: Secure, tls: TLS | bool, reason: str, *words: str) -> None:
    """Both clients end with the same sentence, and a watch does not try again."""
    with server.client(tls) as client:
        for act in (client.health, lambda: list(client.trainings.watch(str(uuid4())))):
            with pytest.raises(errors.Unavailable) as caught:
                act()
            assert caught.value.reason == reason, caught.value
    async with AsyncEasyML(server.address, server.server.key, tls=tls) as client:
        with pytest.raises(errors.Unavailable) as in_asyncio:
            await client.health()
    assert in_asyncio.value.message == caught.value.message
    for word in words:
        assert word in caught.value.message


async def test_plaintext_to_a_server_that_speaks_tls(secure: Secure, mutual: Secure) -> None:
    await refused(secure, False, "TLS_EXPECTED", "EASYML_TLS=true", "--ca-file")
    await refused(mutual, False, "TLS_EXPECTED", "EASYML_TLS=true")


async def test_tls_to_a_server_that_does_not(shared_server: ServerProcess) -> None:
    plain = Secure(shared_server, shared_server.data)
    await refused(plain, TLS(ca=AUTHORITY.pem), "TLS_NOT_SPOKEN", "EASYML_TLS=false", "--plaintext")


async def test_an_authority_that_the_client_does_not_know(secure: Secure) -> None:
    await refused(secure, TLS(ca=STRANGER.pem), "SERVER_CERTIFICATE_UNKNOWN", "EASYML_TLS_CA_FILE", "authorities given")
    await refused(secure, True, "SERVER_CERTIFICATE_UNKNOWN", "authorities this machine knows")


async def test_a_certificate_for_another_name(spoilt: Secure) -> None:
    spoilt.install(AUTHORITY.issue("other.example.org"))
    words = ("It is for other.example.org.", "EASYML_TLS_SERVER_NAME")
    await refused(spoilt, TLS(ca=AUTHORITY.pem), "SERVER_CERTIFICATE_NAME", *words)
    with spoilt.client(TLS(ca=AUTHORITY.pem, server_name="other.example.org")) as client:
        assert client.health() == "serving"


@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        (False, "TLS_EXPECTED"),
        (TLS(ca=STRANGER.pem), "SERVER_CERTIFICATE_UNKNOWN"),
        (TLS(ca=AUTHORITY.pem, server_name="other.example.org"), "SERVER_CERTIFICATE_NAME"),
        (TLS(ca=AUTHORITY.pem), "CLIENT_CERTIFICATE_MISSING"),
    ],
)
def test_a_name_with_several_addresses_hides_nothing(mutual: Secure, tls: TLS | bool, reason: str) -> None:
    """Nobody listens at ::1, which may be the last that gRPC tried."""
    target = f"localhost:{mutual.address.rsplit(':', 1)[1]}"
    with EasyML(target, tls=tls) as client, pytest.raises(errors.Unavailable) as caught:
        client.health()
    assert caught.value.reason == reason


async def test_a_certificate_that_expired_while_the_server_runs(spoilt: Secure) -> None:
    short = AUTHORITY.issue(*LOOPBACK, days=4 / 86_400)
    spoilt.install(short)
    assert presented(spoilt.address) == certificate_of(short)
    eventually(lambda: dt.datetime.now(dt.UTC) > certificate_of(short).not_valid_after_utc)
    await refused(spoilt, TLS(ca=AUTHORITY.pem), "SERVER_CERTIFICATE_EXPIRED", "has expired", "clock")


async def test_a_client_certificate_is_asked_for(mutual: Secure) -> None:
    def certified(pair: Pair) -> TLS:
        return TLS(ca=AUTHORITY.pem, certificate=pair.certificate, key=pair.key)

    words = ("EASYML_TLS_CLIENT_CERT_FILE", "--cert-file")
    await refused(mutual, TLS(ca=AUTHORITY.pem), "CLIENT_CERTIFICATE_MISSING", *words)
    for pair in (STRANGER.issue("a stranger"), AUTHORITY.issue("a client", begins=-9, days=-1)):
        await refused(mutual, certified(pair), "CLIENT_CERTIFICATE_REFUSED", "EASYML_TLS_CLIENT_CA_FILE")
    with mutual.client(certified(CLIENT)) as client:
        assert client.auth.whoami().user.administrator


def easyml(folder: Path, *arguments: str, given: str = "", **own: str) -> subprocess.CompletedProcess[str]:
    """The command of somebody on another machine: only what was remembered is known."""
    own = {**environment({}), "XDG_CONFIG_HOME": str(folder / "config"), "EASYML_DATA_DIR": str(folder / "none"), **own}
    command = [sys.executable, "-m", "easyml_client.cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env=own, input=given, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_login_remembers_the_certificates(mutual: Secure, tmp_path: Path) -> None:
    AUTHORITY.write(tmp_path / "ca.pem")
    CLIENT.write(tmp_path, "me")
    options = ("--ca-file", "ca.pem", "--cert-file", "me.pem", "--key-file", "me.key", "--with-key")
    done = easyml(tmp_path, "login", mutual.address, *options, given=mutual.server.key)
    assert done.returncode == 0, done.stderr
    (tmp_path / "elsewhere").mkdir()
    me = easyml(tmp_path / "elsewhere", "whoami", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert "owner@localhost" in me.stdout, me.stderr
    assert easyml(tmp_path, "logout").returncode == 0
    missing = easyml(tmp_path, "login", mutual.address, "--ca-file", "ca.pem", "--with-key", given=mutual.server.key)
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert "--cert-file" in missing.stderr
    unclear = easyml(tmp_path, "login", mutual.address, "--plaintext", "--ca-file", "ca.pem")
    assert (unclear.returncode, unclear.stderr) == (2, "Certificates are for TLS; leave out --plaintext.\n")


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
