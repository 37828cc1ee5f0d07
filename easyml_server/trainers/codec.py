"""Messages between server and workers: the domain's dataclasses as JSON, checked on both sides.

Numbers that JSON does not know (NaN, infinity) are refused: a metric is a number or is not there.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter

from easyml_server.domain import errors
from easyml_server.domain.datasets import (
    ColumnValues,
    Conversion,
    ConvertedTable,
    FileFormat,
    Preview,
    StorageType,
    TableSchema,
)
from easyml_server.domain.errors import EasyMLError, InvalidInput, Reason, Violation
from easyml_server.domain.training import Outcome, Report, TrainingJob

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Crashed:
    """Something no worker should meet: where it happened, for the log; without the message, which may hold values."""

    error: str
    trace: tuple[str, ...]
    type: Literal["crashed"] = "crashed"


@dataclass(frozen=True, slots=True)
class Refused:
    """An error of the domain on its way to the server."""

    error: str
    message: str
    reason: Reason
    metadata: dict[str, str]
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None
    type: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What a preview shows."""

    table_path: str
    schema: TableSchema
    columns: tuple[str, ...]
    rows: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is written where."""

    table_path: str
    format: FileFormat
    target: str


# The first byte of an answer of a worker that reads or writes tables.
DONE, FAILED = b"+", b"-"
TrainingMessage = Report | Outcome | Crashed

_JOB = TypeAdapter(TrainingJob)
_TRAINING: TypeAdapter[TrainingMessage] = TypeAdapter(Annotated[TrainingMessage, Field(discriminator="type")])
_FAILED: TypeAdapter[Refused | Crashed] = TypeAdapter(Annotated[Refused | Crashed, Field(discriminator="type")])
_CONVERSION = TypeAdapter(Conversion)
_CONVERTED = TypeAdapter(ConvertedTable)
_PREVIEW_REQUEST = TypeAdapter(PreviewRequest)
_EXPORT_REQUEST = TypeAdapter(ExportRequest)
_PYTHON_TYPES: dict[StorageType, type | tuple[type, ...]] = {
    StorageType.INT64: int,
    StorageType.DOUBLE: (float, int),
    StorageType.STRING: str,
    StorageType.BOOL: bool,
    StorageType.TIMESTAMP: int,
}


def encode_job(job: TrainingJob) -> bytes:
    """A job for the worker."""
    return _encode(_JOB, job)


def decode_job(message: bytes) -> TrainingJob:
    """The job that a worker was given."""
    return _decode(_JOB, message)


def encode_training(message: TrainingMessage) -> bytes:
    """A report or the outcome; ValueError if it holds what is not of its type, or NaN or infinity."""
    return _encode(_TRAINING, message)


def decode_training(message: bytes) -> TrainingMessage:
    """What a training worker tells; ValueError if it is nothing of that."""
    return _decode(_TRAINING, message)


def encode_conversion(conversion: Conversion) -> bytes:
    """A conversion for the worker."""
    return _encode(_CONVERSION, conversion)


def decode_conversion(message: bytes) -> Conversion:
    """The conversion that a worker was given."""
    return _decode(_CONVERSION, message)


def encode_converted(table: ConvertedTable) -> bytes:
    """What a conversion found."""
    return _encode(_CONVERTED, table)


def decode_converted(message: bytes) -> ConvertedTable:
    """What a conversion found."""
    return _decode(_CONVERTED, message)


def encode_preview_request(request: PreviewRequest) -> bytes:
    """A preview for the worker."""
    return _encode(_PREVIEW_REQUEST, request)


def decode_preview_request(message: bytes) -> PreviewRequest:
    """The preview that a worker was given."""
    return _decode(_PREVIEW_REQUEST, message)


def encode_export_request(request: ExportRequest) -> bytes:
    """An export for the worker."""
    return _encode(_EXPORT_REQUEST, request)


def decode_export_request(message: bytes) -> ExportRequest:
    """The export that a worker was given."""
    return _decode(_EXPORT_REQUEST, message)


def encode_preview(preview: Preview) -> bytes:
    """A preview's cells; infinite ones are kept, since a table may hold them."""
    columns = [[c.name, c.storage_type, list(c.values), list(c.null_positions)] for c in preview.columns]
    return json.dumps({"columns": columns, "truncated": preview.truncated}).encode()


def decode_preview(message: bytes) -> Preview:
    """The cells, each checked to be of its column's type."""
    content = json.loads(message)
    return Preview(tuple(_column(*column) for column in content["columns"]), bool(content["truncated"]))


def encode_failure(error: EasyMLError) -> bytes:
    """An error of the domain."""
    refused = Refused(
        type(error).__name__, error.message, error.reason, error.metadata, error.violations, error.retry_after
    )
    return _encode(_FAILED, refused)


def encode_crash(crash: Crashed) -> bytes:
    """What no worker should meet."""
    return _encode(_FAILED, crash)


def decode_failure(message: bytes) -> EasyMLError | Crashed:
    """The error that a worker answered with."""
    failed = _decode(_FAILED, message)
    if isinstance(failed, Crashed):
        return failed
    kind = getattr(errors, failed.error, None)
    if not (isinstance(kind, type) and issubclass(kind, EasyMLError)):
        kind = InvalidInput
    return kind(
        failed.message,
        failed.reason,
        metadata=failed.metadata,
        violations=failed.violations,
        retry_after=failed.retry_after,
    )


def _column(name: str, storage_type: str, values: list[Any], null_positions: list[int]) -> ColumnValues:
    stored = StorageType(storage_type)
    if not all(isinstance(value, _PYTHON_TYPES[stored]) for value in values):
        raise ValueError(f"A worker sent other values than {stored} for a column.")
    return ColumnValues(str(name), stored, values, tuple(map(int, null_positions)))


def _encode(adapter: TypeAdapter[T], value: T) -> bytes:
    # A dictionary first: written at once, pydantic turns NaN and infinity into null without a word.
    plain = adapter.dump_python(value, mode="json", warnings="error")
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()


def _decode(adapter: TypeAdapter[T], message: bytes) -> T:
    return adapter.validate_python(json.loads(message, parse_constant=_refuse, parse_float=_finite))


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("A number is out of range.")
    return number
