"""Datasets, schemas, uploads and previews."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID, uuid4

from easyml.v1 import dataset_pb2, dataset_service_pb2, table_pb2
from easyml_server.domain.datasets import (
    ColumnValues,
    Dataset,
    DatasetVersion,
    Preview,
    ReadOptions,
    StorageType,
    TableSchema,
    Upload,
    UploadState,
)
from easyml_server.domain.limits import Limits
from easyml_server.domain.statistics import TableStatistics
from easyml_server.services.datasets import ColumnSetting, DatasetChange, DescribedDataset
from easyml_server.services.uploads import Stated, new_upload, told_format
from easyml_server.transport.calls import caller
from easyml_server.transport.converters.enums import (
    COLUMN_KIND,
    COLUMN_ROLE,
    DATASET_WARNING,
    FILE_FORMAT,
    STORAGE_TYPE,
    UPLOAD_STATE,
)
from easyml_server.transport.converters.statistics import statistics_to_proto
from easyml_server.transport.converters.values import text, timestamp


def dataset_to_proto(dataset: Dataset, *, full: bool, statistics: TableStatistics | None = None) -> dataset_pb2.Dataset:
    """A dataset; without the columns in a basic view."""
    return dataset_pb2.Dataset(
        id=str(dataset.id),
        project_id=str(dataset.project_id),
        name=dataset.name,
        description=dataset.description,
        labels=dataset.labels,
        current_version=version_to_proto(dataset.current, full=full, statistics=statistics),
        creator_id=str(dataset.creator_id),
        create_time=timestamp(dataset.create_time),
        update_time=timestamp(dataset.update_time),
        etag=dataset.etag,
    )


def described_to_proto(described: DescribedDataset) -> dataset_pb2.Dataset:
    """A dataset with what its columns hold."""
    return dataset_to_proto(described.dataset, full=True, statistics=described.statistics)


def version_to_proto(
    version: DatasetVersion, *, full: bool, statistics: TableStatistics | None
) -> dataset_pb2.DatasetVersion:
    """A dataset version."""
    schema = schema_to_proto(version.schema)
    if not full:
        del schema.columns[:]
    return dataset_pb2.DatasetVersion(
        id=str(version.id),
        dataset_id=str(version.dataset_id),
        version=version.version,
        filename=version.filename,
        format=FILE_FORMAT.to_proto(version.format),
        size_bytes=version.size_bytes,
        sha256=version.sha256,
        stored_bytes=version.stored_bytes,
        schema=schema,
        warnings=[
            dataset_pb2.DatasetWarning(
                kind=DATASET_WARNING.to_proto(warning.kind), column=warning.column, message=warning.message
            )
            for warning in (version.warnings if full else ())
        ],
        create_time=timestamp(version.create_time),
        statistics=statistics_to_proto(statistics),
    )


def schema_to_proto(schema: TableSchema) -> dataset_pb2.TableSchema:
    """The columns and the number of rows."""
    return dataset_pb2.TableSchema(
        columns=[
            dataset_pb2.ColumnSchema(
                name=column.name,
                storage_type=STORAGE_TYPE.to_proto(column.storage_type),
                kind=COLUMN_KIND.to_proto(column.kind),
                role=COLUMN_ROLE.to_proto(column.role),
                null_count=column.null_count,
                distinct_count=column.distinct_count,
            )
            for column in schema.columns
        ],
        row_count=schema.row_count,
    )


def upload_to_proto(upload: Upload) -> dataset_pb2.Upload:
    """How far an upload is."""
    return dataset_pb2.Upload(
        id=str(upload.id),
        project_id=str(upload.project_id),
        state=UPLOAD_STATE.to_proto(upload.state),
        received_bytes=upload.received_bytes,
        size_bytes=upload.size_bytes,
        dataset_id=text(upload.dataset_id),
        expire_time=timestamp(upload.expire_time),
    )


def to_stated(header: dataset_service_pb2.UploadHeader, limits: Limits, clock: Callable[[], datetime]) -> Stated:
    """What the header of an upload states."""
    now = clock()
    options = header.read_options
    given = Upload(
        id=UUID(header.upload_id) if header.upload_id else uuid4(),
        user_id=caller().user_id,
        project_id=UUID(header.project_id),
        state=UploadState.RECEIVING,
        name=header.name,
        description=header.description,
        labels=dict(header.labels),
        filename=header.filename,
        format=told_format(header.filename, FILE_FORMAT.find(header.format)),
        size_bytes=header.size_bytes,
        sha256=header.sha256,
        read_options=ReadOptions(options.delimiter, options.encoding, options.sheet),
        received_bytes=0,
        dataset_id=None,
        create_time=now,
        expire_time=now,
    )
    return Stated(new_upload(caller(), given, clock, limits), header.offset)


def to_change(request: dataset_service_pb2.UpdateDatasetRequest) -> DatasetChange:
    """New values of a dataset."""
    return DatasetChange(
        dataset_id=UUID(request.dataset_id),
        name=request.name,
        description=request.description,
        labels=dict(request.labels),
        columns=[
            ColumnSetting(column.name, COLUMN_ROLE.find(column.role), COLUMN_KIND.find(column.kind))
            for column in request.columns
        ],
        etag=request.etag,
    )


def preview_to_proto(preview: Preview) -> table_pb2.ColumnTable:
    """The head of a table as typed columns."""
    return table_pb2.ColumnTable(columns=[_column_to_proto(column) for column in preview.columns])


def _column_to_proto(column: ColumnValues) -> table_pb2.Column:
    message = table_pb2.Column(name=column.name, null_positions=column.null_positions)
    values = list(column.values)
    match column.storage_type:
        case StorageType.DOUBLE:
            message.doubles.values.extend(values)  # type: ignore[arg-type]  # typed by storage_type
        case StorageType.INT64:
            message.int64s.values.extend(values)  # type: ignore[arg-type]  # typed by storage_type
        case StorageType.STRING:
            message.strings.values.extend(values)  # type: ignore[arg-type]  # typed by storage_type
        case StorageType.BOOL:
            message.bools.values.extend(values)  # type: ignore[arg-type]  # typed by storage_type
        case StorageType.TIMESTAMP:
            message.timestamps.micros.extend(values)  # type: ignore[arg-type]  # typed by storage_type
    # An empty column still says its type.
    field = {StorageType.TIMESTAMP: "timestamps"}.get(column.storage_type, f"{column.storage_type.value}s")
    getattr(message, field).SetInParent()
    return message
