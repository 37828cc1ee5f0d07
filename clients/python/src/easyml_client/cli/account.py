"""`easyml login`, `logout`, `register`, `whoami` and `token`."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.app import group, single
from easyml_client.cli.common import EVERYWHERE, Common, ProjectOption, connected, project_for
from easyml_client.cli.output import UsageError, complain, print_done, print_json, print_list, print_one

if TYPE_CHECKING:
    from easyml_client.discovery import Connection
    from easyml_client.tls import TLS

token = group("token", "Keys for programs.")

Tls = Annotated[bool | None, Parameter(negative="--plaintext", help="Encrypt; on unless the server is this machine.")]
CaFile = Annotated[Path | None, Parameter(help="PEM file of the authorities to trust for the server's certificate.")]
CertFile = Annotated[Path | None, Parameter(help="PEM file of your own certificate, where the server asks for one.")]
KeyFile = Annotated[Path | None, Parameter(help="PEM file of its key, unless it is in the same file.")]
ServerName = Annotated[str | None, Parameter(help="Name to expect in the server's certificate, if called by another.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Encryption:
    """How to speak to the server; remembered with it."""

    tls: Tls = None
    ca_file: CaFile = None
    cert_file: CertFile = None
    key_file: KeyFile = None
    server_name: ServerName = None

    def chosen(self) -> bool | TLS | None:
        """As the client takes it; None: as the environment and the server's address say."""
        from easyml_client.tls import TLS

        named = (self.ca_file, self.cert_file, self.key_file, self.server_name)
        if not any(named):
            return self.tls
        if self.tls is False:
            raise UsageError("Certificates are for TLS; leave out --plaintext.")
        return TLS(*named)


AS_USUAL = Encryption()

# Not the option of other commands: a variable that happens to be set should not decide what a key can reach.
KeyProject = Annotated[
    str | None, Parameter(name=["--project", "-p"], help="The only project it can reach; all of yours if left out.")
]


def login(
    target: str | None = None,
    /,
    *,
    email: str = "",
    with_key: bool = False,
    encryption: Encryption = AS_USUAL,
    common: Common = EVERYWHERE,
) -> None:
    """Sign in to a server and remember it.

    Example: `easyml login ml.example.org:443 --email ada@example.org`

    :param target: Address of the server; the one that would be used now if left out.
    :param email: E-mail address; asked for if left out. The password is asked for, or read from stdin.
    :param with_key: Read an API key from stdin instead, and remember that.
    """
    client, remember = _client(target or common.server, encryption)
    with client:
        if with_key:
            key = _secret("API key: ")
            caller = _with_key(client.connection, key)
            remember(token=key, email=caller.user.email)
        else:
            address = email or _ask("E-mail: ")
            session = client.auth.login(address, _secret("Password: "))
            remember(session=session, email=address)
    _say_signed_in(client.connection.target, common)


def register(
    target: str | None = None,
    /,
    *,
    email: str = "",
    name: str = "",
    encryption: Encryption = AS_USUAL,
    common: Common = EVERYWHERE,
) -> None:
    """Make an account on a server, sign in and remember it.

    Example: `easyml register ml.example.org:443 --email ada@example.org`

    :param target: Address of the server; the one that would be used now if left out.
    :param email: E-mail address; asked for if left out. The password is asked for, or read from stdin.
    :param name: Name shown to others.
    """
    client, remember = _client(target or common.server, encryption)
    with client:
        address = email or _ask("E-mail: ")
        session = client.auth.register(address, _secret("Password (12 characters or more): "), display_name=name)
        remember(session=session, email=address)
    _say_signed_in(client.connection.target, common)


def _client(target: str | None, encryption: Encryption) -> tuple[Any, Any]:
    """A client, and what saves its session."""
    from easyml_client.client import EasyML
    from easyml_client.profile import Profile, ProfileFile, SavedSession

    client = EasyML(target, tls=encryption.chosen())

    def remember(*, email: str, session: Any = None, token: str = "") -> None:
        profile = Profile(
            target=client.connection.target,
            email=email,
            token=token,
            session=SavedSession.of(session) if session else None,
            **_remembered(client.connection.tls),
        )
        ProfileFile.default(os.environ).save(profile)

    return client, remember


def _remembered(tls: TLS | None) -> dict[str, Any]:
    """The fields of a profile; paths hold wherever the next command is typed."""
    if tls is None:
        return {"tls": False}
    files = {"ca_file": tls.ca, "cert_file": tls.certificate, "key_file": tls.key}
    paths = {name: str(Path(os.fsdecode(path)).expanduser().resolve()) for name, path in files.items() if path}
    return {"tls": True, **paths, "server_name": tls.server_name or ""}


def _with_key(connection: Connection, key: str) -> Any:
    """Tries a key before it is remembered."""
    from easyml_client.client import EasyML

    with EasyML(connection.target, key, tls=connection.tls or False) as client:
        return client.auth.whoami()


def _say_signed_in(target: str, common: Common) -> None:
    if os.environ.get("EASYML_TOKEN") or os.environ.get("EASYML_TARGET"):
        complain("Note: EASYML_TARGET and EASYML_TOKEN are used before what was remembered now.")
    print_done({"target": target}, f"Signed in to {target}.", as_json=common.json)


def _ask(question: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError("Give --email; there is nobody to ask.")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _secret(question: str) -> str:
    """Asked for without echo; from a pipe, its first line."""
    secret = getpass.getpass(question) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not secret:
        raise UsageError("Nothing was given; type it, or pipe it in.")
    return secret


def logout(*, everywhere: bool = False, common: Common = EVERYWHERE) -> None:
    """Sign out and forget the server.

    Example: `easyml logout`

    :param everywhere: End all of your sessions, on other machines too.
    """
    from easyml_client.errors import NotSignedIn, Unavailable
    from easyml_client.profile import ProfileFile

    file = ProfileFile.default(os.environ)
    profile = file.load()
    if profile is None:
        file.delete()
        print_done({"signed_out": False}, "Nobody was signed in.", as_json=common.json)
        return
    try:
        with _of_profile(profile) as client:
            if everywhere:
                client.auth.logout_everywhere()
            elif profile.session:
                client.auth.logout()
    except (NotSignedIn, Unavailable) as error:
        complain(f"Note: the server was not told ({error})")
    file.delete()
    print_done({"signed_out": True, "target": profile.target}, f"Signed out of {profile.target}.", as_json=common.json)


def _of_profile(profile: Any) -> Any:
    """A client with what the profile holds, whatever the environment says."""
    from easyml_client.client import EasyML
    from easyml_client.discovery import discover

    environ = {name: value for name, value in os.environ.items() if name not in ("EASYML_TARGET", "EASYML_TOKEN")}
    return EasyML.over(discover(profile.target, environ=environ))


def whoami(*, common: Common = EVERYWHERE) -> None:
    """Say who you are to the server, and with which key.

    Example: `easyml whoami --json`
    """
    with connected(common) as client:
        caller = client.auth.whoami()
        lines = {
            "E-mail": caller.user.email,
            "Name": caller.user.display_name,
            "Id": caller.user.id,
            "Administrator": caller.user.administrator,
            "Server": client.connection.target,
            "Token from": client.connection.token_source,
            "Key": caller.api_key and f"{caller.api_key.name} ({caller.api_key.prefix}…)",
            "Key's rights": caller.api_key and caller.api_key.scope and caller.api_key.scope.permission,
        }
    print_one(caller, lines, as_json=common.json)


@token.command
def create(
    name: str,
    /,
    *,
    permission: str | None = None,
    days: float | None = None,
    project: KeyProject = None,
    common: Common = EVERYWHERE,
) -> None:
    """Make a key for a program; it is shown once.

    Example: `easyml token create nightly --project churn --permission viewer --days 30`

    :param name: Name to recognise the key by.
    :param permission: viewer, editor or owner (if left out).
    :param days: How long it is accepted; as the server has it if left out.
    """
    with connected(common) as client:
        made = client.auth.create_api_key(
            name, project=project, permission=permission, expires=None if days is None else dt.timedelta(days=days)
        )
    if common.json:
        print_json(made)
        return
    print(made.secret)
    complain("Keep it now: it cannot be shown again. Programs send it as EASYML_TOKEN.")


@token.command(name="for")
def for_(deployment: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Print a token that the endpoints of one deployment accept for a few minutes.

    Example: `easyml token for churn`

    :param deployment: Name or id of the deployment.
    """
    with connected(common) as client:
        given = client.deployments.token(deployment, project=project_for(client, deployment, project))
        print_done(given, given.token, as_json=common.json)


@token.command(name="list")
def list_(*, common: Common = EVERYWHERE) -> None:
    """List your keys, newest first.

    Example: `easyml token list`
    """
    columns = {
        "NAME": lambda key: key.name,
        "BEGINS": lambda key: key.prefix,
        "RIGHTS": lambda key: key.scope.permission if key.scope else "",
        "EXPIRES": lambda key: key.expire_time,
        "REVOKED": lambda key: key.revoke_time,
        "ID": lambda key: key.id,
    }
    with connected(common) as client:
        print_list(client.auth.list_api_keys(), columns, as_json=common.json, empty="No keys.")


@token.command
def revoke(key: str, /, *, common: Common = EVERYWHERE) -> None:
    """End a key at once.

    Example: `easyml token revoke nightly`

    :param key: Id, or the name if only one valid key has it.
    """
    with connected(common) as client:
        revoked = client.auth.revoke_api_key(_key_id(client, key))
        print_done(revoked, f"Revoked {revoked.name}.", as_json=common.json)


def _key_id(client: Any, key: str) -> str:
    from easyml_client.values import is_id

    if is_id(key):
        return key
    named = [each for each in client.auth.list_api_keys() if each.name == key and each.revoke_time is None]
    if len(named) != 1:
        raise UsageError(f"{len(named)} valid keys are named {key!r}; use an id of `easyml token list`.")
    found: str = named[0].id
    return found


login_app, logout_app = single("login", login), single("logout", logout)
register_app, whoami_app = single("register", register), single("whoami", whoami)
