"""Which server is called, and with what: arguments, environment, saved profile, data folder, in this order.

The rule that holds throughout: a secret goes only where it belongs. A profile's token goes to the profile's server, and
the owner's key, which opens everything, to a loopback address.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from easyml_client.credentials import Credentials, FixedToken, of_profile
from easyml_client.errors import InvalidInput, Unavailable
from easyml_client.profile import Profile, ProfileFile
from easyml_client.tls import TLS, Pem

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True)
class Connection:
    """A server and how to talk to it; the sources say where that was found, for people."""

    target: str
    target_source: str
    credentials: Credentials = field(repr=False)
    token_source: str
    tls: TLS | None
    """None: plaintext."""
    pem: Pem = field(default_factory=Pem, repr=False)

    @property
    def loopback(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(self.target)


def discover(
    target: str | None = None,
    token: str | None = None,
    *,
    tls: bool | TLS | None = None,
    environ: Mapping[str, str] | None = None,
) -> Connection:
    """The server to call. `tls` defaults to what a server here says of itself, else to no for loopback addresses."""
    environ = os.environ if environ is None else environ
    file = ProfileFile.default(environ)
    profile = file.load()
    server = _running_server(data_folder(environ))
    target, target_source = _target(target, profile, server, environ)
    credentials, token_source = _credentials(target, token, profile, file, environ)
    ours = profile if profile and profile.target == target else None
    chosen = _tls(tls, target, ours, server if server and server.target == target else None, environ)
    return Connection(
        target=target,
        target_source=target_source,
        credentials=credentials,
        token_source=token_source,
        tls=chosen,
        pem=chosen.load() if chosen else Pem(),
    )


def _target(
    given: str | None, profile: Profile | None, server: RunningServer | None, environ: Mapping[str, str]
) -> tuple[str, str]:
    if given:
        return given, "argument"
    if environ.get("EASYML_TARGET"):
        return environ["EASYML_TARGET"], "EASYML_TARGET"
    if profile:
        return profile.target, "saved by `easyml login`"
    if server:
        return server.target, str(data_folder(environ) / "server.json")
    raise Unavailable(
        "No EasyML server is known here. Start one with `easyml-server serve`, or name one: EASYML_TARGET=host:port, "
        "--server, or `easyml login`.",
        reason="NO_TARGET",
    )


def _credentials(
    target: str, token: str | None, profile: Profile | None, file: ProfileFile, environ: Mapping[str, str]
) -> tuple[Credentials, str]:
    if token:
        return FixedToken(token), "argument"
    if environ.get("EASYML_TOKEN"):
        return FixedToken(environ["EASYML_TOKEN"]), "EASYML_TOKEN"
    if profile and profile.target == target and (profile.session or profile.token):
        return of_profile(profile, file), "saved by `easyml login`"
    key = data_folder(environ) / "owner.key"
    if is_loopback(target) and (found := _read(key)):
        return FixedToken(found), str(key)
    return FixedToken(None), "none"


def _tls(
    given: bool | TLS | None,
    target: str,
    profile: Profile | None,
    server: RunningServer | None,
    environ: Mapping[str, str],
) -> TLS | None:
    """Certificates are looked for one by one: a server here says whom to trust, the environment who we are."""
    asked = given if isinstance(given, TLS) else TLS()
    named = TLS(
        ca=asked.ca or environ.get("EASYML_TLS_CA_FILE"),
        certificate=asked.certificate or environ.get("EASYML_TLS_CLIENT_CERT_FILE"),
        # A key belongs to the certificate it came with.
        key=asked.key or (None if asked.certificate else environ.get("EASYML_TLS_CLIENT_KEY_FILE")),
        server_name=asked.server_name or environ.get("EASYML_TLS_SERVER_NAME"),
    )
    if not _wanted(given, target, named, profile, server, environ):
        return None
    saved = TLS(profile.ca_file, profile.cert_file, profile.key_file, profile.server_name) if profile else TLS()
    here = TLS(ca=server.ca_file, server_name=server.server_name) if server else TLS()
    return TLS(
        ca=named.ca or saved.ca or here.ca,
        certificate=named.certificate or saved.certificate or None,
        key=named.key or (None if named.certificate else saved.key) or None,
        server_name=named.server_name or saved.server_name or here.server_name,
    )


def _wanted(
    given: bool | TLS | None,
    target: str,
    named: TLS,
    profile: Profile | None,
    server: RunningServer | None,
    environ: Mapping[str, str],
) -> bool:
    if given is not None:
        return bool(given)
    word = environ.get("EASYML_TLS", "").lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    if word:
        raise InvalidInput.at("EASYML_TLS", f"EASYML_TLS is {word!r}; it must be true or false.")
    if named != TLS():
        return True
    if profile and profile.tls is not None:
        return profile.tls
    return server.tls if server else not is_loopback(target)


def data_folder(environ: Mapping[str, str]) -> Path:
    """Where an embedded server of this user keeps everything."""
    if environ.get("EASYML_DATA_DIR"):
        return Path(environ["EASYML_DATA_DIR"]).expanduser()
    home = Path(environ.get("HOME", "~")).expanduser()
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "easyml"


@dataclass(frozen=True)
class RunningServer:
    """What an embedded server of this user says of itself in server.json."""

    target: str
    tls: bool
    ca_file: str | None
    server_name: str | None


def _running_server(folder: Path) -> RunningServer | None:
    """The server that runs on the folder; one that listens everywhere is called at loopback."""
    try:
        found = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        target = re.sub(r"^(0\.0\.0\.0|\[::\])(?=:)", "127.0.0.1", str(found["address"]))
        server = RunningServer(target, found.get("scheme") == "tls", found.get("ca_file"), found.get("server_name"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return server if target else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def is_loopback(target: str) -> bool:
    """Whether a gRPC target can only mean this machine; when in doubt it does not."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = re.sub(r"^(dns:///|ipv4:|ipv6:)", "", target)
    if "," in address:
        # Several servers that answer as one.
        return all(is_loopback(each) for each in address.split(","))
    match = re.fullmatch(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:/,\[\]]+))(?::\d+)?", address)
    if not match:
        return False
    host = match["six"] or match["host"]
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
