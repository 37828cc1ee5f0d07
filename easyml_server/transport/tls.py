"""Encrypted listening: TLS 1.2 or newer, with a certificate that is exchanged while the server runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import grpc
import structlog

from easyml_server.transport.certificates import (
    CertificateError,
    CertificateFiles,
    ServerCertificate,
    read_certificate,
)

LOOK_SECONDS = 3_600.0

log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """The certificate in force. Each new connection gets what lies in the files then; open ones go on as they are."""

    def __init__(self, files: CertificateFiles, clock: Callable[[], datetime]) -> None:
        """CertificateError if the files cannot be used."""
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = _stamp(files)
        self.current: ServerCertificate = read_certificate(files, clock())
        self._handed_out = self.current

    @property
    def path(self) -> Path:
        """Where the certificate lies."""
        return self._files.certificate

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which asks for the configuration again in each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self.current),
            self._fetch,  # type: ignore[arg-type]  # None means unchanged, which the stubs do not know
            require_client_authentication=self._files.client_ca is not None,
        )

    def renew(self) -> bool:
        """Take what lies in the files if it changed and can be used; whether it was taken."""
        with self._lock:
            stamp = _stamp(self._files)
            if stamp == self._seen:
                return False
            self._seen = stamp
            try:
                self.current = read_certificate(self._files, self._clock())
            except CertificateError as error:
                # Often the key is not there yet: it changes the stamp again when it comes.
                log.warning("certificate_not_taken", problem=str(error), in_force_until=str(self.current.expires))
                return False
            log.info("certificate_taken", names=self.current.names, expires=str(self.current.expires))
            return True

    def remind(self) -> None:
        """Say so in the log when it expires soon, or has."""
        now = self._clock()
        left = self.current.days_left(now)
        advice = f"put a new one into {self._files.certificate} and its key; no restart is needed"
        if left < 0:
            log.error("certificate_expired", expired=str(self.current.expires), advice=advice)
        elif self.current.expires_soon(now):
            log.warning("certificate_expires_soon", days_left=left, expires=str(self.current.expires), advice=advice)

    async def keep_looking(self) -> None:
        """Renew and remind now and then, also while nobody connects."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.renew)
            self.remind()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """In a thread of gRPC's, in each handshake: None where gRPC has it already."""
        self.renew()
        with self._lock:
            if self._handed_out is self.current:
                return None
            self._handed_out = self.current
        return _configuration(self._handed_out)


def _configuration(certificate: ServerCertificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key_pem, certificate.chain_pem)], root_certificates=certificate.client_ca_pem
    )


def _stamp(files: CertificateFiles) -> Stamp:
    paths = (files.certificate, files.key, files.client_ca)
    return tuple(_stamp_of(path) for path in paths if path is not None)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
