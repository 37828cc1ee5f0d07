"""`easyml models`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.app import group
from easyml_client.cli.common import (
    EVERYWHERE,
    Common,
    Consent,
    DryRun,
    Labels,
    ProjectOption,
    chosen_project,
    connected,
    delete,
    labels_of,
    progress_bar,
    project_for,
)
from easyml_client.cli.datasets import refuse_to_replace
from easyml_client.cli.experiments import print_metrics
from easyml_client.cli.output import UsageError, print_done, print_list, print_one, print_table, size
from easyml_client.cli.results import print_results
from easyml_client.cli.selection import select
from easyml_client.resources.projects import DeletedResources

if TYPE_CHECKING:
    from easyml_client.client import EasyML
    from easyml_client.resources.models import ModelVersion

app = group("models", "Models, their versions, aliases and files. A version is NAME, NAME:3, NAME@alias or an id.")
alias = group("alias", "Movable names of versions, such as production.")
app.command(alias)
app.command(select)


def _primary(version: Any) -> str:
    value = version.metric(version.primary_metric) if version.primary_metric else None
    return "" if value is None else f"{version.primary_metric} {value:.4g}"


MODELS = {
    "NAME": lambda model: model.name,
    "LATEST": lambda model: model.latest_version,
    "ALIASES": lambda model: ", ".join(f"{each.alias} → {each.version}" for each in model.aliases),
    "CHANGED": lambda model: model.update_time,
    "ID": lambda model: model.id,
}
VERSIONS = {
    "VERSION": lambda version: f"{version.model_name}:{version.version}",
    "ALGORITHM": lambda version: version.algorithm,
    "METRIC": _primary,
    "ALIASES": lambda version: version.aliases,
    "CREATED": lambda version: version.create_time,
    "ID": lambda version: version.id,
}


@app.command(name="list")
def list_(*, prefix: str = "", project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """List the models of a project, newest first.

    Example: `easyml models list --project churn`

    :param prefix: Only models whose name starts with this.
    """
    with connected(common) as client:
        found = client.models.list(chosen_project(client, project), name_prefix=prefix)
        print_list(found, MODELS, as_json=common.json, empty="No models yet: `easyml train ALGORITHM --dataset NAME`.")


@app.command
def versions(
    model: str = "",
    /,
    *,
    label: Labels = (),
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """List the versions of a model, or of all models, newest first.

    Example: `easyml models versions churn`

    :param model: Name of the model; all models if left out.
    """
    with connected(common) as client:
        found = client.models.versions(chosen_project(client, project), model, labels=labels_of(label), view="full")
        print_list(
            found, VERSIONS, as_json=common.json, empty="No versions yet: `easyml train ALGORITHM --dataset NAME`."
        )


@app.command
def show(model: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Show a version: metrics, how each class or the residuals came out, inputs, files.

    With --json also ROC and precision-recall curves, calibration, and true and predicted values.

    Example: `easyml models show churn@production`

    :param model: NAME (the newest), NAME:3, NAME@alias or the id of a version.
    """
    with connected(common) as client:
        _print(client.models.get(model, project=project_for(client, model, project)), as_json=common.json)


@app.command
def update(
    model: str,
    /,
    *,
    description: str | None = None,
    label: Labels = (),
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Change description or labels of a version; labels replace all that were there.

    Example: `easyml models update churn:3 --label reviewed=yes`

    :param model: NAME, NAME:3, NAME@alias or an id.
    :param description: The new description.
    """
    if description is None and not label:
        raise UsageError("There is nothing to change; give --description or --label.")
    with connected(common) as client:
        changed = client.models.update(
            model, project=project_for(client, model, project), description=description, labels=labels_of(label)
        )
        _print(changed, as_json=common.json)


@app.command(name="delete")
def delete_(
    model: str,
    /,
    *,
    all_versions: Annotated[bool, Parameter(name="--all")] = False,
    force: bool = False,
    dry_run: DryRun = False,
    yes: Consent = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Delete a version and its files, or a model with all its versions.

    Example: `easyml models delete churn:2 --dry-run`

    :param model: NAME:3, NAME@alias or an id; NAME with --all, or where it has one version only.
    :param all_versions: Delete the model NAME with every version.
    :param force: Delete it although aliases point to it; they go too.
    """
    with connected(common) as client:
        found = _versions_to_delete(client, model, project, all_versions=all_versions)
        what = f"model {model} with {len(found)} versions" if all_versions else f"model version {_named(found[0])}"

        def remove(validate_only: bool) -> DeletedResources:
            # All are asked first: a version that an alias holds back must not leave half a model behind.
            planned = [client.models.delete(each, force=force, validate_only=True) for each in found]
            if validate_only:
                return DeletedResources.total(planned)
            return DeletedResources.total([client.models.delete(each, force=force) for each in found])

        delete(what, remove, dry_run=dry_run, yes=yes, as_json=common.json)


def _versions_to_delete(
    client: EasyML, model: str, project: str | None, *, all_versions: bool
) -> Sequence[ModelVersion]:
    """The version that is named, or all of a model; a name alone must not take the newest of several by surprise."""
    of_project = project_for(client, model, project)
    if of_project is None:
        return [client.models.get(model, view="basic")]
    versions = list(client.models.versions(of_project, model))
    if all_versions and not versions:
        raise UsageError(f"--all takes the name of a model, and there is none called {model!r} (`easyml models list`).")
    if len(versions) > 1 and not all_versions:
        raise UsageError(
            f"{model} has {len(versions)} versions; name one, such as {_named(versions[0])}, or delete all with --all."
        )
    return versions or [client.models.get(model, project=of_project, view="basic")]


def _named(version: ModelVersion) -> str:
    return f"{version.model_name}:{version.version}"


@app.command
def export(
    model: str,
    path: Path | None = None,
    /,
    *,
    format: str | None = None,
    force: bool = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Save a version in a file.

    Example: `easyml models export churn@production churn.onnx`

    :param model: NAME, NAME:3, NAME@alias or an id.
    :param path: File or folder; the current folder if left out.
    :param format: onnx, skops or mlflow (a zip file); told by the file's ending if left out, onnx where it has none.
    :param force: Replace a file that is there.
    """
    refuse_to_replace(path, force=force)
    with connected(common) as client, progress_bar(model, shown=not common.json) as progress:
        saved = client.models.export(
            model, path, project=project_for(client, model, project), format=format, progress=progress
        )
    length = saved.stat().st_size
    print_done({"path": str(saved), "size_bytes": length}, f"Saved {saved} ({size(length)}).", as_json=common.json)


@app.command
def dvc(
    model: str,
    folder: Path = Path(),
    /,
    *,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Write what plain `dvc pull` needs to bring a version: its .dvc file, and the remote in .dvc/config.

    Example: `easyml models dvc churn@production ~/work/churn`

    :param model: NAME, NAME:3, NAME@alias or an id.
    :param folder: Folder you work in; the current one if left out.
    """
    with connected(common) as client:
        path = client.models.dvc(model, folder, project=project_for(client, model, project))
        print_done({"path": str(path)}, f"Wrote {path}. Bring the files with: dvc pull {path}", as_json=common.json)


@alias.command(name="set")
def set_alias(model: str, name: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Point an alias to a version, at once away from where it was.

    Example: `easyml models alias set churn:3 production`

    :param model: NAME, NAME:3, NAME@alias or an id.
    :param name: The alias: lower-case letters, digits, - and _.
    """
    with connected(common) as client:
        version = client.models.set_alias(model, name, project=project_for(client, model, project))
        sentence = f"{version.model_name}@{name} is version {version.version} now."
        print_done(version, sentence, as_json=common.json)


@alias.command(name="delete")
def delete_alias(model: str, name: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Take an alias away; its history stays.

    Example: `easyml models alias delete churn production`

    :param model: Name of the model.
    :param name: The alias.
    """
    with connected(common) as client:
        client.models.delete_alias(chosen_project(client, project), model, name)
        print_done({"deleted": f"{model}@{name}"}, f"Deleted the alias {model}@{name}.", as_json=common.json)


@alias.command
def history(
    model: str,
    name: str = "",
    /,
    *,
    at: Annotated[dt.datetime | None, Parameter(help="Only what was true then, such as 2026-05-04T12:00.")] = None,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Say which version an alias pointed to, and when; newest first.

    Example: `easyml models alias history churn production --at 2026-05-04`

    :param model: Name of the model.
    :param name: The alias; all if left out.
    """
    columns = {
        "ALIAS": lambda entry: entry.alias,
        "VERSION": lambda entry: entry.version,
        "FROM": lambda entry: entry.start_time,
        "UNTIL": lambda entry: entry.end_time or "now",
        "SET BY": lambda entry: entry.set_by,
    }
    moment = at.astimezone(dt.UTC) if at else None
    with connected(common) as client:
        found = client.models.alias_history(chosen_project(client, project), model, alias=name, at_time=moment)
        print_list(found, columns, as_json=common.json, empty="That alias was never set.")


def _print(version: Any, *, as_json: bool) -> None:
    parity = version.parity
    lines = {
        "Version": f"{version.model_name}:{version.version}",
        "Id": version.id,
        "Description": version.description,
        "Labels": version.labels,
        "Aliases": version.aliases,
        "Task": version.task,
        "Algorithm": version.algorithm,
        "Settings": version.hyperparameters,
        "Judged by": version.primary_metric,
        "Predicts": version.signature and version.signature.output,
        "Classes": version.signature and version.signature.classes,
        "Files": ", ".join(f"{file.format} ({size(file.size_bytes)})" for file in version.artifacts),
        "ONNX": parity
        and (
            f"proved on {parity.rows} rows, largest difference {parity.max_difference:.2g}"
            if parity.proved
            else parity.cause
        ),
        "A row takes": "" if version.inference_time_ms is None else f"{version.inference_time_ms:.3g} ms",
        "Experiment": version.experiment_id,
        "Created": version.create_time,
    }
    print_one(version, lines, as_json=as_json)
    if as_json:
        return
    print_metrics(version.metrics)
    if version.results:
        print_results(version.results)
    if version.signature:
        print()
        rows = [[column.name, column.storage_type, column.kind, column.nullable] for column in version.signature.inputs]
        print_table(["INPUT", "TYPE", "KIND", "MAY BE EMPTY"], rows)
