"""Which MLflow tracking server, and how its process is told: credentials apart from the address, which is shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit

URI_VARIABLE = "MLFLOW_TRACKING_URI"
USERNAME_VARIABLE = "MLFLOW_TRACKING_USERNAME"
PASSWORD_VARIABLE = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105  # the name of a variable
CREDENTIALS = "MLFLOW_TRACKING_"
"""The beginning of the variables in which MLflow looks for credentials and certificates."""
CONNECTION = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
REQUEST_SECONDS = 30
WAY_OUT = "write EASYML_MLFLOW_TRACKING_URI as https://mlflow.example.org:5000"


class WrongUriError(ValueError):
    """It names no tracking server; a sentence without the URI, which may hold a password."""


@dataclass(frozen=True, slots=True)
class TrackingServer:
    """Where it is, and the environment of the process that speaks to it."""

    uri: str
    environment: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Self:
        """User and password may stand in the URI, or in the environment as with MLflow's own tools."""
        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise WrongUriError(f"The tracking URI cannot be read; {WAY_OUT}.") from error
        if parts.scheme not in ("http", "https") or not host:
            raise WrongUriError(f"The tracking URI is not of http or https, or has no host; {WAY_OUT}.")
        if parts.query or parts.fragment:
            raise WrongUriError(f"The tracking URI has a part behind ? or #, which no MLflow has; {WAY_OUT}.")
        if (parts.username is None) != (parts.password is None):
            raise WrongUriError(
                "The tracking URI has a user without a password, or the other way round; write both "
                f"(https://user:password@host) or neither, with {USERNAME_VARIABLE} and {PASSWORD_VARIABLE} set."
            )
        address = f"[{host}]" if ":" in host else host
        netloc = address if port is None else f"{address}:{port}"
        uri = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
        return cls(uri, {**_surroundings(), URI_VARIABLE: uri, **_requests(), **_credentials(text.strip())})


def _credentials(text: str) -> Mapping[str, str]:
    parts = urlsplit(text)
    if parts.username is None or parts.password is None:
        return {}
    return {USERNAME_VARIABLE: unquote(parts.username), PASSWORD_VARIABLE: unquote(parts.password)}


def _surroundings() -> Mapping[str, str]:
    return {
        name: value for name, value in os.environ.items() if name.startswith(CREDENTIALS) or name.upper() in CONNECTION
    }


def _requests() -> Mapping[str, str]:
    """The outbox tries again, so a request is not repeated, which could make a second run."""
    return {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
    }
