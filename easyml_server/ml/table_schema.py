"""What a table holds: counts, kinds, roles and statistics of its columns, and what to warn of.

It is found in one pass over our Parquet, some columns at a time, so that wide and long tables need little memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from easyml_server.domain.datasets import (
    ColumnKind,
    ColumnRole,
    ColumnSchema,
    DatasetWarning,
    DatasetWarningKind,
    StorageType,
    TableSchema,
)
from easyml_server.domain.statistics import FREQUENT_COLUMNS, SAMPLED_ROWS, ColumnStatistics, TableStatistics
from easyml_server.ml.column_statistics import NumberSummary, RowSample, TimeSummary
from easyml_server.ml.column_types import storage_of
from easyml_server.ml.distinct_values import DISTINCT_LIMIT, DistinctValues
from easyml_server.ml.parquet_writer import column_groups

_GROUP_COLUMNS = 64
_BATCH_ROWS = 1 << 16
_SAMPLE = 1_000
_UNIQUE_SHARE = 0.98
_FEWEST_IDENTIFIERS = 20
_FEW_CATEGORIES = 20
_CATEGORIES_SHARE = 0.5
_TEXT_BYTES = 100
_MIXED_SHARE = 0.05
_DENSE = 1.5
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_FORMULA = r"^(=|@|[+-][A-Za-z(])"
_IDENTIFIER_NAME = re.compile(r"(^|[^a-z])(id|uuid|guid|key|index|idx|unnamed: 0)$|[a-z](Id|ID|Key)$", re.IGNORECASE)


_COUNTED = {StorageType.STRING: DISTINCT_LIMIT, StorageType.BOOL: 2, StorageType.INT64: _FEW_CATEGORIES}
"""Up to so many different values of a type, occurrences are counted."""


def describe(path: Path) -> Description:
    """What our Parquet holds; the warnings are in the order of the columns."""
    with pq.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        # Made anew each time it is asked for, which takes a while where there are many columns.
        fields = file.schema_arrow
        found = [
            column
            for group in column_groups(fields.names, _GROUP_COLUMNS)
            for column in _read_columns(file, [fields.field(name) for name in group], rows)
        ]
    return Description(
        TableSchema(tuple(column.schema for column in found), rows),
        TableStatistics(_of_few_frequent([column.statistics for column in found]), min(rows, SAMPLED_ROWS)),
        [warning for column in found for warning in column.warnings],
    )


@dataclass(frozen=True, slots=True)
class Description:
    """What a table holds."""

    schema: TableSchema
    statistics: TableStatistics
    warnings: list[DatasetWarning]


@dataclass(frozen=True, slots=True)
class _Column:
    schema: ColumnSchema
    statistics: ColumnStatistics
    warnings: list[DatasetWarning]


def _read_columns(file: Any, fields: list[Any], rows: int) -> list[_Column]:
    summaries = [ColumnSummary(field.name, storage_of(field.type)) for field in fields]
    sample = RowSample(rows)
    for batch in file.iter_batches(_BATCH_ROWS, columns=[field.name for field in fields]):
        sampled = sample.of_next(len(batch))
        for summary in summaries:
            summary.add(batch.column(summary.name), sampled)
    return [_Column(each.schema(rows), each.statistics(), each.warnings(rows)) for each in summaries]


def _of_few_frequent(columns: list[ColumnStatistics]) -> tuple[ColumnStatistics, ...]:
    """Without the most frequent values of the columns after the first that have them."""
    having = [position for position, column in enumerate(columns) if column.frequent]
    for position in having[FREQUENT_COLUMNS:]:
        columns[position] = replace(columns[position], frequent=())
    return tuple(columns)


class ColumnSummary:
    """What is known of one column after the rows so far."""

    def __init__(self, name: str, storage: StorageType) -> None:
        self.name = name
        self._storage = storage
        self._values = 0
        self._nulls = 0
        self._distinct = DistinctValues(_COUNTED.get(storage, 0))
        self._unique = _Uniqueness() if storage in (StorageType.INT64, StorageType.STRING) else None
        self._numbers = NumberSummary() if storage in (StorageType.INT64, StorageType.DOUBLE) else None
        self._times = TimeSummary() if storage is StorageType.TIMESTAMP else None
        self._bytes = 0
        self._formula = False

    def add(self, column: Any, sampled: Any) -> None:
        """Take in the next rows; `sampled` are the positions of those in the sample, None for all."""
        rows = column
        self._nulls += column.null_count
        column = column.drop_null() if column.null_count else column
        if not len(column):
            return
        self._values += len(column)
        if self._numbers:
            self._numbers.add(column, column if sampled is None else rows.take(sampled).drop_null())
        if self._times:
            self._times.add(column)
        if self._storage is StorageType.STRING:
            self._add_text(column)
        values = self._distinct.add(column)
        if self._unique:
            self._unique.add(column, values)

    def _add_text(self, column: Any) -> None:
        self._bytes += pc.sum(pc.binary_length(column)).as_py()
        if not self._formula:
            self._formula = any(pc.any(pc.starts_with(column, sign)).as_py() for sign in "=@")

    def statistics(self) -> ColumnStatistics:
        """Of all rows that came."""
        texts = self._storage is StorageType.STRING and self._kind() is not ColumnKind.CATEGORICAL
        return ColumnStatistics(
            name=self.name,
            value_count=self._values,
            numbers=self._numbers.statistics() if self._numbers else None,
            times=self._times.statistics() if self._times else None,
            frequent=() if texts else self._distinct.most_frequent(),
        )

    def schema(self, rows: int) -> ColumnSchema:
        """What a caller sees of it."""
        role = ColumnRole.IDENTIFIER if self._is_identifier(rows) else ColumnRole.FEATURE
        return ColumnSchema(self.name, self._storage, self._kind(), role, self._nulls, self._distinct.count)

    def warnings(self, rows: int) -> list[DatasetWarning]:
        """What to tell people of it, without values of cells."""
        found = {
            DatasetWarningKind.ALL_NULL: not self._values and "holds no value at all",
            DatasetWarningKind.CONSTANT: self._distinct.count == 1 and not self._nulls and "holds one value only",
            DatasetWarningKind.IDENTIFIER_LIKE: self._is_identifier(rows)
            and "is different in (nearly) every row, so it was given the role of an identifier",
            DatasetWarningKind.INFINITE_VALUES: bool(self._numbers and self._numbers.infinite_count)
            and "holds infinite numbers, which models treat as missing",
            DatasetWarningKind.MIXED_TYPES: self._is_mixed() and "mixes numbers and text and is stored as text",
            DatasetWarningKind.FORMULA: self._holds_formula()
            and "holds texts that begin like formulas of a spreadsheet; they are kept as text",
        }
        return [
            DatasetWarning(kind, self.name, f"Column {self.name!r} {what}.") for kind, what in found.items() if what
        ]

    def _kind(self) -> ColumnKind:
        match self._storage:
            case StorageType.BOOL:
                return ColumnKind.BOOLEAN
            case StorageType.TIMESTAMP:
                return ColumnKind.DATETIME
            case StorageType.STRING:
                return ColumnKind.CATEGORICAL if self._repeats() else ColumnKind.TEXT
            case _:
                return ColumnKind.NUMERIC

    def _repeats(self) -> bool:
        distinct = self._distinct.count
        if self._bytes > _TEXT_BYTES * max(self._values, 1):
            return False
        return distinct <= _FEW_CATEGORIES or distinct <= min(DISTINCT_LIMIT, _CATEGORIES_SHARE * self._values)

    def _is_identifier(self, rows: int) -> bool:
        if rows < _FEWEST_IDENTIFIERS or self._unique is None or self._values < _UNIQUE_SHARE * rows:
            return False
        if self._distinct.exact and self._distinct.count < _UNIQUE_SHARE * self._values:
            return False
        if self._storage is StorageType.STRING:
            return self._unique.holds and self._bytes <= _TEXT_BYTES * self._values
        # Amounts are often unique too: whole numbers are names only if they count rows or are called so.
        counting = self._unique.ordered or self._unique.span <= _DENSE * rows
        return self._unique.holds and (counting or bool(_IDENTIFIER_NAME.search(self.name)))

    def _is_mixed(self) -> bool:
        if self._storage is not StorageType.STRING or not self._values:
            return False
        numbers, others = self._distinct.matches(_NUMBER)
        return others > 0 and numbers >= max(1, _MIXED_SHARE * (numbers + others))

    def _holds_formula(self) -> bool:
        return self._formula or (self._storage is StorageType.STRING and self._distinct.matches(_FORMULA)[0] > 0)


class _Uniqueness:
    """Whether values (nearly) never repeat: counted within each batch, and a sample sought in the later ones."""

    def __init__(self) -> None:
        self._rows = 0
        self._different = 0
        self._sample: Any = None
        self._met_again = 0
        self._last: int | None = None
        self._bounds: tuple[int, int] | None = None
        self.ordered = True

    @property
    def holds(self) -> bool:
        """Whether it may still be so."""
        few_again = self._met_again <= (1 - _UNIQUE_SHARE) * _SAMPLE
        return few_again and self._different >= _UNIQUE_SHARE * self._rows

    @property
    def span(self) -> int:
        """How many whole numbers lie from the smallest to the largest."""
        return self._bounds[1] - self._bounds[0] + 1 if self._bounds else 0

    def add(self, column: Any, different: int | None) -> None:
        """Take in values, of which so many are different if that is known already."""
        if not self.holds:
            return
        self._rows += len(column)
        self._different += pc.count_distinct(column).as_py() if different is None else different
        if self._sample is None:
            self._sample = column.slice(0, _SAMPLE)
        else:
            self._met_again += pc.sum(pc.is_in(column, value_set=self._sample)).as_py()
        if pa.types.is_integer(column.type):
            self._add_numbers(column)

    def _add_numbers(self, column: Any) -> None:
        least, most = pc.min_max(column).as_py().values()
        self._bounds = (min(least, self._bounds[0]), max(most, self._bounds[1])) if self._bounds else (least, most)
        if self.ordered:
            numbers = column.to_numpy()
            rising = bool((numbers[1:] > numbers[:-1]).all()) and (self._last is None or numbers[0] > self._last)
            self.ordered = rising
            self._last = int(numbers[-1])
