"""Certificates towards the cluster, as Dask's own configuration names them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from distributed.security import Security

AUTHORITY = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"
CERTIFICATE = "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"
WHERE = f"name them in Dask's configuration ({AUTHORITY}, {CERTIFICATE} and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY)"


def missing_certificates() -> str | None:
    """What is wrong with them; None if they can be used."""
    try:
        found = Security().get_connection_args("client").get("ssl_context")
    except (OSError, TypeError, ValueError) as error:
        return f"tls:// needs certificates, and these cannot be read ({error}); {WHERE}."
    return None if found else f"tls:// needs certificates, and there are none; {WHERE}."


def why_away(error: BaseException) -> str:
    """Why the scheduler could not be connected to, on one line; certificates that do not match are named."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not to be trusted by the authority in {AUTHORITY}: {each.verify_message}"
        if re.search(r"\bSSL\w*Error\b", str(each)):
            # Of Dask's making: the library's own error was closed with the connection.
            return f"it broke off the handshake; does it trust the certificate in {CERTIFICATE}? {_first_line(each)}"
    return _first_line(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
