"""What commands have in common: options, the connection, names, and consent to deletes."""

from __future__ import annotations

import contextlib
import json as json_
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.output import UsageError, clean, complain

if TYPE_CHECKING:
    from easyml_client.client import EasyML
    from easyml_client.resources.projects import DeletedResources

_GROUP = "Everywhere"
LATEST = "latest"


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Annotated[bool, Parameter(group=_GROUP, help="Print JSON, and nothing else, on stdout.")] = False
    server: Annotated[str | None, Parameter(group=_GROUP, help="Address of the server: host:port.")] = None


EVERYWHERE = Common()

ProjectOption = Annotated[
    str | None,
    Parameter(
        name=["--project", "-p"],
        env_var="EASYML_PROJECT",
        help="Name or id of the project; not needed where you can see only one.",
    ),
]
Labels = Annotated[tuple[str, ...], Parameter(name="--label", help="KEY=VALUE; can be repeated.")]
Consent = Annotated[bool, Parameter(name=["--yes", "-y"], help="Do not ask.")]
DryRun = Annotated[bool, Parameter(name="--dry-run", help="Change nothing; say what would be deleted.")]


@contextlib.contextmanager
def connected(common: Common) -> Iterator[EasyML]:
    """A client for the block."""
    from easyml_client.client import EasyML

    with EasyML(common.server) as client:
        yield client


def chosen_project(client: EasyML, project: str | None) -> str:
    """The project named, else the only one there is."""
    if project:
        return project
    visible = [each for each, _ in zip(client.projects.list(page_size=2), range(2), strict=False)]
    if len(visible) == 1:
        return visible[0].id
    if not visible:
        raise UsageError("There is no project yet; make one with `easyml projects create NAME`.")
    raise UsageError("Say which project: --project NAME, or EASYML_PROJECT (`easyml projects list` shows them).")


def project_for(client: EasyML, reference: str, project: str | None) -> str | None:
    """The project that a name belongs to; an id needs none."""
    from easyml_client.values import is_id

    return None if is_id(reference) else chosen_project(client, project)


def experiment_named(client: EasyML, reference: str, project: str | None) -> str:
    """The id of an experiment: an id as it is, else the newest of that name, or of all for "latest"."""
    from easyml_client.values import is_id

    if is_id(reference):
        return reference
    for each in client.experiments.list(chosen_project(client, project), page_size=1 if reference == LATEST else 0):
        if reference in (LATEST, each.name):
            return each.id
    raise UsageError(f"There is no experiment called {reference!r}; `easyml experiments list` shows them.")


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE texts."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} takes KEY=VALUE; {text!r} is not of that form.")
        found[key] = value
    return found


def labels_of(texts: Sequence[str]) -> dict[str, str] | None:
    """Labels; None if there are none, which leaves them as they are."""
    return pairs("--label", texts) or None


def literal(text: str) -> Any:
    """A JSON value; what is none is a text."""
    try:
        return json_.loads(text)
    except ValueError:
        return text


def settings(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts with JSON values: n_estimators=200, max_depth=null, criterion=gini."""
    return {key: literal(value) for key, value in pairs(option, texts).items()}


def delete(what: str, remove: Callable[[bool], DeletedResources], *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Deletes after showing what goes; `remove` takes validate_only."""
    from easyml_client.cli.output import print_done

    if dry_run:
        planned = remove(True)
        print_done(planned, f"Would delete {what}: {counts(planned)}.", as_json=as_json)
        return
    if not yes:
        _ask(what, remove(True))
    deleted = remove(False)
    print_done(deleted, f"Deleted {what}: {counts(deleted)}.", as_json=as_json)


def _ask(what: str, planned: DeletedResources) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"This deletes {what} ({counts(planned)}). Add --yes to do it without being asked.")
    print(clean(f"This deletes {what}: {counts(planned)}. Go on? [y/N] "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        complain("Nothing was deleted.")
        raise KeyboardInterrupt("Stopped.")


def counts(deleted: DeletedResources) -> str:
    """The counts that are not 0, in words."""
    from easyml_client.cli.output import size

    named = {
        "project": deleted.projects,
        "dataset": deleted.datasets,
        "experiment": deleted.experiments,
        "model": deleted.models,
        "model version": deleted.model_versions,
    }
    found = [f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in named.items() if count]
    return ", ".join([*found, f"{size(deleted.bytes_freed)} of files"])


@contextlib.contextmanager
def progress_bar(title: str, *, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr while the block runs, if a person looks there; told by (done, total)."""
    if not shown or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.text import Text

    title_column = TextColumn("{task.description}", markup=False)
    columns = (title_column, BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(Text(clean(title)).plain, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell
