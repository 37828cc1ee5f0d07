"""Parquet of others: its types become ours, or are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from easyml_server.domain.datasets import Conversion, DatasetWarning, DatasetWarningKind, FileFormat
from easyml_server.ml.column_types import ColumnType, Widened, stored_schema
from easyml_server.ml.table_errors import checked_names, too_large, unreadable

_BATCH_ROWS = 1 << 16
_BATCH_CELLS = 1 << 22
_BUFFER_BYTES = 1 << 20
_MAX_FOOTER_STRING = 16 << 20
_MAX_FOOTER_ITEMS = 4 << 20
_EXTENSION = b"ARROW:extension:name"


class ParquetUpload:
    """One Parquet file of a user."""

    def __init__(self, conversion: Conversion) -> None:
        self._limits = conversion.limits
        self._source = Path(conversion.source)
        with self._open() as file:
            schema = file.schema_arrow
            rows = file.metadata.num_rows
        self._names = checked_names(schema.names, FileFormat.PARQUET, self._limits)
        if rows > self._limits.max_rows:
            raise too_large("max_rows", self._limits.max_rows, f"The table has {rows:,} rows")
        self._types = [_column_type(field) for field in schema]
        self._beyond: set[str] = set()

    def batches(self) -> Iterator[Any]:
        """The rows; Widened after a number that int64 does not hold."""
        rows = max(1, min(_BATCH_ROWS, _BATCH_CELLS // max(len(self._names), 1)))
        try:
            with self._open() as file:
                for batch in file.iter_batches(rows):
                    if batch.num_rows:
                        yield self._stored(batch)
        except (MemoryError, pa.ArrowCapacityError) as error:
            raise MemoryError from error
        except (pa.ArrowException, OSError) as error:
            raise _damaged(error) from error

    def warnings(self) -> list[DatasetWarning]:
        """What was noticed while reading."""
        return [
            DatasetWarning(
                DatasetWarningKind.MIXED_TYPES,
                name,
                f"Column {name!r} holds whole numbers beyond 64 bits; they are stored as text.",
            )
            for name in self._names
            if name in self._beyond
        ]

    def _open(self) -> Any:
        try:
            return pq.ParquetFile(
                self._source,
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
                thrift_string_size_limit=_MAX_FOOTER_STRING,
                thrift_container_size_limit=_MAX_FOOTER_ITEMS,
            )
        except (pa.ArrowException, OSError) as error:
            raise _damaged(error) from error

    def _stored(self, batch: Any) -> Any:
        schema = stored_schema(self._names, self._types)
        columns = [
            self._cast(index, column, field.type)
            for index, (column, field) in enumerate(zip(batch.columns, schema, strict=True))
        ]
        return pa.record_batch(columns, schema=schema)

    def _cast(self, index: int, column: Any, target: Any) -> Any:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        column.validate(full=True)
        if pa.types.is_floating(column.type):
            column = column.cast(pa.float64())
            return pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        if pa.types.is_uint64(column.type) and self._types[index] is ColumnType.INT64:
            return self._cast_unsigned(index, column)
        # Nanoseconds lose what is below a microsecond.
        return column.cast(target, safe=not pa.types.is_temporal(column.type))

    def _cast_unsigned(self, index: int, column: Any) -> Any:
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            self._types[index] = ColumnType.STRING
            self._beyond.add(self._names[index])
            raise Widened from error


def _column_type(field: Any) -> ColumnType:
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType) or _EXTENSION in (field.metadata or {}):
        raise _refused(field, f"is of an extension type ({_short(kind)})")
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (
        (pa.types.is_null, ColumnType.NULL),
        (pa.types.is_boolean, ColumnType.BOOL),
        (pa.types.is_integer, ColumnType.INT64),
        (pa.types.is_floating, ColumnType.DOUBLE),
        (pa.types.is_decimal, ColumnType.DOUBLE),
        (pa.types.is_date, ColumnType.TIMESTAMP),
        (pa.types.is_timestamp, ColumnType.TIMESTAMP),
        (pa.types.is_time, ColumnType.STRING),
        (pa.types.is_string, ColumnType.STRING),
        (pa.types.is_large_string, ColumnType.STRING),
        (pa.types.is_string_view, ColumnType.STRING),
    )
    for check, column_type in checks:
        if check(kind):
            return column_type
    raise _refused(field, f"is of type {_short(kind)}")


def _short(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 80 else text[:79] + "…"  # noqa: PLR2004 - as much as a sentence bears


def _refused(field: Any, what: str) -> Exception:
    return unreadable(
        FileFormat.PARQUET,
        f"Column {field.name!r} {what}, which a table for training cannot hold; flatten it, or leave it out.",
    )


def _damaged(error: Exception) -> Exception:
    if "encrypt" in str(error).lower() or "decrypt" in str(error).lower():
        return unreadable(FileFormat.PARQUET, "The file is encrypted; save it without encryption.")
    return unreadable(FileFormat.PARQUET, "The file is a damaged Parquet file; save it again.")
