"""`easyml doctor`: looks at everything between this command and the server, and says what to do."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from easyml_client import __version__
from easyml_client.cli.app import single
from easyml_client.cli.common import EVERYWHERE, Common
from easyml_client.cli.output import clean, interactive, print_json

if TYPE_CHECKING:
    from easyml_client.client import EasyML
    from easyml_client.discovery import Connection

OK, NOTE, BAD = "ok", "note", "bad"
_CLOCK_SECONDS = 30
_SOON_DAYS = 14
_MARKS = {OK: ("✓", "green"), NOTE: ("!", "yellow"), BAD: ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: str
    message: str


def doctor(*, common: Common = EVERYWHERE) -> int:
    """Look at address, token, connection and server, and say what to do.

    Example: `easyml doctor`
    """
    findings = list(_examine(common.server))
    if common.json:
        print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    return int(any(finding.level == BAD for finding in findings))


app = single("doctor", doctor)


def _print(finding: Finding) -> None:
    mark, colour = _MARKS[finding.level]
    if not interactive():
        print(f"{finding.level}\t{finding.check}\t{clean(finding.message)}")
        return
    from rich.console import Console
    from rich.text import Text

    Console().print(Text.assemble((mark, colour), f" {finding.check}: ", clean(finding.message)))


def _examine(server: str | None) -> Iterator[Finding]:
    from easyml_client.client import EasyML
    from easyml_client.errors import EasyMLError

    yield Finding("client", OK, f"easyml-client {__version__}.")
    try:
        client = EasyML(server)
    except EasyMLError as error:
        yield Finding("address", BAD, error.message)
        return
    with client:
        yield from _address(client.connection)
        yield from _certificate(client.connection)
        yield from _token(client.connection)
        yield from _server(client)


def _address(connection: Connection) -> Iterator[Finding]:
    encrypted = "encrypted (TLS)" if connection.tls else "not encrypted"
    message = f"{connection.target} ({connection.target_source}), {encrypted}."
    exposed = not connection.tls and not connection.loopback
    if exposed:
        message += " Token and data can be read on the way: use TLS."
    yield Finding("address", NOTE if exposed else OK, message)
    yield from _left_behind(connection)


def _left_behind(connection: Connection) -> Iterator[Finding]:
    """A server.json whose server is gone."""
    if not connection.target_source.endswith("server.json"):
        return
    try:
        process = int(json.loads(Path(connection.target_source).read_text(encoding="utf-8"))["pid"])
        os.kill(process, 0)
    except ProcessLookupError:
        yield Finding("embedded server", BAD, "It was not shut down and is gone; start it: `easyml-server serve`.")
    except (OSError, ValueError, KeyError, TypeError):
        return


def _certificate(connection: Connection) -> Iterator[Finding]:
    """Of the server; where nothing is shown, the server's own finding says why. And the client's own."""
    if connection.tls is None:
        return
    from easyml_client.handshake import server_certificate
    from easyml_client.tls import own_end

    shown = server_certificate(connection)
    if shown is not None and shown.expires is not None:
        yield _lasting("certificate", f"Of the server, for {', '.join(shown.names)}", shown.expires)
    end = own_end(connection.pem)
    if end is not None:
        yield _lasting("client certificate", "Of this client", end)


def _lasting(check: str, what: str, end: dt.datetime) -> Finding:
    days = (end - dt.datetime.now(dt.UTC)).days
    if days < 0:
        return Finding(check, BAD, f"{what}; it expired on {end:%Y-%m-%d}: who runs the server has to renew it.")
    if days < _SOON_DAYS:
        return Finding(check, NOTE, f"{what}; {days} days left: it is time that who runs the server renews it.")
    return Finding(check, OK, f"{what}; {days} days left.")


def _token(connection: Connection) -> Iterator[Finding]:
    source = connection.token_source
    if connection.credentials.token is None:
        yield Finding("token", BAD, "There is none; sign in with `easyml login`, or set EASYML_TOKEN.")
        return
    readable = source.endswith("owner.key") and stat.S_IMODE(Path(source).stat().st_mode) & 0o077
    if readable:
        yield Finding("token", NOTE, f"{source} can be read by others; put it right with: chmod 600 {source}")
    else:
        yield Finding("token", OK, f"From {source}.")
    yield from _clock(connection.credentials.token)


def _clock(token: str) -> Iterator[Finding]:
    """A session's token says when the server made it; later than now can only be a clock that is wrong."""
    try:
        claims = token.split(".")[1]
        made = float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iat"])
    except (IndexError, ValueError, KeyError, TypeError):
        return
    behind = made - time.time()
    if behind > _CLOCK_SECONDS:
        message = f"The clock here is {behind:.0f} s or more behind the server's; sessions need both to be right."
        yield Finding("clock", BAD, message)
    else:
        yield Finding("clock", OK, "It is not behind the server's.")


def _server(client: EasyML) -> Iterator[Finding]:
    from easyml_client.errors import EasyMLError

    try:
        alive = client.health("liveness")
        ready = client.health()
    except EasyMLError as error:
        yield Finding("server", BAD, error.message)
        return
    if ready != "serving":
        message = f"It answers, but is not ready ({alive}, {ready}): a part it needs is missing; its log says which."
        yield Finding("server", BAD, message)
    else:
        yield Finding("server", OK, "It answers and is ready.")
    yield from _signed_in(client)


def _signed_in(client: EasyML) -> Iterator[Finding]:
    from easyml_client.errors import EasyMLError

    if client.connection.credentials.token is None:
        return
    try:
        caller = client.auth.whoami()
    except EasyMLError as error:
        yield Finding("account", BAD, f"{error.message} Sign in again with `easyml login`.")
        return
    yield Finding("account", OK, f"You are {caller.user.email or caller.user.display_name}.")
