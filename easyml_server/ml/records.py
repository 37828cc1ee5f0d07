"""Columns of Python values, as JSON and Excel give them, become Arrow columns of the narrowest type that fits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

from easyml_server.domain.datasets import DatasetWarning, DatasetWarningKind
from easyml_server.ml.column_types import NUMBERS, STORED_AS, ColumnType, Widened, joined, stored_schema

_INT64 = range(-(1 << 63), 1 << 63)
_EXACT = 1 << 53
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?")
_TYPES: dict[type, ColumnType] = {
    bool: ColumnType.BOOL,
    int: ColumnType.INT64,
    float: ColumnType.DOUBLE,
    str: ColumnType.STRING,
    datetime: ColumnType.TIMESTAMP,
    date: ColumnType.TIMESTAMP,
    time: ColumnType.STRING,
    timedelta: ColumnType.STRING,
}


class Columns:
    """The columns known so far, in the order they were met, and their types."""

    def __init__(self) -> None:
        self._types: dict[str, ColumnType] = {}
        self._mixed: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The names in the order of the table."""
        return list(self._types)

    def learn(self, columns: dict[str, Sequence[object]]) -> bool:
        """Widen the types by these values; True if that changed what was known."""
        before = dict(self._types)
        for name, values in columns.items():
            old = self._types.get(name, ColumnType.NULL)
            found, cause = _type_of(values)
            new = joined(old, found)
            if cause or (new is ColumnType.STRING and {old, found} & NUMBERS):
                self._mixed[name] = cause or "mixes numbers and text and is stored as text"
            self._types[name] = new
        return before != self._types

    def batch(self, columns: dict[str, Sequence[object]], rows: int) -> Any:
        """The values as our types; columns that are known and not here are null."""
        nothing: Sequence[object] = [None] * rows
        types = list(self._types.values())
        arrays = [_array(columns.get(name, nothing), kind) for name, kind in self._types.items()]
        return pa.record_batch(arrays, schema=stored_schema(self.names, types))

    def warnings(self) -> list[DatasetWarning]:
        """Columns that became text because of single values."""
        return [
            DatasetWarning(DatasetWarningKind.MIXED_TYPES, name, f"Column {name!r} {what}.")
            for name, what in self._mixed.items()
        ]


class TypedReading:
    """Reads rows, with the types of the first batch; a second time, with the types of all, if these did not fit."""

    def __init__(self) -> None:
        self.columns = Columns()

    def batches(self, parts: Iterator[tuple[dict[str, Sequence[object]], int]]) -> Iterator[Any]:
        """Record batches of (columns, rows); raises Widened at the end of a reading that only learned in the end."""
        outdated = False
        for index, (columns, rows) in enumerate(parts):
            changed = self.columns.learn(columns)
            outdated = outdated or (changed and index > 0)
            if not outdated:
                yield self.columns.batch(columns, rows)
        if outdated:
            raise Widened


def _type_of(values: Sequence[object]) -> tuple[ColumnType, str]:
    """The narrowest type, and why it is text although it could have been numbers."""
    kinds = set(map(type, values)) - {type(None)}
    found = {_TYPES.get(kind, ColumnType.STRING) for kind in kinds}
    if found == {ColumnType.INT64} and not _in_int64(values):
        return ColumnType.STRING, "holds whole numbers beyond 64 bits; they are stored as text"
    if kinds == {str}:
        return _type_of_texts(values), ""
    if len(found) <= 1:
        return next(iter(found), ColumnType.NULL), ""
    if found == NUMBERS:
        return ColumnType.DOUBLE, ""
    return ColumnType.STRING, "mixes numbers and text and is stored as text" if found & NUMBERS else ""


def _in_int64(values: Sequence[object]) -> bool:
    numbers = [value for value in values if isinstance(value, int)]
    return min(numbers) in _INT64 and max(numbers) in _INT64


def _type_of_texts(values: Sequence[object]) -> ColumnType:
    """A time in ISO 8601 if all are, with a zone or all without."""
    zones = set()
    for value in values:
        if isinstance(value, str):
            iso = _ISO.fullmatch(value)
            if not iso:
                return ColumnType.STRING
            zones.add(bool(iso[4]))
    kind = ColumnType.ZONED if True in zones else ColumnType.TIMESTAMP
    if len(zones) > 1:
        return ColumnType.STRING
    try:
        _times(values, kind)
    except (pa.ArrowInvalid, ValueError):
        return ColumnType.STRING
    return kind


def _array(values: Sequence[object], kind: ColumnType) -> Any:
    if kind is ColumnType.STRING:
        return pa.array([None if value is None else _text(value) for value in values], pa.string())
    if kind in (ColumnType.TIMESTAMP, ColumnType.ZONED):
        return _times(values, kind)
    if kind is ColumnType.DOUBLE:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())  # type: ignore[arg-type]
    return pa.array(values, STORED_AS[kind.storage])


def _times(values: Sequence[object], kind: ColumnType) -> Any:
    if all(isinstance(value, str | None) for value in values):
        known = pa.timestamp("us", tz="UTC") if kind is ColumnType.ZONED else pa.timestamp("us")
        return pa.array(values, pa.string()).cast(known).cast(STORED_AS[kind.storage])
    return pa.array([None if value is None else _moment(value) for value in values], STORED_AS[kind.storage])


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    assert isinstance(value, date)  # noqa: S101 - the column's type says so
    return datetime(value.year, value.month, value.day, tzinfo=UTC)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)


def whole(value: object) -> object:
    """A number without a fraction as a whole one: Excel knows only floating point."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) <= _EXACT:
        return int(value)
    return value
