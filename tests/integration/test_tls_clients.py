"""What clients say where TLS keeps them from a server: at once, in a sentence with the way out."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from easyml_client import TLS, AsyncEasyML, EasyML, errors
from tests.certificates import LOOPBACK, Pair
from tests.integration.secure import AUTHORITY, CLIENT, GOOD, STRANGER, Secure, certificate_of, presented, settings_of
from tests.servers import ServerProcess, environment, eventually, serving


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
    wrong = {"lacks its authority": STRANGER.issue("me"), "it expired on 20": AUTHORITY.issue("me", begins=-9, days=-1)}
    for cause, pair in wrong.items():
        await refused(mutual, certified(pair), "CLIENT_CERTIFICATE_REFUSED", cause)
    with mutual.client(certified(CLIENT)) as client:
        assert client.auth.whoami().user.administrator


def health_of(client: EasyML) -> str:
    """Or why it is not known."""
    try:
        return client.health()
    except errors.Unavailable as error:
        return error.reason


def test_a_server_that_is_gone_is_only_gone_and_comes_back(tmp_path: Path) -> None:
    tls = TLS(ca=AUTHORITY.pem, certificate=CLIENT.certificate, key=CLIENT.key)
    with (
        serving(tmp_path / "data", **settings_of(tmp_path / "tls", GOOD, AUTHORITY)) as server,
        Secure(server, tmp_path).client(tls) as client,
    ):
        assert health_of(client) == "serving"
        server.kill()
        assert health_of(client) == "UNREACHABLE"
        server.start()
        eventually(lambda: health_of(client) == "serving")


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
