"""Datasets: in, described, and out again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyml.v1 import dataset_pb2, project_pb2
from easyml.v1 import dataset_service_pb2 as pb
from easyml_client.errors import InvalidInput, LimitReached, NotFound, Unavailable, WrongState
from easyml_client.plans.dvc import write_pointer
from easyml_client.plans.paging import pages
from easyml_client.plans.references import DatasetRef, ProjectRef, dataset_id, project_id
from easyml_client.plans.transfers import Parcel, Progress, arrive, as_frame, frame_file, told_format
from easyml_client.plans.waiting import Patience
from easyml_client.resources.datasets import Dataset, Preview, Upload
from easyml_client.resources.dvc import DvcPointer
from easyml_client.resources.projects import DeletedResources
from easyml_client.steps import Plan, Stream, call, send, work
from easyml_client.values import enum_number

_ENDINGS = {".csv": "csv", ".xlsx": "xlsx", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def upload(
    project: ProjectRef,
    source: str | os.PathLike[str] | Any,
    *,
    name: str = "",
    description: str = "",
    labels: Mapping[str, str] | None = None,
    format: str | None = None,
    delimiter: str = "",
    encoding: str = "",
    sheet: str = "",
    progress: Progress | None = None,
    upload_id: str | None = None,
) -> Plan[Dataset]:
    """Store a file (csv, xlsx, json, parquet) or a pandas DataFrame as a new dataset.

    A broken connection is taken up again where it broke, for about a minute. Pass an `upload_id` of your own (a UUID)
    to go on later, in another process: the same id and file continue at the bytes that are safe.
    """
    with contextlib.ExitStack() as files:
        path = yield from work(lambda: _path(source, name, files))
        parcel = yield from work(lambda: Parcel.of(path))
        header = pb.UploadHeader(
            upload_id=upload_id or str(uuid.uuid4()),
            project_id=(yield from project_id(project)),
            name=name,
            description=description,
            labels=labels or {},
            filename=parcel.filename,
            format=enum_number("format", dataset_pb2.FileFormat, format),
            size_bytes=parcel.size_bytes,
            sha256=parcel.sha256,
            read_options=pb.ReadOptions(delimiter=delimiter, encoding=encoding, sheet=sheet),
        )
        sending = _Sending(parcel, header, progress)
        return Dataset.of((yield from _sent(sending, offset=None if upload_id else 0)).dataset)


@dataclass
class _Sending:
    parcel: Parcel
    header: pb.UploadHeader
    progress: Progress | None

    def messages(self, offset: int) -> Iterator[pb.UploadDatasetRequest]:
        header = pb.UploadHeader()
        header.CopyFrom(self.header)
        header.offset = offset
        yield pb.UploadDatasetRequest(header=header)
        for chunk in self.parcel.chunks(offset, self.progress):
            yield pb.UploadDatasetRequest(chunk=chunk)


def _sent(sending: _Sending, offset: int | None) -> Plan[pb.UploadDatasetResponse]:
    """Sends until it is stored; an offset of None is asked for first."""
    patience, safe = Patience(), 0
    while True:
        try:
            if offset is None:
                offset = yield from _received(sending.header.upload_id)
            if offset > safe:
                patience.restored()
                safe = offset
            start = offset
            return (
                yield from send(
                    lambda start=start: sending.messages(start),  # type: ignore[misc]  # a lambda's default
                    pb.UploadDatasetRequest,
                    pb.UploadDatasetResponse,
                )
            )
        except WrongState as error:
            if error.reason != "OFFSET_MISMATCH":
                raise
            yield from patience.wait(Unavailable(error.message, retry_after=0))
            offset = int(error.metadata.get("received_bytes", 0))
        except (Unavailable, LimitReached) as error:
            yield from patience.wait(error)
            offset = None


def _received(upload_id: str) -> Plan[int]:
    """Bytes that are safe; none where the server does not know the upload (yet, or any more)."""
    try:
        response = yield from call(pb.GetUploadRequest(upload_id=upload_id), pb.GetUploadResponse)
    except NotFound:
        return 0
    return response.upload.received_bytes


def _path(source: Any, name: str, files: contextlib.ExitStack) -> Path:
    if isinstance(source, (str, os.PathLike)):
        return Path(source)
    if not hasattr(source, "to_parquet"):
        message = f"A {type(source).__name__} cannot be uploaded; pass a path or a pandas DataFrame."
        raise InvalidInput.at("source", message)
    if not name:
        raise InvalidInput.at("name", "A DataFrame has no name of its own; pass name=.")
    return files.enter_context(frame_file(source, name))


def get_upload(upload_id: str) -> Plan[Upload]:
    """How far an upload is."""
    return Upload.of((yield from call(pb.GetUploadRequest(upload_id=upload_id), pb.GetUploadResponse)).upload)


def download(
    dataset: DatasetRef,
    path: str | os.PathLike[str] | None = None,
    *,
    project: ProjectRef | None = None,
    format: str | None = None,
    progress: Progress | None = None,
) -> Plan[Path]:
    """Save the dataset as csv, xlsx, json or parquet.

    Without a format the path's ending says it, unless the file was uploaded in that one; the uploaded file, byte by
    byte, where neither does.

    The file has its name only when it is whole and its SHA-256 is right. A path that is a folder gets the server's name
    for the file; so does the current folder without a path.
    """
    wanted = yield from dataset_id(dataset, project)
    told = told_format(path, _ENDINGS)
    if format is None and told is not None:
        stored = (yield from get(wanted, view="basic")).current_version
        format = None if stored is not None and stored.format == told else told
    request = pb.DownloadDatasetRequest(dataset_id=wanted, format=enum_number("format", dataset_pb2.FileFormat, format))
    return (yield from arrive(request, pb.DownloadDatasetResponse, path, progress))


def to_frame(dataset: DatasetRef, *, project: ProjectRef | None = None) -> Plan[Any]:
    """The whole dataset as a pandas DataFrame; needs pandas."""
    kind = "parquet" if importlib.util.find_spec("pyarrow") else "csv"
    folder = yield from work(lambda: tempfile.mkdtemp(prefix="easyml-"))
    path = yield from download(dataset, Path(folder) / f"table.{kind}", project=project, format=kind)
    return (yield from work(lambda: as_frame(path)))


def get(dataset: DatasetRef, *, project: ProjectRef | None = None, view: str | None = None) -> Plan[Dataset]:
    """One dataset with the schema of its current version and what its columns hold; a name needs the project.

    The view "basic" leaves the statistics out, and is answered while a document server of the platform is away.
    """
    request = pb.GetDatasetRequest(
        dataset_id=(yield from dataset_id(dataset, project)),
        view=enum_number("view", project_pb2.ResourceView, view),
    )
    return Dataset.of((yield from call(request, pb.GetDatasetResponse)).dataset)


def list_(
    project: ProjectRef,
    *,
    name_prefix: str = "",
    labels: Mapping[str, str] | None = None,
    order_by: str | None = None,
    view: str | None = None,
    page_size: int = 0,
) -> Stream[Dataset]:
    """The datasets of a project, newest first; without columns unless the view is "full"."""
    request = pb.ListDatasetsRequest(
        project_id=(yield from project_id(project)),
        name_prefix=name_prefix,
        labels=labels or {},
        order_by=enum_number("order_by", pb.DatasetOrder, order_by),
        view=enum_number("view", project_pb2.ResourceView, view),
        page_size=page_size,
    )
    yield from pages(request, pb.ListDatasetsResponse, lambda page: map(Dataset.of, page.datasets))


def update(
    dataset: DatasetRef,
    *,
    project: ProjectRef | None = None,
    name: str | None = None,
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    etag: str = "",
) -> Plan[Dataset]:
    """Change what is not None; `roles` and `kinds` by column: {"id": "identifier"}, {"zip": "categorical"}."""
    columns = {**(roles or {}), **(kinds or {})}
    request = pb.UpdateDatasetRequest(
        dataset_id=(yield from dataset_id(dataset, project)),
        name=name or "",
        description=description or "",
        labels=labels or {},
        columns=[_setting(column, roles or {}, kinds or {}) for column in columns],
        etag=etag,
    )
    given = {"name": name, "description": description, "labels": labels, "columns": columns or None}
    request.update_mask.paths.extend(path for path, value in given.items() if value is not None)
    return Dataset.of((yield from call(request, pb.UpdateDatasetResponse)).dataset)


def _setting(column: str, roles: Mapping[str, str], kinds: Mapping[str, str]) -> pb.ColumnSetting:
    return pb.ColumnSetting(
        name=column,
        role=enum_number("role", dataset_pb2.ColumnRole, roles.get(column)),
        kind=enum_number("kind", dataset_pb2.ColumnKind, kinds.get(column)),
    )


def delete(
    dataset: DatasetRef,
    *,
    project: ProjectRef | None = None,
    force: bool = False,
    validate_only: bool = False,
    etag: str = "",
) -> Plan[DeletedResources]:
    """Delete a dataset and its files; with force although experiments refer to it.

    `validate_only` says what would go.
    """
    request = pb.DeleteDatasetRequest(
        dataset_id=(yield from dataset_id(dataset, project)), force=force, validate_only=validate_only, etag=etag
    )
    return DeletedResources.of((yield from call(request, pb.DeleteDatasetResponse)).deleted)


def preview(
    dataset: DatasetRef, *, project: ProjectRef | None = None, rows: int = 0, columns: Sequence[str] = ()
) -> Plan[Preview]:
    """The first rows, 20 if 0; `columns` chooses and orders."""
    request = pb.PreviewDatasetRequest(dataset_id=(yield from dataset_id(dataset, project)), rows=rows, columns=columns)
    return Preview.of((yield from call(request, pb.PreviewDatasetResponse)))


def dvc_pointer(dataset: DatasetRef, *, project: ProjectRef | None = None) -> Plan[DvcPointer]:
    """What plain DVC needs to pull the current version."""
    request = pb.GetDatasetDvcPointerRequest(dataset_id=(yield from dataset_id(dataset, project)))
    return DvcPointer.of((yield from call(request, pb.GetDatasetDvcPointerResponse)).pointer)


def dvc(
    dataset: DatasetRef,
    folder: str | os.PathLike[str] = ".",
    *,
    project: ProjectRef | None = None,
    timeout: float = 60.0,
) -> Plan[Path]:
    """Write the pointer file and its remote below a folder, so that plain `dvc pull` brings the files; its path.

    It waits, for `timeout` seconds at most, until the version is in the remote.
    """
    found = yield from get(dataset, project=project, view="basic")
    return (yield from write_pointer(lambda: dvc_pointer(found), found.name, folder, timeout))
