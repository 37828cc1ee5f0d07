"""Datasets, their versions and uploads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from easyml.v1 import dataset_pb2, dataset_service_pb2
from easyml_client import tables
from easyml_client.resources.base import Resource


class ColumnSchema(Resource[dataset_pb2.ColumnSchema]):
    """One column: `storage_type` as in "int64", `kind` as in "numeric", `role` as in "feature"."""

    name: str
    storage_type: str | None
    kind: str | None
    role: str | None
    null_count: int
    distinct_count: int


class TableSchema(Resource[dataset_pb2.TableSchema]):
    """The columns of a table, in the order of the file; none in a list's basic view."""

    columns: tuple[ColumnSchema, ...]
    row_count: int


class DatasetWarning(Resource[dataset_pb2.DatasetWarning]):
    """What was noticed when the file was read."""

    kind: str | None
    column: str | None
    message: str


class ValueCount(Resource[dataset_pb2.ValueCount]):
    """A value as text, and the rows that hold it."""

    value: str
    count: int


class NumberStatistics(Resource[dataset_pb2.NumberStatistics]):
    """About the finite numbers of a column; None is not known. The quartiles come from the table's `sampled_rows`."""

    minimum: float | None
    maximum: float | None
    mean: float | None
    standard_deviation: float | None
    lower_quartile: float | None
    median: float | None
    upper_quartile: float | None
    infinite_count: int


class TimeStatistics(Resource[dataset_pb2.TimeStatistics]):
    """The first and the last point in time of a column."""

    earliest: dt.datetime | None
    latest: dt.datetime | None


class ColumnStatistics(Resource[dataset_pb2.ColumnStatistics]):
    """What one column holds; `numbers`, `times` and `frequent_values` where they make sense for it."""

    name: str
    value_count: int
    numbers: NumberStatistics | None
    times: TimeStatistics | None
    frequent_values: tuple[ValueCount, ...]


class TableStatistics(Resource[dataset_pb2.TableStatistics]):
    """What the columns of a table hold, in the order of the file."""

    columns: tuple[ColumnStatistics, ...]
    sampled_rows: int

    def column(self, name: str) -> ColumnStatistics | None:
        """That of a column."""
        return next((column for column in self.columns if column.name == name), None)


class DatasetVersion(Resource[dataset_pb2.DatasetVersion]):
    """The immutable content of a dataset; `statistics` come with `datasets.get` and the view "full" of a list."""

    id: str
    dataset_id: str
    version: int
    filename: str
    format: str | None
    size_bytes: int
    sha256: str
    stored_bytes: int
    schema: TableSchema | None
    warnings: tuple[DatasetWarning, ...]
    create_time: dt.datetime
    statistics: TableStatistics | None


class Dataset(Resource[dataset_pb2.Dataset]):
    """A table and its versions; trainings use `current_version`."""

    id: str
    project_id: str
    name: str
    description: str
    labels: Mapping[str, str]
    current_version: DatasetVersion | None
    creator_id: str
    create_time: dt.datetime
    update_time: dt.datetime
    etag: str

    @property
    def columns(self) -> tuple[ColumnSchema, ...]:
        """The columns of the current version."""
        return self.current_version.schema.columns if self.current_version and self.current_version.schema else ()

    @property
    def row_count(self) -> int:
        """Rows of the current version."""
        return self.current_version.schema.row_count if self.current_version and self.current_version.schema else 0

    @property
    def statistics(self) -> TableStatistics | None:
        """What the columns hold; None where it was not asked for, or an older server took the table in."""
        return self.current_version.statistics if self.current_version else None


class Upload(Resource[dataset_pb2.Upload]):
    """A file on its way in; `received_bytes` are safe."""

    id: str
    project_id: str
    state: str | None
    received_bytes: int
    size_bytes: int
    dataset_id: str | None
    expire_time: dt.datetime | None


class Preview(Resource[dataset_service_pb2.PreviewDatasetResponse]):
    """The head of a table; `truncated` says that rows were left out to keep the answer small."""

    schema: TableSchema | None
    truncated: bool

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Values by column name, None where there is none."""
        return tables.columns_of(self.proto.table)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The same, row by row."""
        return tables.rows_of(self.proto.table)

    def to_frame(self) -> Any:
        """A pandas DataFrame; needs pandas."""
        return tables.frame(self.columns)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        from easyml_client.resources.base import plain

        return {**super().to_dict(), "rows": plain(self.rows)}
