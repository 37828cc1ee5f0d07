"""What the columns of a table hold, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

SAMPLED_ROWS = 65_536
"""Rows that quartiles are found from; of longer tables as many, drawn evenly over all of it."""
FREQUENT_VALUES = 10
FREQUENT_COLUMNS = 1_000
"""Of so many columns at most, the first ones, the most frequent values are kept, or they would fill an answer."""
SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Quartiles:
    """A quarter, half and three quarters of the values are at most these."""

    lower: float
    median: float
    upper: float


@dataclass(frozen=True, slots=True)
class NumberStatistics:
    """Of the finite numbers of a column; what has no value is None, and what comes of numbers too large to be added up.

    `deviation` is the sample standard deviation (divided by n - 1). `quartiles` lie between neighbours where they must
    (linear), and come from the table's sample.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    deviation: float | None
    quartiles: Quartiles | None
    infinite_count: int


@dataclass(frozen=True, slots=True)
class TimeStatistics:
    """The first and the last point in time; None where the years 1 to 9999 do not hold it."""

    earliest: datetime | None
    latest: datetime | None


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value as text, a long one cut, and the rows that hold it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """One column; `value_count` are its rows with a value.

    `frequent` are the most frequent values, of a column of few: categories, truth values, and whole numbers of at most
    20 different ones.
    """

    name: str
    value_count: int
    numbers: NumberStatistics | None = None
    times: TimeStatistics | None = None
    frequent: tuple[ValueCount, ...] = ()


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """All columns in the order of the table; quartiles come from `sampled_rows` rows."""

    columns: tuple[ColumnStatistics, ...]
    sampled_rows: int
