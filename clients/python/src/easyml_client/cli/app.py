"""The commands by name. Each is imported when it is used, so `easyml --help` starts at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cyclopts import App, Parameter

from easyml_client import __version__

DEFAULTS = Parameter(negative=(), show_default=False)

app = App(
    name="easyml",
    help="From a table of data to a prediction: upload, train, watch, compare, predict.",
    help_epilogue=(
        "The server is --server, EASYML_TARGET, that of `easyml login`, or the one that runs here. "
        "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 Ctrl-C."
    ),
    version=__version__,
    suppress_keyboard_interrupt=False,
    default_parameter=DEFAULTS,
)


def group(name: str, help: str) -> App:
    """A noun with commands below it."""
    return App(name=name, help=help, default_parameter=DEFAULTS)


def single(name: str, function: Callable[..., Any]) -> App:
    """A command without commands below it.

    A lazy command shows the help it was registered with, so the example of the docstring goes below the options.
    """
    example = [line.strip() for line in (function.__doc__ or "").splitlines() if line.strip().startswith("Example:")]
    command = App(name=name, default_parameter=DEFAULTS, help_epilogue="\n\n".join(example))
    command.default(function)
    return command


_COMMANDS = {
    "projects": ("projects:app", "Projects, their members and configuration."),
    "datasets": ("datasets:app", "Upload, look at and download tables."),
    "algorithms": ("algorithms:app", "What can be trained, with every setting."),
    "train": ("train:app", "Train a model on a dataset."),
    "experiments": ("experiments:app", "Trainings and what came out: list, watch, compare."),
    "models": ("models:app", "Models, their versions, aliases and files."),
    "deploy": ("deploy:app", "Make a model version callable."),
    "deployments": ("deployments:app", "Model versions made callable: list, watch, scale, roll back, stop."),
    "predict": ("predict:app", "Predict rows with a model."),
    "login": ("account:login_app", "Sign in to a server and remember it."),
    "logout": ("account:logout_app", "Sign out and forget the server."),
    "register": ("account:register_app", "Make an account on a server and sign in."),
    "whoami": ("account:whoami_app", "Who you are to the server."),
    "token": ("account:token", "Keys for programs."),
    "doctor": ("doctor:app", "What is wrong, if something is."),
}

for _name, (_home, _help) in _COMMANDS.items():
    app.command(f"easyml_client.cli.{_home}", name=_name, help=_help)

app.register_install_completion_command(add_to_startup=False)
