"""The table of a request, checked against a model's signature.

Rows, typed columns and Arrow all become a `RawTable`: columns by name in the signature's order, of the signature's
types. Whatever does not fit is an InvalidInput that names the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from google.protobuf.struct_pb2 import Value

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.serving import faults
from easyml_server.serving.layout import RawColumn, RawTable

SMALLEST_INT64: Final = -(2**63)
LARGEST_INT64: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_WIRE_WORDS: Final = {
    "doubles": "a column of numbers",
    "int64s": "a column of whole numbers",
    "strings": "a column of text",
    "bools": "a column of true or false",
    "timestamps": "a column of points in time",
}
_AS_THEY_ARE: Final = {
    StorageType.DOUBLE: frozenset({"doubles", "int64s"}),
    StorageType.INT64: frozenset({"int64s"}),
    StorageType.STRING: frozenset({"strings"}),
    StorageType.BOOL: frozenset({"bools"}),
    StorageType.TIMESTAMP: frozenset({"timestamps"}),
}
"""What each type takes without looking at the values."""
PLACEHOLDERS: Final[dict[StorageType, Any]] = {
    StorageType.INT64: 0,
    StorageType.DOUBLE: 0.0,
    StorageType.STRING: "",
    StorageType.BOOL: False,
    StorageType.TIMESTAMP: 0,
}

Request = pb.PredictRequest | pb.StreamPredictRequest


@dataclass(frozen=True, slots=True)
class TableLimits:
    """How large a table may be; each value's setting is EASYML_ and its name in capitals."""

    max_predict_rows: int = 10_000
    max_predict_cells: int = 200_000
    max_arrow_bytes: int = 3 << 20


class TableReader:
    """Reads tables for one signature."""

    def __init__(self, signature: Signature, limits: TableLimits) -> None:
        self.columns = signature.inputs
        self._limits = limits
        self._positions = {column.name: position for position, column in enumerate(signature.inputs)}
        self._as_they_are = [_AS_THEY_ARE[column.storage_type] for column in signature.inputs]

    def read(self, request: Request) -> RawTable:
        """The table of a request. Raises InvalidInput."""
        match request.WhichOneof("table"):
            case "columns":
                return self._read_columns(request.columns.columns)
            case "rows":
                return self._read_rows(request.rows.rows)
            case "arrow":
                return self._read_arrow(request.arrow)
            case _:
                raise InvalidInput.at("table", "Send a table: rows, columns or arrow.")

    def position(self, name: str, field: str) -> int:
        """Where a column stands in the signature."""
        position = self._positions.get(name)
        if position is None:
            raise faults.unknown_column(name, field, self._positions)
        return position

    def takes_as_it_is(self, position: int, kind: str) -> bool:
        """Whether a column takes values of a kind without looking at them."""
        return kind in self._as_they_are[position]

    def check_size(self, rows: int, field: str) -> None:
        """Before anything is made of a table."""
        if rows == 0:
            raise InvalidInput.at(field, "The table has no rows; send at least one.")
        if rows > self._limits.max_predict_rows:
            raise faults.too_large(f"{rows} rows", "EASYML_MAX_PREDICT_ROWS", self._limits.max_predict_rows)
        cells = rows * len(self.columns)
        if cells > self._limits.max_predict_cells:
            raise faults.too_large(f"{cells} cells", "EASYML_MAX_PREDICT_CELLS", self._limits.max_predict_cells)

    def complete(self, columns: Sequence[RawColumn | None], field: str) -> list[RawColumn]:
        """All columns of the signature, or an error that names the missing ones."""
        there = [column for column in columns if column is not None]
        if len(there) < len(columns):
            missing = (known.name for known, column in zip(self.columns, columns, strict=True) if column is None)
            raise faults.missing_columns(missing, field)
        return there

    def _read_columns(self, sent: Sequence[table_pb2.Column]) -> RawTable:
        columns: list[RawColumn | None] = [None] * len(self.columns)
        rows = -1
        for number, column in enumerate(sent):
            position = self._positions.get(column.name, -1)
            if position < 0 or columns[position] is not None:
                raise self._superfluous(column.name, number)
            kind = column.WhichOneof("values")
            if kind is None:
                raise _empty(column.name, number)
            typed = getattr(column, kind)
            values = typed.micros if kind == "timestamps" else typed.values
            if len(values) != rows:
                rows = self._count_rows(column.name, len(values), rows, number)
            nulls = _nulls(column, rows, number) if column.null_positions else ()
            if kind in self._as_they_are[position]:
                columns[position] = RawColumn(values, nulls)
            else:
                columns[position] = accept(self.columns[position], kind, values, nulls, _Place(number, kind))
        return RawTable(rows, self.complete(columns, "columns.columns"))

    def _superfluous(self, name: str, number: int) -> InvalidInput:
        field = f"columns.columns[{number}].name"
        return _twice(name, field) if name in self._positions else faults.unknown_column(name, field, self._positions)

    def _count_rows(self, name: str, length: int, rows: int, number: int) -> int:
        """The first column says how many rows there are."""
        if rows >= 0:
            raise _uneven(name, length, rows, number)
        self.check_size(length, f"columns.columns[{number}]")
        return length

    def _read_rows(self, sent: Sequence[Any]) -> RawTable:
        rows = len(sent)
        self.check_size(rows, "rows.rows")
        values = [[PLACEHOLDERS[column.storage_type]] * rows for column in self.columns]
        present: list[set[int]] = [set() for _ in self.columns]
        seen = [False] * len(self.columns)
        for number, row in enumerate(sent):
            for name, value in row.fields.items():
                position = self._positions.get(name)
                if position is None:
                    raise faults.unknown_column(name, _cell_field(number, name), self._positions)
                seen[position] = True
                cell = _cell(self.columns[position], value, number)
                if cell is not None:
                    values[position][number] = cell
                    present[position].add(number)
        if not all(seen):
            missing = (column.name for column, there in zip(self.columns, seen, strict=True) if not there)
            raise faults.missing_columns(missing, "rows.rows")
        columns = [
            RawColumn(column, () if len(there) == rows else [row for row in range(rows) if row not in there])
            for column, there in zip(values, present, strict=True)
        ]
        return RawTable(rows, columns)

    def _read_arrow(self, sent: bytes) -> RawTable:
        if len(sent) > self._limits.max_arrow_bytes:
            raise faults.too_large(f"{len(sent)} Arrow bytes", "EASYML_MAX_ARROW_BYTES", self._limits.max_arrow_bytes)
        # Arrow is for bulk: who never sends it does not pay for its library.
        from easyml_server.serving.arrow import read_arrow

        return read_arrow(sent, self)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column stands in a request of typed columns."""

    number: int
    kind: str

    @property
    def column(self) -> str:
        return f"columns.columns[{self.number}]"

    def cell(self, row: int) -> str:
        return f"{self.column}.{self.kind}.values[{row}]"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The same for a form in which cells have no path."""

    column: str

    def cell(self, _row: int) -> str:
        """The place of the column: the sentence says the row."""
        return self.column


def accept(
    column: SignatureColumn, kind: str, values: Sequence[Any], nulls: Sequence[int], place: _Place | Elsewhere
) -> RawColumn:
    """Typed values as values of the signature's type, or an error."""
    if kind in _AS_THEY_ARE[column.storage_type]:
        return RawColumn(values, nulls)
    if column.storage_type is StorageType.INT64 and kind == "doubles":
        return _whole(column, values, nulls, place)
    if column.storage_type is StorageType.TIMESTAMP and kind == "strings":
        return _times(column, values, nulls, place)
    raise faults.wrong_type(column, place.column, _WIRE_WORDS[kind])


def _whole(
    column: SignatureColumn, values: Iterable[float], nulls: Sequence[int], place: _Place | Elsewhere
) -> RawColumn:
    """Doubles for a column of whole numbers; NaN is no value."""
    empty = set(nulls)
    numbers: list[int] = []
    for row, value in enumerate(values):
        if row in empty or value != value:  # noqa: PLR0124 (NaN is what differs from itself)
            empty.add(row)
            numbers.append(0)
        elif is_whole(value):
            numbers.append(int(value))
        else:
            raise faults.wrong_type(column, place.cell(row), "a number with a fraction, or too large", row)
    return RawColumn(numbers, sorted(empty))


def _times(
    column: SignatureColumn, values: Iterable[str], nulls: Sequence[int], place: _Place | Elsewhere
) -> RawColumn:
    """Texts in ISO 8601 for a column of points in time."""
    empty = set(nulls)
    times = (0 if row in empty else _time(column, value, row, place.cell(row)) for row, value in enumerate(values))
    return RawColumn(list(times), nulls)


def is_whole(value: float) -> bool:
    """Whether a double is a whole number that 64 bits hold."""
    return value.is_integer() and SMALLEST_INT64 <= value <= LARGEST_INT64


def _cell(column: SignatureColumn, value: Value, row: int) -> Any:
    """A cell of the rows form by the column's type; None if there is no value."""
    kind = value.WhichOneof("kind")
    if kind == "null_value":
        return None
    match column.storage_type, kind:
        case StorageType.DOUBLE, "number_value":
            return value.number_value
        case StorageType.INT64, "number_value":
            return _whole_cell(column, value.number_value, row)
        case StorageType.STRING, "string_value":
            return value.string_value
        case StorageType.BOOL, "bool_value":
            return value.bool_value
        case StorageType.TIMESTAMP, "string_value":
            return _time(column, value.string_value, row, _cell_field(row, column.name))
    raise faults.wrong_type(column, _cell_field(row, column.name), _VALUE_WORDS[kind], row)


_VALUE_WORDS: Final = {
    "number_value": "a number",
    "string_value": "a text",
    "bool_value": "true or false",
    "struct_value": "an object",
    "list_value": "a list",
    None: "a value of no kind",
}


def _whole_cell(column: SignatureColumn, value: float, row: int) -> int | None:
    if value != value:  # noqa: PLR0124 (NaN is what differs from itself)
        return None
    if not is_whole(value):
        field = _cell_field(row, column.name)
        raise faults.wrong_type(column, field, "a number with a fraction, or too large", row)
    return int(value)


def _time(column: SignatureColumn, value: str, row: int, field: str) -> int:
    """Microseconds since 1970; a time without a zone is in UTC."""
    try:
        time = datetime.fromisoformat(value)
        return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError) as error:
        raise faults.wrong_type(column, field, "a text that is no time in ISO 8601", row) from error


def _cell_field(row: int, name: str) -> str:
    return f"rows.rows[{row}].{faults.shortened(name)}"


def _twice(name: str, field: str) -> InvalidInput:
    return InvalidInput.at(field, f"Column {faults.quoted(name)} is there twice; send it once.")


def _empty(name: str, number: int) -> InvalidInput:
    return InvalidInput.at(f"columns.columns[{number}].values", f"Column {faults.quoted(name)} has no values.")


def _uneven(name: str, length: int, rows: int, number: int) -> InvalidInput:
    return InvalidInput.at(
        f"columns.columns[{number}]",
        f"Column {faults.quoted(name)} has {length} values where others have {rows}; send one per row, and name rows "
        "without a value in null_positions.",
    )


def _nulls(column: table_pb2.Column, rows: int, number: int) -> list[int]:
    nulls = list(column.null_positions)
    ascending = all(before < after for before, after in pairwise(nulls))
    if not ascending or nulls[-1] >= rows:
        raise InvalidInput.at(
            f"columns.columns[{number}].null_positions",
            f"null_positions of column {faults.quoted(column.name)} must be in ascending order and below {rows}.",
        )
    return nulls
