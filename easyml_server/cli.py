"""The command line of the server: serve, init, migrate, probe, doctor, version, config show.

Exit codes: 0 done, 1 something is wrong (doctor), 2 cannot start or was called wrongly, with one line that says why.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from pydantic import SecretStr, ValidationError

from easyml_server import __version__
from easyml_server.data_folder import StartError, open_data_folder
from easyml_server.importing import much_imported
from easyml_server.settings import Settings, default_data_dir, origin_of

CANNOT_START = 2

app = App(
    name="easyml-server",
    help="From a table of data to a prediction another service calls, through one typed gRPC contract.",
    version=f"easyml-server {__version__}",
)
config = App(name="config", help="Look at the settings.")
app.command(config)

DataDir = Annotated[Path | None, Parameter(name="--data-dir", help="Folder of everything that is stored.")]


def run(arguments: Sequence[str]) -> int:
    """Run a command; what is known to go wrong ends in one line on standard error."""
    try:
        result = app(list(arguments), result_action="return_value")
    except StartError as error:
        return _refuse(str(error))
    except ValidationError as error:
        return _refuse(_settings_sentence(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


@app.command
def serve(host: str | None = None, port: int | None = None, data_dir: DataDir = None) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Example: easyml-server serve --port 50051 --data-dir ./data

    Parameters
    ----------
    host
        Address to listen on (EASYML_HOST, 127.0.0.1).
    port
        Port to listen on; 0 takes a free one (EASYML_PORT, 50051).
    data_dir
        Folder of everything that is stored (EASYML_DATA_DIR, ~/.local/share/easyml).
    """
    # gRPC's own lines on standard error, such as of a busy port, would stand beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with much_imported():
        from easyml_server.app import RunningServer, serve
        from easyml_server.observability.logs import configure_logging

    settings = _settings(host=host, port=port, data_dir=data_dir)
    configure_logging(settings.log_level, settings.log_format)

    def ready(server: RunningServer) -> None:
        _say(f"READY {server.address}{' tls' if server.certificates else ''}")
        _say(f"Data lies in {server.folder.root}. Next, in another terminal:")
        _say(f"  {_client(settings)} projects create my-project")

    asyncio.run(serve(settings, ready))


@app.command
def init(email: str, *, password_file: Path | None = None, data_dir: DataDir = None) -> None:
    """Make an account that is an administrator, such as the first one, while no server runs.

    The password is asked for, or read from a file ("-": standard input).

    Example: easyml-server init me@example.org

    Parameters
    ----------
    email
        E-mail address of the account.
    password_file
        File that holds the password.
    data_dir
        Folder of everything that is stored.
    """
    from easyml_server.accounts import make_first_account

    settings = _settings(data_dir=data_dir)
    asyncio.run(make_first_account(settings, email, _password(password_file)))
    serving = f"easyml-server serve{f' --data-dir {data_dir}' if data_dir else ''}"
    _say(f"{email} is an administrator. Next: {serving}, then {_client(settings)} login --email {email}")


@app.command
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database, and MongoDB if there is one, to the schema of this release, while no server runs.

    Example: easyml-server migrate --data-dir ./data

    Parameters
    ----------
    data_dir
        Folder of everything that is stored.
    """
    from easyml_server.documents import migrate as migrate_all

    settings = _settings(data_dir=data_dir)
    with open_data_folder(settings.data_dir) as folder:
        changed = asyncio.run(migrate_all(settings, folder))
    _say("The database was migrated." if changed else "The database is up to date.")


@app.command
def probe(service: str = "", *, seconds: float = 2.0, data_dir: DataDir = None) -> int:
    """Ask the server that runs on a data folder whether it serves; the exit code is 0 if it does.

    For health checks of containers and service managers.

    Example: easyml-server probe liveness

    Parameters
    ----------
    service
        Readiness if left out, "liveness", or a service such as easyml.v1.TrainingService.
    seconds
        How long to wait for the answer.
    data_dir
        Folder of everything that is stored.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from easyml_server import probe as probing

    status = probing.probe(_settings(data_dir=data_dir).data_dir, service, seconds)
    _say(status)
    return 0 if status == "SERVING" else 1


@app.command
def doctor(data_dir: DataDir = None, *, as_json: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Look whether this machine and the data folder are fit to serve.

    Example: easyml-server doctor --json

    Parameters
    ----------
    data_dir
        Folder of everything that is stored.
    as_json
        Print JSON for scripts.
    """
    from easyml_server.doctor import examine

    findings = examine(_settings(data_dir=data_dir))
    if as_json:
        _say(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            _say(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.sentence}")
    return 0 if all(finding.ok for finding in findings) else 1


@app.command
def version() -> None:
    """Print the version."""
    _say(__version__)


@config.command(name="show")
def config_show(*, origin: bool = False, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Print every setting with its value, and where it comes from.

    Example: easyml-server config show --origin

    Parameters
    ----------
    origin
        Say where each value comes from: environment, file or default.
    as_json
        Print JSON for scripts.
    """
    settings = _settings()
    rows = [_row(settings, name) for name in Settings.model_fields]
    if as_json:
        _say(json.dumps(rows, indent=2))
        return
    for row in rows:
        suffix = f"  [{row['origin']}]" if origin else ""
        _say(f"{row['environment']}={row['value']}{suffix}\n    {row['description']}")


def _row(settings: Settings, name: str) -> dict[str, Any]:
    value = getattr(settings, name)
    return {
        "name": name,
        "environment": f"EASYML_{name.upper()}",
        "value": str(value) if isinstance(value, Path | SecretStr) else value,
        "description": Settings.model_fields[name].description,
        "origin": origin_of(name),
    }


def _settings(**given: Any) -> Settings:
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _settings_sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        clash = first["msg"].removeprefix("Value error, ")
        return f"Settings do not fit together: {clash}. See: easyml-server config show"
    name = ".".join(str(part) for part in first["loc"])
    return f"The setting {name} (EASYML_{name.upper()}) is not usable: {first['msg']}. See: easyml-server config show"


def _password(path: Path | None) -> str:
    if path is None:
        from getpass import getpass

        if not sys.stdin.isatty():
            raise StartError(
                "There is no terminal to ask for the password; give it with --password-file (-: from standard input)."
            )
        return getpass("Password (12 characters or more): ")
    try:
        return (sys.stdin.read() if str(path) == "-" else path.read_text()).rstrip("\n")
    except OSError as error:
        raise StartError(f"The password file {path} cannot be read: {error.strerror}.") from error


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"easyml-server: {sentence}\n")
    return CANNOT_START


def _client(settings: Settings) -> str:
    """The client's command, told where the server's address lies unless it looks there by itself."""
    if settings.data_dir == default_data_dir():
        return "easyml"
    return f"EASYML_DATA_DIR={shlex.quote(str(settings.data_dir.absolute()))} easyml"
