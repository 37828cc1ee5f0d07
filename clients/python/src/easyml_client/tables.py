"""Tables: Python rows, columns and data frames to typed columns on the wire, and back."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from easyml.v1 import table_pb2
from easyml_client import values as conversions
from easyml_client.errors import InvalidInput

Table = Any
"""A list of dicts, a dict of columns, one dict (a single row), or a pandas DataFrame."""

_INT64 = range(-(1 << 63), 1 << 63)


def to_wire(table: Table) -> table_pb2.ColumnTable | table_pb2.RowTable:
    """Typed columns; rows where a column's type cannot be told from its values (all None, or mixed)."""
    columns = to_columns(table)
    typed = [_column(name, cells) for name, cells in columns.items()]
    if all(column is not None for column in typed):
        return table_pb2.ColumnTable(columns=[column for column in typed if column is not None])
    count = len(next(iter(columns.values())))
    rows = ({name: _json(cells[row]) for name, cells in columns.items()} for row in range(count))
    return table_pb2.RowTable(rows=[conversions.to_struct(row) for row in rows])


def to_columns(table: Table) -> dict[str, list[Any]]:
    """Cells by column name, all of one length; what is missing (None, NaN, NaT, a name left out) is None."""
    if hasattr(table, "columns") and hasattr(table, "iloc"):
        found = {str(name): table.iloc[:, at].tolist() for at, name in enumerate(table.columns)}
    elif isinstance(table, Mapping):
        found = _columns_of_mapping(table)
    else:
        found = _columns_of_rows(table)
    columns = {name: [_cell(value) for value in cells] for name, cells in found.items()}
    _check(columns)
    return columns


def _columns_of_mapping(table: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    if all(isinstance(cells, str) or not isinstance(cells, Iterable) for cells in table.values()):
        return {name: [value] for name, value in table.items()}
    return {str(name): cells.tolist() if hasattr(cells, "tolist") else list(cells) for name, cells in table.items()}


def _columns_of_rows(table: Iterable[Any]) -> dict[str, list[Any]]:
    rows = list(table)
    if not all(isinstance(row, Mapping) for row in rows):
        raise InvalidInput.at("rows", "Rows are a list of dicts, a dict of columns, or a DataFrame.")
    names = dict.fromkeys(name for row in rows for name in row)
    return {str(name): [row.get(name) for row in rows] for name in names}


def _check(columns: Mapping[str, Sequence[Any]]) -> None:
    lengths = {len(cells) for cells in columns.values()}
    if not columns or lengths == {0}:
        raise InvalidInput.at("rows", "There are no rows to predict; send at least one.")
    if len(lengths) > 1:
        raise InvalidInput.at("rows", "The columns have different lengths; each needs one value per row.")


def _cell(value: Any) -> Any:
    """NumPy's scalars as Python's; what is not equal to itself (NaN, NaT) or not comparable (pandas.NA) is missing."""
    if hasattr(value, "item") and not isinstance(value, (int, float)):
        value = value.item()
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def _column(name: str, cells: Sequence[Any]) -> table_pb2.Column | None:
    """The cells as a typed column; None if no type holds them all."""
    present = [cell for cell in cells if cell is not None]
    column = table_pb2.Column(name=name, null_positions=[row for row, cell in enumerate(cells) if cell is None])
    kinds = {type(cell) for cell in present}
    if not present:
        return None
    if kinds == {bool}:
        column.bools.values.extend(bool(cell) for cell in cells)
    elif kinds == {int} and all(cell in _INT64 for cell in present):
        column.int64s.values.extend(cell or 0 for cell in cells)
    elif kinds <= {int, float} and all(isinstance(cell, float) or _is_exact(cell) for cell in present):
        column.doubles.values.extend(0.0 if cell is None else float(cell) for cell in cells)
    elif all(isinstance(cell, str) for cell in present):
        column.strings.values.extend(cell or "" for cell in cells)
    elif all(isinstance(cell, dt.date) for cell in present):
        column.timestamps.micros.extend(0 if cell is None else conversions.to_micros(cell) for cell in cells)
    else:
        return None
    return column


def _is_exact(number: int) -> bool:
    """Whether a double holds the number as it is."""
    return abs(number) < 1 << 1023 and int(float(number)) == number


def _json(cell: Any) -> Any:
    return cell.isoformat() if isinstance(cell, dt.date) else cell


def values_of(column: table_pb2.Column) -> list[Any]:
    """The cells of a column, None where there is none; times are aware datetimes in UTC."""
    kind = column.WhichOneof("values")
    if kind is None:
        return [None] * len(column.null_positions)
    if kind == "timestamps":
        cells: list[Any] = [conversions.from_micros(micros) for micros in column.timestamps.micros]
    else:
        cells = list(getattr(column, kind).values)
    for row in column.null_positions:
        cells[row] = None
    return cells


def columns_of(table: table_pb2.ColumnTable) -> dict[str, list[Any]]:
    """Cells by column name."""
    return {column.name: values_of(column) for column in table.columns}


def rows_of(table: table_pb2.ColumnTable) -> list[dict[str, Any]]:
    """One dict per row."""
    columns = columns_of(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def frame(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A pandas DataFrame; pandas is not installed with this package."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame() needs pandas: pip install 'easyml-client[pandas]'") from error
    return pd.DataFrame(dict(columns))
