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

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True)
class Connection:
    """A server and how to talk to it; the sources say where that was found, for people."""

    target: str
    target_source: str
    credentials: Credentials = field(repr=False)
    token_source: str
    tls: bool
    root_certificates: bytes | None = field(default=None, repr=False)

    @property
    def loopback(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(self.target)


def discover(
    target: str | None = None,
    token: str | None = None,
    *,
    tls: bool | None = None,
    root_certificates: bytes | str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Connection:
    """The server to call. `tls` defaults to no for loopback addresses and yes for all others."""
    environ = os.environ if environ is None else environ
    file = ProfileFile.default(environ)
    profile = file.load()
    target, target_source = _target(target, profile, environ)
    credentials, token_source = _credentials(target, token, profile, file, environ)
    ours = profile if profile and profile.target == target else None
    certificates = root_certificates or environ.get("EASYML_ROOT_CERTIFICATES") or (ours and ours.root_certificates)
    return Connection(
        target=target,
        target_source=target_source,
        credentials=credentials,
        token_source=token_source,
        tls=_tls(target, tls, bool(certificates), ours, environ),
        root_certificates=_pem(certificates) if certificates else None,
    )


def _target(given: str | None, profile: Profile | None, environ: Mapping[str, str]) -> tuple[str, str]:
    if given:
        return given, "argument"
    if environ.get("EASYML_TARGET"):
        return environ["EASYML_TARGET"], "EASYML_TARGET"
    if profile:
        return profile.target, "saved by `easyml login`"
    folder = data_folder(environ)
    address = _running_server(folder)
    if address:
        return address, str(folder / "server.json")
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
    target: str, given: bool | None, certificates: bool, profile: Profile | None, environ: Mapping[str, str]
) -> bool:
    if given is not None:
        return given
    word = environ.get("EASYML_TLS", "").lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    if word:
        raise InvalidInput.at("EASYML_TLS", f"EASYML_TLS is {word!r}; it must be true or false.")
    if profile and profile.tls is not None:
        return profile.tls
    return certificates or not is_loopback(target)


def _pem(certificates: bytes | str | os.PathLike[str]) -> bytes:
    if isinstance(certificates, bytes):
        return certificates
    try:
        return Path(certificates).read_bytes()
    except OSError as error:
        message = f"The root certificates {os.fspath(certificates)} cannot be read: {error.strerror}."
        raise InvalidInput.at("root_certificates", message) from error


def data_folder(environ: Mapping[str, str]) -> Path:
    """Where an embedded server of this user keeps everything."""
    if environ.get("EASYML_DATA_DIR"):
        return Path(environ["EASYML_DATA_DIR"]).expanduser()
    home = Path(environ.get("HOME", "~")).expanduser()
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "easyml"


def _running_server(folder: Path) -> str | None:
    """The address in server.json; one that listens everywhere is called at loopback."""
    try:
        address = str(json.loads((folder / "server.json").read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return re.sub(r"^(0\.0\.0\.0|\[::\])(?=:)", "127.0.0.1", address) or None


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
