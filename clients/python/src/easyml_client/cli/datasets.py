"""`easyml datasets`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

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
    pairs,
    progress_bar,
    project_for,
)
from easyml_client.cli.output import (
    UsageError,
    as_stored,
    complain,
    print_done,
    print_json,
    print_list,
    print_one,
    print_table,
    size,
)
from easyml_client.cli.statistics import print_statistics, share

_COUNTED = 10_000

app = group("datasets", "Upload, look at and download tables.")

COLUMNS = {
    "NAME": lambda dataset: dataset.name,
    "ROWS": lambda dataset: dataset.row_count,
    "SIZE": lambda dataset: size(dataset.current_version.size_bytes) if dataset.current_version else "",
    "CREATED": lambda dataset: dataset.create_time,
    "ID": lambda dataset: dataset.id,
}


@app.command
def upload(
    file: Path,
    /,
    *,
    name: str = "",
    description: str = "",
    label: Labels = (),
    format: str | None = None,
    delimiter: str = "",
    encoding: str = "",
    sheet: str = "",
    resume: Annotated[str | None, Parameter(name="--resume")] = None,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Upload a table as a new dataset.

    Example: `easyml datasets upload customers.csv --name customers --project churn`

    :param file: A csv, xlsx, json or parquet file.
    :param name: Name of the dataset; the file's if left out.
    :param description: What it holds.
    :param format: csv, xlsx, json or parquet, where the file's name does not say it.
    :param delimiter: Separator of a csv file; found out if left out.
    :param encoding: Encoding of a csv or json file, such as latin-1; found out if left out.
    :param sheet: Sheet of a workbook; the first one if left out.
    :param resume: Id of an upload that was interrupted; goes on where it broke.
    """
    upload_id = resume or str(uuid.uuid4())
    with connected(common) as client, progress_bar(file.name, shown=not common.json) as progress:
        try:
            dataset = client.datasets.upload(
                chosen_project(client, project),
                file,
                name=name,
                description=description,
                labels=labels_of(label),
                format=format,
                delimiter=delimiter,
                encoding=encoding,
                sheet=sheet,
                progress=progress,
                upload_id=upload_id,
            )
        except KeyboardInterrupt as stopped:
            raise KeyboardInterrupt(_come_back(file, upload_id)) from stopped
        except Exception as error:
            if _interrupted(error):
                complain(_come_back(file, upload_id))
            raise
    rows, columns = dataset.row_count, len(dataset.columns)
    print_done(dataset, f"Uploaded {dataset.name}: {rows} rows, {columns} columns ({dataset.id}).", as_json=common.json)
    if not common.json:
        _print_warnings(dataset)


def _come_back(file: Path, upload_id: str) -> str:
    return (
        "The upload is not complete; what was sent is kept for a while. Go on, with the same options, by: "
        f"easyml datasets upload {file} --resume {upload_id}"
    )


def _interrupted(error: Exception) -> bool:
    from easyml_client.errors import DeadlineExceeded, Unavailable

    return isinstance(error, (Unavailable, DeadlineExceeded)) and error.reason != "NO_TARGET"


@app.command(name="list")
def list_(*, prefix: str = "", label: Labels = (), project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """List the datasets of a project, newest first.

    Example: `easyml datasets list --project churn`

    :param prefix: Only datasets whose name starts with this.
    """
    with connected(common) as client:
        found = client.datasets.list(chosen_project(client, project), name_prefix=prefix, labels=labels_of(label))
        print_list(found, COLUMNS, as_json=common.json, empty="No datasets yet: `easyml datasets upload FILE`.")


@app.command
def show(dataset: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Show a dataset, its columns, and what they hold.

    Example: `easyml datasets show customers --project churn`

    :param dataset: Name or id.
    """
    with connected(common) as client:
        _print(client.datasets.get(dataset, project=project_for(client, dataset, project)), as_json=common.json)


@app.command
def preview(
    dataset: str,
    /,
    *,
    rows: Annotated[int, Parameter(name=["--rows", "-n"])] = 0,
    column: tuple[str, ...] = (),
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Show the first rows of a dataset.

    Example: `easyml datasets preview customers --rows 5`

    :param dataset: Name or id.
    :param rows: How many; 20 if left out.
    :param column: Only these columns, in this order; can be repeated.
    """
    with connected(common) as client:
        found = client.datasets.preview(
            dataset, project=project_for(client, dataset, project), rows=rows, columns=column
        )
    if common.json:
        print_json(found)
        return
    columns = found.columns
    print_table(list(columns), zip(*columns.values(), strict=True), said=as_stored)
    if found.truncated:
        complain("Rows were left out to keep the answer small.")


@app.command
def download(
    dataset: str,
    path: Path | None = None,
    /,
    *,
    format: str | None = None,
    force: bool = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Save a dataset in a file.

    Example: `easyml datasets download customers customers.parquet --format parquet`

    :param dataset: Name or id.
    :param path: File or folder; the current folder if left out.
    :param format: csv, xlsx, json or parquet; the file as it was uploaded if left out.
    :param force: Replace a file that is there.
    """
    refuse_to_replace(path, force=force)
    with connected(common) as client, progress_bar(dataset, shown=not common.json) as progress:
        saved = client.datasets.download(
            dataset, path, project=project_for(client, dataset, project), format=format, progress=progress
        )
    print_done(
        {"path": str(saved), "size_bytes": saved.stat().st_size},
        f"Saved {saved} ({size(saved.stat().st_size)}).",
        as_json=common.json,
    )


@app.command
def dvc(
    dataset: str,
    folder: Path = Path(),
    /,
    *,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Write what plain `dvc pull` needs to bring a dataset: its .dvc file, and the remote in .dvc/config.

    Example: `easyml datasets dvc customers ~/work/churn`

    :param dataset: Name or id.
    :param folder: Folder you work in; the current one if left out.
    """
    with connected(common) as client:
        path = client.datasets.dvc(dataset, folder, project=project_for(client, dataset, project))
        print_done({"path": str(path)}, f"Wrote {path}. Bring the files with: dvc pull {path}", as_json=common.json)


def refuse_to_replace(path: Path | None, *, force: bool) -> None:
    """A file that is there stays, unless it was said otherwise."""
    if path is not None and path.is_file() and not force:
        raise UsageError(f"{path} is there already; choose another name, or add --force to replace it.")


@app.command
def update(
    dataset: str,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    label: Labels = (),
    role: tuple[str, ...] = (),
    kind: tuple[str, ...] = (),
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Change a dataset: name, description, labels, and what its columns are.

    Example: `easyml datasets update customers --role customer_id=identifier --kind zip=categorical`

    :param dataset: Name or id.
    :param name: The new name.
    :param description: The new description.
    :param role: COLUMN=ROLE: feature, target, weight, identifier, group, time or ignored; can be repeated.
    :param kind: COLUMN=KIND: numeric, categorical, ordinal, boolean, datetime or text; can be repeated.
    """
    if name is None and description is None and not (label or role or kind):
        raise UsageError("There is nothing to change; give --name, --description, --label, --role or --kind.")
    with connected(common) as client:
        changed = client.datasets.update(
            dataset,
            project=project_for(client, dataset, project),
            name=name,
            description=description,
            labels=labels_of(label),
            roles=pairs("--role", role),
            kinds=pairs("--kind", kind),
        )
        _print(changed, as_json=common.json)


@app.command(name="delete")
def delete_(
    dataset: str,
    /,
    *,
    force: bool = False,
    dry_run: DryRun = False,
    yes: Consent = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Delete a dataset and its files.

    Example: `easyml datasets delete customers --dry-run`

    :param dataset: Name or id.
    :param force: Delete it although experiments refer to it.
    """
    with connected(common) as client:
        found = client.datasets.get(dataset, project=project_for(client, dataset, project), view="basic")
        delete(
            f"dataset {found.name}",
            lambda validate_only: client.datasets.delete(found, force=force, validate_only=validate_only),
            dry_run=dry_run,
            yes=yes,
            as_json=common.json,
        )


def _print(dataset: Any, *, as_json: bool) -> None:
    version = dataset.current_version
    lines = {
        "Name": dataset.name,
        "Id": dataset.id,
        "Description": dataset.description,
        "Labels": dataset.labels,
        "Version": version and version.version,
        "File": version and f"{version.filename} ({version.format}, {size(version.size_bytes)})",
        "SHA-256": version and version.sha256,
        "Rows": dataset.row_count,
        "Created": dataset.create_time,
    }
    print_one(dataset, lines, as_json=as_json)
    if as_json:
        return
    print()
    print_table(
        ["COLUMN", "TYPE", "KIND", "ROLE", "FULL", "MISSING", "DIFFERENT"],
        [
            [c.name, c.storage_type, c.kind, c.role, _full(c, dataset.row_count), c.null_count, _different(c)]
            for c in dataset.columns
        ],
    )
    if dataset.statistics:
        print_statistics(dataset.statistics, dataset.row_count)
    _print_warnings(dataset)


def _full(column: Any, row_count: int) -> str:
    return share(row_count - column.null_count, row_count)


def _different(column: Any) -> Any:
    """The server counts that far; one more says that there are more."""
    return f"> {_COUNTED}" if column.distinct_count > _COUNTED else column.distinct_count


def _print_warnings(dataset: Any) -> None:
    for warning in dataset.current_version.warnings if dataset.current_version else ():
        complain(f"Note: {warning.message}")
