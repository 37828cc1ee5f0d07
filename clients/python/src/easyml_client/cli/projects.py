"""`easyml projects`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.app import group
from easyml_client.cli.common import (
    EVERYWHERE,
    Common,
    Consent,
    DryRun,
    Labels,
    connected,
    delete,
    labels_of,
    literal,
    pairs,
)
from easyml_client.cli.output import UsageError, print_done, print_list, print_one

app = group("projects", "Projects, their members and configuration.")
config = group("config", "What trainings and storage of a project start from.")
members = group("members", "Who may do what in a project.")
app.command(config)
app.command(members)

COLUMNS = {
    "NAME": lambda project: project.name,
    "ROLE": lambda project: project.role,
    "CREATED": lambda project: project.create_time,
    "ID": lambda project: project.id,
}


@app.command(name="list")
def list_(*, prefix: str = "", label: Labels = (), common: Common = EVERYWHERE) -> None:
    """List the projects you can see, newest first.

    Example: `easyml projects list --label team=risk`

    :param prefix: Only projects whose name starts with this.
    """
    with connected(common) as client:
        found = client.projects.list(name_prefix=prefix, labels=labels_of(label))
        print_list(found, COLUMNS, as_json=common.json, empty="No projects yet: `easyml projects create NAME`.")


@app.command
def create(name: str, /, *, description: str = "", label: Labels = (), common: Common = EVERYWHERE) -> None:
    """Make a project that you own.

    Example: `easyml projects create churn --description "Who will leave?"`

    :param name: Name, unique among your projects.
    :param description: What it is for.
    """
    with connected(common) as client:
        project = client.projects.create(name, description=description, labels=labels_of(label))
        print_done(project, f"Created project {project.name} ({project.id}).", as_json=common.json)


@app.command
def show(project: str, /, *, common: Common = EVERYWHERE) -> None:
    """Show one project.

    Example: `easyml projects show churn`

    :param project: Name or id.
    """
    with connected(common) as client:
        _print(client.projects.get(project), as_json=common.json)


@app.command
def update(
    project: str,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    label: Labels = (),
    common: Common = EVERYWHERE,
) -> None:
    """Change name, description or labels; labels replace all that were there.

    Example: `easyml projects update churn --name churn-2026`

    :param project: Name or id.
    :param name: The new name.
    :param description: The new description.
    """
    if name is None and description is None and not label:
        raise UsageError("There is nothing to change; give --name, --description or --label.")
    with connected(common) as client:
        changed = client.projects.update(project, name=name, description=description, labels=labels_of(label))
        _print(changed, as_json=common.json)


@app.command(name="delete")
def delete_(
    project: str,
    /,
    *,
    force: bool = False,
    dry_run: DryRun = False,
    yes: Consent = False,
    common: Common = EVERYWHERE,
) -> None:
    """Delete a project.

    Example: `easyml projects delete churn --force --dry-run`

    :param project: Name or id.
    :param force: Delete what is in it too.
    """
    with connected(common) as client:
        found = client.projects.get(project)
        delete(
            f"project {found.name}",
            lambda validate_only: client.projects.delete(found, force=force, validate_only=validate_only),
            dry_run=dry_run,
            yes=yes,
            as_json=common.json,
        )


@config.command(name="show")
def show_config(project: str, /, *, common: Common = EVERYWHERE) -> None:
    """Show the configuration of a project.

    Example: `easyml projects config show churn`

    :param project: Name or id.
    """
    with connected(common) as client:
        _print_config(client.projects.get_config(project), as_json=common.json)


@config.command(name="set")
def set_config(
    project: str,
    /,
    *,
    default: Annotated[tuple[str, ...], Parameter(help="ALGORITHM.SETTING=VALUE; can be repeated.")] = (),
    unset: Annotated[tuple[str, ...], Parameter(help="ALGORITHM.SETTING or ALGORITHM to forget.")] = (),
    mlflow_experiment: str | None = None,
    visibility: str | None = None,
    max_bytes: int | None = None,
    keep_original_files: Annotated[bool | None, Parameter(negative="--drop-original-files")] = None,
    common: Common = EVERYWHERE,
) -> None:
    """Change the configuration of a project; what is not named stays.

    Example: `easyml projects config set churn --default random_forest.n_estimators=300`

    :param project: Name or id.
    :param mlflow_experiment: MLflow experiment that runs are recorded under.
    :param visibility: "private" (members) or "internal" (everybody who is signed in may read and predict).
    :param max_bytes: Bytes the project may store; 0 for the server's limit.
    :param keep_original_files: Whether uploaded files are kept as they came.
    """
    with connected(common) as client:
        before = client.projects.get_config(project)
        merged = _merged(before.default_hyperparameters, default, unset) if default or unset else None
        changed = client.projects.update_config(
            project,
            default_hyperparameters=merged,
            mlflow_experiment=mlflow_experiment,
            visibility=visibility,
            max_bytes=max_bytes,
            keep_original_files=keep_original_files,
            etag=before.etag,
        )
        _print_config(changed, as_json=common.json)


def _merged(before: Any, default: Sequence[str], unset: Sequence[str]) -> dict[str, dict[str, Any]]:
    merged = {algorithm: dict(settings) for algorithm, settings in before.items()}
    for path in unset:
        algorithm, _, setting = path.partition(".")
        if setting:
            merged.get(algorithm, {}).pop(setting, None)
        else:
            merged.pop(algorithm, None)
    for path, value in pairs("--default", default).items():
        algorithm, dot, setting = path.partition(".")
        if not dot:
            raise UsageError(f"--default takes ALGORITHM.SETTING=VALUE; {path!r} names no setting.")
        merged.setdefault(algorithm, {})[setting] = literal(value)
    return merged


@members.command(name="list")
def list_members(project: str, /, *, common: Common = EVERYWHERE) -> None:
    """List the members of a project.

    Example: `easyml projects members list churn`

    :param project: Name or id.
    """
    columns = {
        "EMAIL": lambda member: member.email,
        "NAME": lambda member: member.display_name,
        "ROLE": lambda member: member.role,
        "SINCE": lambda member: member.create_time,
        "USER ID": lambda member: member.user_id,
    }
    with connected(common) as client:
        print_list(client.projects.list_members(project), columns, as_json=common.json, empty="No members.")


@members.command(name="set")
def set_member(project: str, email: str, role: str, /, *, common: Common = EVERYWHERE) -> None:
    """Add a member, or change a member's role.

    Example: `easyml projects members set churn ada@example.org editor`

    :param project: Name or id.
    :param email: E-mail address of an account on this server.
    :param role: viewer, editor or owner.
    """
    with connected(common) as client:
        member = client.projects.set_member(project, email, role)
        print_done(member, f"{member.email} is {member.role} now.", as_json=common.json)


@members.command(name="remove")
def remove_member(project: str, member: str, /, *, common: Common = EVERYWHERE) -> None:
    """Take a member out of a project.

    Example: `easyml projects members remove churn ada@example.org`

    :param project: Name or id.
    :param member: E-mail address or user id.
    """
    with connected(common) as client:
        found = next((m for m in client.projects.list_members(project) if member in (m.email, m.user_id)), None)
        client.projects.remove_member(project, found.user_id if found else member)
        print_done({"removed": member}, f"{member} is no member any more.", as_json=common.json)


def _print(project: Any, *, as_json: bool) -> None:
    lines = {
        "Name": project.name,
        "Id": project.id,
        "Description": project.description,
        "Labels": project.labels,
        "Your role": project.role,
        "Created": project.create_time,
        "Changed": project.update_time,
    }
    print_one(project, lines, as_json=as_json)


def _print_config(found: Any, *, as_json: bool) -> None:
    lines = {
        "Visibility": found.visibility,
        "MLflow experiment": found.mlflow_experiment,
        "Largest storage": found.storage and (found.storage.max_bytes or "the server's limit"),
        "Original files kept": found.storage and found.storage.keep_original_files,
        **{f"Defaults of {name}": values for name, values in found.default_hyperparameters.items()},
    }
    print_one(found, lines, as_json=as_json)
