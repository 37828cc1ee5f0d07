"""Servers that speak TLS, for tests: whom they and their clients trust, and where the certificates lie."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from easyml_client import TLS, EasyML
from tests.certificates import LOOPBACK, Authority, Pair
from tests.servers import ServerProcess

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


def presented(address: str) -> x509.Certificate:
    """What a new connection is shown."""
    host, port = address.rsplit(":", 1)
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port)), timeout=10).encode())


def certificate_of(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)
