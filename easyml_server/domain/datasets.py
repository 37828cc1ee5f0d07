"""Datasets: immutable versions of a table, its schema, and uploads on their way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from easyml_server.domain.statistics import TableStatistics


class FileFormat(StrEnum):
    """Formats of a table in a file; names as in the contract."""

    CSV = "csv"
    XLSX = "xlsx"
    JSON = "json"
    PARQUET = "parquet"


class StorageType(StrEnum):
    """How values are stored; names as in the contract."""

    INT64 = "int64"
    DOUBLE = "double"
    STRING = "string"
    BOOL = "bool"
    TIMESTAMP = "timestamp"


class ColumnKind(StrEnum):
    """What values mean to a model; names as in the contract."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    ORDINAL = "ordinal"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    TEXT = "text"


class ColumnRole(StrEnum):
    """What a column is for; names as in the contract."""

    FEATURE = "feature"
    TARGET = "target"
    WEIGHT = "weight"
    IDENTIFIER = "identifier"
    GROUP = "group"
    TIME = "time"
    IGNORED = "ignored"


class DatasetWarningKind(StrEnum):
    """What is noticed in an uploaded file; names as in the contract."""

    IDENTIFIER_LIKE = "identifier_like"
    CONSTANT = "constant"
    ALL_NULL = "all_null"
    MIXED_TYPES = "mixed_types"
    INFINITE_VALUES = "infinite_values"
    ENCODING = "encoding"
    OTHER_SHEETS = "other_sheets"
    FORMULA = "formula"


class UploadState(StrEnum):
    """How far an upload is; names as in the contract."""

    RECEIVING = "receiving"
    CONVERTING = "converting"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DatasetWarning:
    """One thing that was noticed; the message holds no values of cells."""

    kind: DatasetWarningKind
    column: str
    message: str


@dataclass(frozen=True, slots=True)
class ColumnSchema:
    """One column. `distinct_count` is exact up to 10,000, then 10,001."""

    name: str
    storage_type: StorageType
    kind: ColumnKind
    role: ColumnRole = ColumnRole.FEATURE
    null_count: int = 0
    distinct_count: int = 0


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table in the order of the file, and its rows."""

    columns: tuple[ColumnSchema, ...]
    row_count: int

    def find(self, name: str) -> ColumnSchema | None:
        """The column of that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)

    def with_role(self, role: ColumnRole) -> ColumnSchema | None:
        """The first column of that role, if there is one."""
        return next((column for column in self.columns if column.role is role), None)


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """Immutable bytes and what they hold. `sha256` and `size_bytes` are those of the uploaded file."""

    id: UUID
    dataset_id: UUID
    project_id: UUID
    version: int
    filename: str
    format: FileFormat
    size_bytes: int
    sha256: str
    stored_bytes: int
    stored_sha256: str
    schema: TableSchema
    warnings: tuple[DatasetWarning, ...]
    keeps_original: bool
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named table of a project."""

    id: UUID
    project_id: UUID
    name: str
    description: str
    labels: Mapping[str, str]
    creator_id: UUID
    create_time: datetime
    update_time: datetime
    etag: str
    current: DatasetVersion


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is read; what is empty is found out."""

    delimiter: str = ""
    encoding: str = ""
    sheet: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way in; `received_bytes` are safe on disk."""

    id: UUID
    user_id: UUID
    project_id: UUID
    state: UploadState
    name: str
    description: str
    labels: Mapping[str, str]
    filename: str
    format: FileFormat
    size_bytes: int
    sha256: str
    read_options: ReadOptions
    received_bytes: int
    dataset_id: UUID | None
    create_time: datetime
    expire_time: datetime
    failure: tuple[str, str] | None = None  # reason, message


@dataclass(frozen=True, slots=True)
class TableLimits:
    """Limits that a file is read within; the setting of each is EASYML_ and its name in capitals."""

    max_columns: int = 10_000
    max_rows: int = 50_000_000
    max_cell_bytes: int = 1 << 20
    max_line_bytes: int = 4 << 20
    max_unpacked_bytes: int = 512 << 20
    max_unpacked_ratio: int = 300
    max_members: int = 1_000


@dataclass(frozen=True, slots=True)
class Conversion:
    """A file to be turned into our Parquet."""

    source: str
    format: FileFormat
    options: ReadOptions
    target: str
    limits: TableLimits


@dataclass(frozen=True, slots=True)
class ConvertedTable:
    """What a conversion found; the table itself lies at the conversion's target."""

    schema: TableSchema
    statistics: TableStatistics
    warnings: tuple[DatasetWarning, ...]
    stored_bytes: int
    stored_sha256: str


@dataclass(frozen=True, slots=True)
class ColumnValues:
    """One column of a preview; a null holds the type's zero and its position is in `null_positions`.

    `values` are int, float, str, bool, or microseconds since the epoch, by `storage_type`.
    """

    name: str
    storage_type: StorageType
    values: Sequence[int | float | str | bool]
    null_positions: Sequence[int] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Preview:
    """The head of a table."""

    columns: tuple[ColumnValues, ...]
    truncated: bool
