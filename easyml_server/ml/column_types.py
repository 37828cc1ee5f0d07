"""The types that columns are found to have while a file is read, and how they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import pyarrow as pa

from easyml_server.domain.datasets import StorageType


class ColumnType(StrEnum):
    """What all values of a column seen so far fit in."""

    NULL = "null"
    BOOL = "bool"
    INT64 = "int64"
    DOUBLE = "double"
    TIMESTAMP = "timestamp"
    ZONED = "zoned"
    STRING = "string"

    @property
    def storage(self) -> StorageType:
        """How it is stored; a column without any value as numbers, which is what missing ones mostly are."""
        return _STORAGE[self]


class Widened(Exception):
    """A value did not fit its column's type; the file is to be read again with the reader's new types."""


_STORAGE = {
    ColumnType.NULL: StorageType.DOUBLE,
    ColumnType.BOOL: StorageType.BOOL,
    ColumnType.INT64: StorageType.INT64,
    ColumnType.DOUBLE: StorageType.DOUBLE,
    ColumnType.TIMESTAMP: StorageType.TIMESTAMP,
    ColumnType.ZONED: StorageType.TIMESTAMP,
    ColumnType.STRING: StorageType.STRING,
}
# The spellings of a missing value that R, pandas and spreadsheets write.
NULL_SPELLINGS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
NUMBERS = frozenset({ColumnType.INT64, ColumnType.DOUBLE})
STORED_AS: dict[StorageType, Any] = {
    StorageType.INT64: pa.int64(),
    StorageType.DOUBLE: pa.float64(),
    StorageType.STRING: pa.string(),
    StorageType.BOOL: pa.bool_(),
    StorageType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}


def joined(one: ColumnType, other: ColumnType) -> ColumnType:
    """The narrowest type that holds the values of both; text holds everything."""
    if one is other or other is ColumnType.NULL:
        return one
    if one is ColumnType.NULL:
        return other
    return ColumnType.DOUBLE if {one, other} == NUMBERS else ColumnType.STRING


def stored_schema(names: Sequence[str], types: Sequence[ColumnType]) -> Any:
    """The Arrow schema of our Parquet for these columns."""
    return pa.schema([pa.field(name, STORED_AS[kind.storage]) for name, kind in zip(names, types, strict=True)])


def storage_of(arrow_type: Any) -> StorageType:
    """Which of the five types a column of our Parquet has."""
    return next(storage for storage, stored in STORED_AS.items() if stored.equals(arrow_type))
