"""Whom a client trusts and who it is, when it speaks TLS: files or PEM, read and checked before the first call.

gRPC says of certificates that it cannot use only that a connection could not be made.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from easyml_client.errors import InvalidInput

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""

Source = bytes | str | os.PathLike[str]


@dataclass(frozen=True)
class TLS:
    """Certificates as paths of PEM files, or as PEM.

    `ca` are the authorities to trust, those of this machine if left out. `certificate` and `key` are the client's own,
    where the server asks for one; the key may lie in the certificate's file. `server_name` is the name to expect in the
    server's certificate, if it is called by another one.
    """

    ca: Source | None = field(default=None, repr=False)
    certificate: Source | None = field(default=None, repr=False)
    key: Source | None = field(default=None, repr=False)
    server_name: str | None = None

    def load(self) -> Pem:
        """Read and check what was named; InvalidInput says what cannot be used."""
        if self.key is not None and self.certificate is None:
            message = "The key of a client certificate is given, but not the certificate: EASYML_TLS_CLIENT_CERT_FILE."
            raise InvalidInput.at("tls.certificate", message)
        key = self.key if self.key is not None else self.certificate
        pem = Pem(_read(self.ca, "tls.ca"), _read(self.certificate, "tls.certificate"), _read(key, "tls.key"))
        if pem.ca is not None:
            _check_ca(pem.ca, _named(self.ca))
        if pem.certificate is not None:
            _check_pair(pem, _named(self.certificate), _named(key))
        return pem


@dataclass(frozen=True)
class Pem:
    """The same, read."""

    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    @contextmanager
    def pair_files(self) -> Iterator[tuple[Path, Path] | None]:
        """Certificate and key as files, for the standard library, which takes no others; None if there are none."""
        if self.certificate is None or self.key is None:
            yield None
            return
        with TemporaryDirectory(prefix="easyml-") as folder:
            certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
            certificate.write_bytes(self.certificate)
            key.write_bytes(self.key)
            yield certificate, key


def own_end(pem: Pem) -> dt.datetime | None:
    """When the client's own certificate expires; None if there is none.

    The standard library reads the certificate of a peer only, so this one is shown to itself, in memory.
    """
    import ssl

    with pem.pair_files() as files:
        if files is None or pem.certificate is None:
            return None
        showing, looking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (showing, looking):
            context.load_cert_chain(*files)
        showing.check_hostname = False
        showing.verify_mode = ssl.CERT_NONE
        looking.verify_mode = ssl.CERT_REQUIRED
        looking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        looking.load_verify_locations(cadata=pem.certificate.decode("ascii", "ignore"))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = showing.wrap_bio(back, there), looking.wrap_bio(there, back, server_side=True)
    for end in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    shown: Any = server.getpeercert()
    return dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), dt.UTC)


def _read(source: Source | None, field: str) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput.at(
            field, f"The certificate file {_named(source)} cannot be read: {error.strerror}."
        ) from error


def _named(source: Source | None) -> str:
    return "given as bytes" if source is None or isinstance(source, bytes) else os.fspath(source)


def _check_ca(pem: bytes, name: str) -> None:
    import ssl

    try:
        # Bundles have comments in any language; what is between the certificates does not matter.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        message = f"The authorities {name} (EASYML_TLS_CA_FILE) hold no certificate that can be read; they must be PEM."
        raise InvalidInput.at("tls.ca", message) from error


def _check_pair(pem: Pem, certificate: str, key: str) -> None:
    import ssl

    with pem.pair_files() as files:
        if files is None:
            return
        try:
            # Without a password the standard library would ask on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, password="")
        except (ssl.SSLError, ValueError) as error:
            message = (
                f"The client certificate {certificate} (EASYML_TLS_CLIENT_CERT_FILE) and its key {key} "
                "(EASYML_TLS_CLIENT_KEY_FILE) cannot be used: both must be PEM and belong together, and the key must "
                "not be locked with a passphrase."
            )
            raise InvalidInput.at("tls.certificate", message) from error
