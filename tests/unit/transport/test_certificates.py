"""What the server says of certificates it cannot use, and how it exchanges those it can."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from easyml_server.transport.certificates import (
    CertificateError,
    CertificateFiles,
    ServerCertificate,
    open_to_others,
    read_certificate,
)
from easyml_server.transport.tls import Certificates
from tests.certificates import DAY, LOOPBACK, Authority, Pair

Spoil = Callable[[CertificateFiles], object]


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def files_of(folder: Path, pair: Pair, client_ca: Path | None = None) -> CertificateFiles:
    return CertificateFiles(*pair.write(folder), client_ca)


def test_a_certificate_is_described(authority: Authority, tmp_path: Path) -> None:
    client_ca = authority.write(tmp_path / "ca.pem")
    found = read_certificate(files_of(tmp_path, authority.issue("ml.example.org", *LOOPBACK), client_ca), now())
    assert found.names == ("ml.example.org", "localhost", "127.0.0.1")
    assert found.days_left(now()) == 89
    assert found.client_ca_pem == authority.pem
    assert "PRIVATE" not in repr(found)


def test_clients_here_are_told_a_name_where_the_address_is_not_in_the_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    found = read_certificate(files_of(tmp_path, authority.issue("*.example.org", "127.0.0.1")), now())
    assert found.name_for("127.0.0.1") is None
    assert found.name_for("0.0.0.0") == "easyml.example.org"


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_usual_kinds_of_keys_are_taken(authority: Authority, tmp_path: Path, key: object) -> None:
    assert read_certificate(files_of(tmp_path, authority.issue("localhost", key=key)), now())


def lock(files: CertificateFiles) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda files: files.certificate.unlink(), "EASYML_TLS_CERT_FILE.* cannot be read: No such file"),
        (lambda files: files.key.unlink(), "EASYML_TLS_KEY_FILE.* cannot be read: No such file"),
        (lambda files: files.certificate.write_text("junk"), "holds no certificate that can be read; it must be PEM"),
        (lambda files: files.key.write_bytes(b"\0junk"), "holds no private key that can be read; it must be PEM"),
        (lambda files: files.key.chmod(0o644), r"can be read or changed by others; run: chmod 600 \S+key$"),
        (lambda files: files.key.chmod(0o620), "can be read or changed by others"),
        (lock, "is locked with a passphrase"),
        (lambda files: Authority().issue("localhost").write(files.key.parent, "other")[1].replace(files.key), "belong"),
    ],
)
def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path, spoil: Spoil, words: str) -> None:
    files = files_of(tmp_path, authority.issue("localhost"))
    spoil(files)
    with pytest.raises(CertificateError, match=words) as refused:
        read_certificate(files, now())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"begins": -90, "days": -1}, r"expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC; renew it"),
        ({"begins": 1}, "is valid from .* compare with the clock"),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, "of a kind that gRPC does not take"),
        ({"key": ec.generate_private_key(ec.SECP521R1())}, "of a kind that gRPC does not take"),
    ],
)
def test_certificates_that_no_client_would_accept_are_refused(
    authority: Authority, tmp_path: Path, given: dict[str, object], words: str
) -> None:
    with pytest.raises(CertificateError, match=words):
        read_certificate(files_of(tmp_path, authority.issue("localhost", **given)), now())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "owner", "user", "too_open"),
    [
        (0o600, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o640, 0, 1000, False),
        (0o644, 0, 1000, True),
        (0o660, 0, 1000, True),
        (0o640, 0, 0, True),
    ],
)
def test_a_key_is_its_owners_alone_but_root_may_lend_it_to_a_group(
    mode: int, owner: int, user: int, too_open: bool
) -> None:
    assert open_to_others(mode, owner, user) is too_open


def test_a_certificate_without_a_name_is_refused(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="needs a subjectAltName"):
        read_certificate(files_of(tmp_path, authority.issue()), now())


def test_client_authorities_are_looked_at_too(authority: Authority, tmp_path: Path) -> None:
    pair, client_ca = authority.issue("localhost"), tmp_path / "ca.pem"
    with pytest.raises(CertificateError, match=r"EASYML_TLS_CLIENT_CA_FILE.* cannot be read: No such file"):
        read_certificate(files_of(tmp_path, pair, client_ca), now())
    client_ca.write_text("junk")
    with pytest.raises(CertificateError, match=r"EASYML_TLS_CLIENT_CA_FILE.* holds no certificate"):
        read_certificate(files_of(tmp_path, pair, client_ca), now())
    Authority(days=-1).write(client_ca)
    with pytest.raises(CertificateError, match=r"EASYML_TLS_CLIENT_CA_FILE.* expired on .*renew it"):
        read_certificate(files_of(tmp_path, pair, client_ca), now())


@pytest.mark.parametrize(
    ("days", "left", "soon"), [(90, 15, False), (90, 13, True), (6, 2, False), (6, 1, True), (90, -1, True)]
)
def test_it_is_time_to_renew_in_the_last_two_weeks_or_the_last_quarter(days: int, left: int, soon: bool) -> None:
    begins = now()
    found = ServerCertificate(b"", b"", None, ("localhost",), begins, begins + days * DAY, None)
    assert found.expires_soon(begins + (days - left) * DAY) is soon


def test_a_new_certificate_is_taken_once_both_files_are_there(authority: Authority, tmp_path: Path) -> None:
    certificates = Certificates(files_of(tmp_path, authority.issue("old.example.org")), now)
    assert not certificates.renew()
    new = authority.issue("new.example.org")
    certificate, key = new.write(tmp_path, "new")
    certificate.replace(tmp_path / "server.pem")
    with capture_logs() as lines:
        assert not certificates.renew()
        assert not certificates.renew()
    assert [line["event"] for line in lines] == ["certificate_not_taken"]
    assert "does not belong" in lines[0]["problem"]
    assert certificates.current.names == ("old.example.org",)
    key.replace(tmp_path / "server.key")
    assert certificates.renew()
    assert certificates.current.names == ("new.example.org",)


def test_a_certificate_that_goes_away_stays_in_force(authority: Authority, tmp_path: Path) -> None:
    certificates = Certificates(files_of(tmp_path, authority.issue("localhost")), now)
    (tmp_path / "server.pem").unlink()
    with capture_logs() as lines:
        assert not certificates.renew()
    assert "No such file" in lines[0]["problem"]
    assert certificates.current.names == ("localhost",)


@pytest.mark.parametrize(("later", "event"), [(0, None), (80, "certificate_expires_soon"), (91, "certificate_expired")])
def test_the_log_says_when_it_is_time(authority: Authority, tmp_path: Path, later: int, event: str | None) -> None:
    time = [now()]
    certificates = Certificates(files_of(tmp_path, authority.issue("localhost")), lambda: time[0])
    time[0] += later * DAY
    with capture_logs() as lines:
        certificates.remind()
    assert [line["event"] for line in lines] == ([event] if event else [])
