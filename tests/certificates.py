"""Certificates for tests: authorities, and what they issue."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

DAY = dt.timedelta(days=1)
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Pair:
    """A key and the certificate that belongs to it, as PEM."""

    key: bytes
    certificate: bytes

    def write(self, folder: Path, name: str = "server") -> tuple[Path, Path]:
        """Certificate and key as files; the key is its owner's alone, and each file is exchanged at once."""
        folder.mkdir(exist_ok=True)
        return (
            exchange(folder / f"{name}.pem", self.certificate),
            exchange(folder / f"{name}.key", self.key, mode=0o600),
        )


def exchange(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """Replace a file as those who renew certificates do: nobody reads half of it."""
    aside = path.with_name(f".{path.name}")
    aside.touch(mode)
    aside.write_bytes(content)
    return aside.replace(path)


class Authority:
    """Issues certificates."""

    def __init__(self, name: str = "authority", days: float = 3650) -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(self._name, self._key.public_key(), -3650, days).issuer_name(self._name)
        certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = certificate.sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._certificate.public_bytes(Encoding.PEM)

    def write(self, path: Path) -> Path:
        """Its own certificate as a file."""
        return exchange(path, self.pem)

    def issue(self, *names: str, begins: float = -30, days: float = 90, key: Any = None) -> Pair:
        """A certificate for names and addresses, valid from and until so many days from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(names[0] if names else "nameless"), key.public_key(), begins, days)
        if names:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.issuer_name(self._name).sign(self._key, hashes.SHA256())
        return Pair(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), certificate.public_bytes(Encoding.PEM)
        )


def _builder(name: x509.Name, key: Any, begins: float, days: float) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + days * DAY)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
