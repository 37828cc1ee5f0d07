"""Why a connection did not come about, where TLS is at fault: a sentence with the way out, in place of gRPC's.

gRPC names some causes. Others it knows only as a closed socket: a server that wants TLS, or a client certificate, hangs
up without a word. Then the server is called once more, by the standard library, to see how far it goes.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import socket
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from easyml_client.errors import UNREACHABLE, EasyMLError, Unavailable
from easyml_client.steps import each_step, work
from easyml_client.tls import Pem, own_end

if TYPE_CHECKING:
    import ssl

    from easyml_client.discovery import Connection

T = TypeVar("T")

PROBE_SECONDS = 2.0
FINAL = frozenset(
    {
        "TLS_EXPECTED",
        "TLS_NOT_SPOKEN",
        "SERVER_CERTIFICATE_UNKNOWN",
        "SERVER_CERTIFICATE_EXPIRED",
        "SERVER_CERTIFICATE_NAME",
        "CLIENT_CERTIFICATE_MISSING",
        "CLIENT_CERTIFICATE_REFUSED",
    }
)
"""Reasons that another try does not change."""


def explaining(plan: Generator[Any, Any, T], connection: Connection) -> Generator[Any, Any, T]:
    """The same plan, whose errors say so where TLS keeps the client from its server."""

    def attempt(step: Any) -> Generator[Any, Any, Any]:
        try:
            return (yield step)
        except Unavailable as error:
            if error.reason != UNREACHABLE:
                raise
            explained = yield from work(functools.partial(explain, error, connection))
            if explained is None:
                raise
            raise explained from error

    return (yield from each_step(plan, attempt))


def explain(error: EasyMLError, connection: Connection) -> Unavailable | None:
    """The error in other words; None where TLS has nothing to do with it. It may call the server, for two seconds."""
    cause = error.metadata.get("cause", "")
    found = _encrypted(connection, cause) if connection.tls else _plaintext(connection, cause)
    if found is None:
        return None
    reason, sentence = found
    return Unavailable(sentence, reason=reason, call_id=error.call_id)


def _plaintext(connection: Connection, cause: str) -> tuple[str, str] | None:
    shown = _probe(connection, Pem()) if _unclear(cause) else None
    if shown is None or not shown.tls:
        return None
    return (
        "TLS_EXPECTED",
        f"EasyML at {connection.target} speaks TLS, and this client did not: set EASYML_TLS=true, and "
        "EASYML_TLS_CA_FILE=ca.pem unless a public authority issued the server's certificate; or `easyml login` with "
        "--tls or --ca-file.",
    )


def _encrypted(connection: Connection, cause: str) -> tuple[str, str] | None:
    shown = _probe(connection, connection.pem) if _unclear(cause) else None
    if shown is not None and shown.hung_up:
        # So does a server that is just being stopped; but that one is gone now.
        shown = _probe(connection, connection.pem)
    return _not_trusted(connection, shown.problem if shown else cause) or _not_wanted(connection, shown)


def _not_trusted(connection: Connection, cause: str) -> tuple[str, str] | None:
    """What BoringSSL or, in a probe, OpenSSL says of the server."""
    target = connection.target
    if "WRONG_VERSION_NUMBER" in cause:
        return (
            "TLS_NOT_SPOKEN",
            f"EasyML at {target} does not speak TLS, and this client does. Give the server a certificate; where nobody "
            "can listen in between, set EASYML_TLS=false, or `easyml login` with --plaintext.",
        )
    if "certificate has expired" in cause or "certificate is not yet valid" in cause:
        state = "has expired" if "expired" in cause else "is not valid yet"
        return (
            "SERVER_CERTIFICATE_EXPIRED",
            f"The certificate of {target} {state}, so it was not called. Who runs the server has to renew it; if that "
            "was done, look at the clock of this machine.",
        )
    if "Hostname Verification Check failed" in cause or "mismatch" in cause:
        return "SERVER_CERTIFICATE_NAME", _wrong_name(connection)
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        trusted = "the authorities given" if connection.pem.ca is not None else "the authorities this machine knows"
        return (
            "SERVER_CERTIFICATE_UNKNOWN",
            f"The certificate of {target} was issued by none of {trusted}, so it was not called. Name the right one: "
            "EASYML_TLS_CA_FILE=ca.pem, or `easyml login` with --ca-file.",
        )
    return None


def _wrong_name(connection: Connection) -> str:
    shown = _probe(connection, connection.pem)
    names = f" It is for {', '.join(shown.names)}." if shown and shown.names else ""
    called = (connection.tls and connection.tls.server_name) or connection.target
    return (
        f"The certificate of {connection.target} is not for {called}, so it was not called.{names} Call the server by "
        "a name of its certificate, or say which one to expect with EASYML_TLS_SERVER_NAME."
    )


def _not_wanted(connection: Connection, shown: Shown | None) -> tuple[str, str] | None:
    """What it means that the server hung up on a client that trusts it."""
    if shown is None or not shown.hung_up:
        return None
    if connection.pem.certificate is None:
        return (
            "CLIENT_CERTIFICATE_MISSING",
            f"EasyML at {connection.target} wants a certificate of the client: set EASYML_TLS_CLIENT_CERT_FILE and "
            "EASYML_TLS_CLIENT_KEY_FILE, or `easyml login` with --cert-file and --key-file.",
        )
    end = own_end(connection.pem)
    expired = end is not None and end < dt.datetime.now(dt.UTC)
    cause = f"it expired on {end:%Y-%m-%d}" if expired else "the server's EASYML_TLS_CLIENT_CA_FILE lacks its authority"
    return (
        "CLIENT_CERTIFICATE_REFUSED",
        f"EasyML at {connection.target} does not accept this client's certificate: {cause}. Get one from who runs the "
        "server.",
    )


def _unclear(cause: str) -> bool:
    """Whether more may lie behind it: of a name's addresses, such as ::1 and 127.0.0.1, gRPC tells of one only."""
    return any(words in cause for words in ("Socket closed", "reset by peer", "Broken pipe", "refused"))


@dataclass(frozen=True)
class Shown:
    """What a server showed in a handshake; names and end only where its issuer is trusted."""

    tls: bool = True
    problem: str = ""
    """Why it is not trusted, or did not understand, in OpenSSL's words."""
    names: tuple[str, ...] = ()
    expires: dt.datetime | None = None
    hung_up: bool = False
    """It ended the connection once it had seen the client's certificate, or that there is none."""


def server_certificate(connection: Connection) -> Shown | None:
    """The certificate of a server whose issuer is trusted; None if there is no connection."""
    return _probe(connection, connection.pem)


def _probe(connection: Connection, pem: Pem) -> Shown | None:
    """What a TLS handshake shows; None where there is nobody. The server is asked what it is, and told nothing."""
    import ssl

    address = _address(connection.target)
    if address is None:
        return None
    name = (connection.tls and connection.tls.server_name) or address[0]
    problem = ""
    # The names of a certificate can be read only where its issuer is trusted.
    for trusting, naming in ((True, True), (True, False), (False, False)):
        try:
            with socket.create_connection(address, PROBE_SECONDS) as plain:
                context = _context(pem, trusting=trusting, naming=naming)
                with context.wrap_socket(plain, server_hostname=name) as encrypted:
                    return _shown(encrypted, problem)
        except ssl.SSLCertVerificationError as error:
            problem = problem or str(error)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            # Before it said anything: a balancer without a server behind it does so, or a server that is stopped.
            return None
        except ssl.SSLError as error:
            return Shown(tls=False, problem=str(error))
        except (OSError, ValueError):
            return None
    return None


def _context(pem: Pem, *, trusting: bool, naming: bool) -> ssl.SSLContext:
    """Trusting: the issuer is looked at; naming: the name as well."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.check_hostname = naming
    if not trusting:
        context.verify_mode = ssl.CERT_NONE
    elif pem.ca is None:
        context.load_default_certs()
    else:
        # As gRPC does, so that a server's own certificate may be the authority.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=pem.ca.decode("ascii", "ignore"))
    with pem.pair_files() as files:
        if files is not None:
            context.load_cert_chain(*files)
    return context


def _shown(encrypted: ssl.SSLSocket, problem: str) -> Shown:
    import ssl

    found: Any = encrypted.getpeercert() or {}
    names = tuple(value for _, value in found.get("subjectAltName", ()))
    expires = None
    if "notAfter" in found:
        expires = dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(found["notAfter"]), dt.UTC)
    try:
        # A gRPC server speaks first. One that does not want us hangs up now, as TLS 1.3 has it.
        hung_up = encrypted.recv(1) == b""
    except TimeoutError:
        hung_up = False
    except OSError:
        hung_up = True
    return Shown(True, problem, names, expires, hung_up)


def _address(target: str) -> tuple[str, int] | None:
    address = re.sub(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:)", "", target)
    match = re.fullmatch(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:/,\[\]]+))(?::(?P<port>\d+))?", address)
    return (match["six"] or match["host"], int(match["port"] or 443)) if match else None


def cannot_change(error: EasyMLError) -> bool:
    """Whether the same call would end the same way, until somebody changes a setting or a certificate."""
    return error.reason in FINAL
