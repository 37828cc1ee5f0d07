"""The head of a table, as typed columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from easyml_server.domain.datasets import ColumnValues, Preview, StorageType, TableSchema
from easyml_server.domain.errors import InvalidInput, Reason

_ZEROS: dict[StorageType, int | float | str | bool] = {
    StorageType.INT64: 0,
    StorageType.DOUBLE: 0.0,
    StorageType.STRING: "",
    StorageType.BOOL: False,
    StorageType.TIMESTAMP: 0,
}
_NUMBER_BYTES = 10
_TEXT_OVERHEAD = 6
_NAME_OVERHEAD = 16


def preview(table_path: str, schema: TableSchema, columns: Sequence[str], rows: int, max_bytes: int) -> Preview:
    """The first rows of the columns asked for, in that order; all columns if none are.

    Rows are left out while the answer would be larger than about `max_bytes`. Raises InvalidInput (UNKNOWN_COLUMN).
    """
    names = list(columns) or [column.name for column in schema.columns]
    for name in names:
        if schema.find(name) is None:
            raise InvalidInput.at(
                "columns",
                f"The dataset has no column {name!r}; GetDataset lists the columns it has.",
                Reason.UNKNOWN_COLUMN,
                {"column": name},
            )
    head = _head(table_path, names, rows)
    kept = _rows_within(head, max_bytes)
    values = tuple(_values(name, schema, head.column(name).slice(0, kept)) for name in names)
    return Preview(values, truncated=kept < head.num_rows)


def _head(table_path: str, names: list[str], rows: int) -> Any:
    with pq.ParquetFile(table_path) as file:
        wanted = list(dict.fromkeys(names))
        batches: list[Any] = []
        missing = rows
        if rows:
            for batch in file.iter_batches(rows, columns=wanted):
                batches.append(batch.slice(0, missing))
                missing -= batches[-1].num_rows
                if missing <= 0:
                    break
        # A column asked for by name also brings those whose names go on after a dot.
        fields = file.schema_arrow
        kept = pa.schema([fields.field(name) for name in wanted])
        table = pa.Table.from_batches([batch.select(wanted) for batch in batches], kept)
        return table.combine_chunks()


def _rows_within(table: Any, max_bytes: int) -> int:
    """How many rows fit."""
    sizes = [0] * table.num_rows
    for column in table.columns:
        if pa.types.is_string(column.type):
            lengths = pc.fill_null(pc.binary_length(column), 0).to_pylist()
            sizes = [size + length + _TEXT_OVERHEAD for size, length in zip(sizes, lengths, strict=True)]
        else:
            sizes = [size + _NUMBER_BYTES for size in sizes]
    names = sum(len(name.encode()) + _NAME_OVERHEAD for name in table.column_names)
    return sum(size + names <= max_bytes for size in accumulate(sizes))


def _values(name: str, schema: TableSchema, column: Any) -> ColumnValues:
    known = schema.find(name)
    assert known is not None  # noqa: S101 - checked by preview
    zero = _ZEROS[known.storage_type]
    plain = column.cast(pa.int64()) if known.storage_type is StorageType.TIMESTAMP else column
    cells = plain.to_pylist()
    nulls = tuple(position for position, cell in enumerate(cells) if cell is None)
    return ColumnValues(name, known.storage_type, [zero if cell is None else cell for cell in cells], nulls)
