"""Who can reach the server, and how it proves who it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from easyml_server.data_folder import StartError
from easyml_server.settings import Settings
from easyml_server.transport.certificates import CertificateError, CertificateFiles
from easyml_server.transport.tls import Certificates


def check_exposure(settings: Settings) -> None:
    """Plaintext only where no other machine can listen, unless somebody said so."""
    if not settings.loopback and not settings.allow_plaintext and settings.tls_cert_file is None:
        raise StartError(
            f"{settings.host} can be reached by other machines, and without TLS they can read everything; set "
            "EASYML_TLS_CERT_FILE and EASYML_TLS_KEY_FILE, listen on 127.0.0.1, or set EASYML_ALLOW_PLAINTEXT=true "
            "where something else encrypts."
        )


def certificate_files(settings: Settings) -> CertificateFiles | None:
    """Where the certificate lies; None for plaintext."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    client_ca = settings.tls_client_ca_file and settings.tls_client_ca_file.expanduser().absolute()
    return CertificateFiles(
        settings.tls_cert_file.expanduser().absolute(), settings.tls_key_file.expanduser().absolute(), client_ca
    )


def open_certificates(settings: Settings, clock: Callable[[], datetime]) -> Certificates | None:
    """The certificate to serve with; StartError if it cannot be used."""
    files = certificate_files(settings)
    try:
        return None if files is None else Certificates(files, clock)
    except CertificateError as error:
        raise StartError(str(error)) from error


def proof(settings: Settings, certificates: Certificates | None) -> dict[str, str | None] | None:
    """How clients on this machine know the server: by its own certificate, whoever issued it."""
    if certificates is None:
        return None
    host = settings.host.strip("[]")
    return {"ca_file": str(certificates.path), "server_name": certificates.current.name_for(host)}
