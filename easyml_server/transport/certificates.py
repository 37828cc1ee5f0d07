"""The server's certificate with its key, and the authorities of client certificates: read, checked, described.

gRPC says of a certificate it cannot use only that it could not listen, and takes some that no client accepts; so
everything is looked at here first, and what is wrong is one sentence.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

SOON = timedelta(days=14)
SOON_SHARE = 4
"""Certificates that live for days only are renewed late: for these, the last quarter of their life is soon."""


class CertificateError(Exception):
    """The files cannot be used; the message is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where they lie: EASYML_TLS_CERT_FILE, EASYML_TLS_KEY_FILE and, for mutual TLS, EASYML_TLS_CLIENT_CA_FILE."""

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What the files held."""

    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    client_ca_pem: bytes | None = field(repr=False)
    names: tuple[str, ...]
    begins: datetime
    expires: datetime
    client_ca_expires: datetime | None

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires."""
        return (self.expires - now).days

    def expires_soon(self, now: datetime) -> bool:
        """Whether it is time to renew it."""
        return self.expires - now < min(SOON, (self.expires - self.begins) / SOON_SHARE)

    def name_for(self, host: str) -> str | None:
        """The name a client that calls `host` has to expect, where the certificate does not have that one."""
        if host.strip("[]") in self.names:
            return None
        return self.names[0].replace("*", "easyml", 1)


def read_certificate(files: CertificateFiles, now: datetime) -> ServerCertificate:
    """Read and check everything; CertificateError says what is wrong."""
    chain_pem = _read(files.certificate, "certificate", "EASYML_TLS_CERT_FILE")
    key_pem = _read_key(files.key)
    certificate = _certificates(chain_pem, files.certificate, "EASYML_TLS_CERT_FILE")[0]
    _check_pair(certificate, _key(key_pem, files.key), files)
    _check_time(certificate, now, files.certificate)
    client_ca_pem, client_ca_expires = _client_authorities(files.client_ca, now)
    return ServerCertificate(
        chain_pem=chain_pem,
        key_pem=key_pem,
        client_ca_pem=client_ca_pem,
        names=_names(certificate, files.certificate),
        begins=certificate.not_valid_before_utc,
        expires=certificate.not_valid_after_utc,
        client_ca_expires=client_ca_expires,
    )


def _read(path: Path, what: str, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"The {what} {path} ({setting}) cannot be read: {error.strerror}.") from error


def _read_key(path: Path) -> bytes:
    pem = _read(path, "private key", "EASYML_TLS_KEY_FILE")
    found = path.stat()
    if open_to_others(stat.S_IMODE(found.st_mode), found.st_uid, os.geteuid()):
        raise CertificateError(
            f"The private key {path} (EASYML_TLS_KEY_FILE) can be read or changed by others; run: chmod 600 {path}"
        )
    return pem


def open_to_others(mode: int, owner: int, user: int) -> bool:
    """Whether others than the user can read or change a key.

    A group may read one that root owns: that is how Kubernetes and Debian's ssl-cert lend it to a service.
    """
    lent = owner == 0 and user != 0
    return bool(mode & (0o027 if lent else 0o077))


def _certificates(pem: bytes, path: Path, setting: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(
            f"{path} ({setting}) holds no certificate that can be read; it must be PEM, beginning with "
            "-----BEGIN CERTIFICATE-----."
        ) from error


def _key(pem: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise CertificateError(
            f"The private key {path} (EASYML_TLS_KEY_FILE) is locked with a passphrase; store it without one, readable "
            "by the server alone."
        ) from error
    except ValueError as error:
        raise CertificateError(
            f"{path} (EASYML_TLS_KEY_FILE) holds no private key that can be read; it must be PEM, beginning with "
            "-----BEGIN PRIVATE KEY-----."
        ) from error


def _check_pair(certificate: x509.Certificate, key: PrivateKeyTypes, files: CertificateFiles) -> None:
    # Measured: with Ed25519 and P-521 every gRPC client breaks off the handshake, and the server says nothing.
    if not isinstance(key, rsa.RSAPrivateKey) and not (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    ):
        raise CertificateError(
            f"The private key {files.key} (EASYML_TLS_KEY_FILE) is of a kind that gRPC does not take; use RSA, or an "
            "elliptic key on P-256 or P-384."
        )
    if _public(certificate.public_key()) != _public(key.public_key()):
        raise CertificateError(
            f"The private key {files.key} (EASYML_TLS_KEY_FILE) does not belong to the first certificate in "
            f"{files.certificate} (EASYML_TLS_CERT_FILE); that one must be the server's, its issuers follow."
        )


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_time(certificate: x509.Certificate, now: datetime, path: Path) -> None:
    begins, expires = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= expires:
        raise CertificateError(
            f"The certificate {path} (EASYML_TLS_CERT_FILE) expired on {expires:%Y-%m-%d %H:%M} UTC; renew it."
        )
    if now < begins:
        raise CertificateError(
            f"The certificate {path} (EASYML_TLS_CERT_FILE) is valid from {begins:%Y-%m-%d %H:%M} UTC on; compare with "
            f"the clock of this machine ({now:%Y-%m-%d %H:%M} UTC)."
        )


def _names(certificate: x509.Certificate, path: Path) -> tuple[str, ...]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise CertificateError(_no_name(path)) from error
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    names = (*alternatives.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))
    if not names:
        raise CertificateError(_no_name(path))
    return names


def _no_name(path: Path) -> str:
    return (
        f"The certificate {path} (EASYML_TLS_CERT_FILE) names no host or address that clients could call; it needs a "
        "subjectAltName."
    )


def _client_authorities(path: Path | None, now: datetime) -> tuple[bytes | None, datetime | None]:
    if path is None:
        return None, None
    pem = _read(path, "client authority", "EASYML_TLS_CLIENT_CA_FILE")
    expires = max(each.not_valid_after_utc for each in _certificates(pem, path, "EASYML_TLS_CLIENT_CA_FILE"))
    if now >= expires:
        raise CertificateError(
            f"The client authority {path} (EASYML_TLS_CLIENT_CA_FILE) expired on {expires:%Y-%m-%d %H:%M} UTC, so no "
            "client certificate can be accepted; renew it."
        )
    return pem, expires
