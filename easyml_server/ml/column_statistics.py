"""Statistics of columns, gathered batch by batch in the pass that describes a table."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.random import default_rng
from numpy.typing import NDArray

from easyml_server.domain.statistics import SAMPLED_ROWS, NumberStatistics, Quartiles, TimeStatistics

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Numbers = NDArray[np.float64]


class RowSample:
    """The rows that quartiles are found from: all, or of each batch its share, drawn by chance.

    By chance, since each hundredth row of a table with a rhythm may always be the same hour of the day. The seed is the
    number of rows, so that a table gives the same statistics again.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._passed = 0
        self._random = default_rng(rows)

    def of_next(self, length: int) -> Any:
        """Positions in the next batch; None for all."""
        before, self._passed = self._passed, self._passed + length
        if self._rows <= SAMPLED_ROWS:
            return None
        share = self._passed * SAMPLED_ROWS // self._rows - before * SAMPLED_ROWS // self._rows
        return np.sort(self._random.choice(length, share, replace=False, shuffle=False))


class NumberSummary:
    """What is known of a column's numbers after the rows so far; means and deviations of batches are joined exactly."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._least, self._most = math.inf, -math.inf
        self._sampled: list[Numbers] = []
        self.infinite_count = 0

    def add(self, column: Any, sampled: Any) -> None:
        """Take in values without nulls, and those of them that are in the sample."""
        numbers = _as_numbers(column)
        least, most = _bounds(numbers)
        if not (math.isfinite(least) and math.isfinite(most)):
            self.infinite_count += int(np.isinf(numbers).sum())
            numbers = _finite(numbers)
            if not len(numbers):
                return
            least, most = _bounds(numbers)
        self._sampled.append(numbers if sampled is column else _finite(_as_numbers(sampled)))
        self._least, self._most = min(self._least, least), max(self._most, most)
        # What is too large to be added up becomes infinite or NaN, and is then told as not known.
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(numbers.sum()) / len(numbers)
            apart = numbers - mean
            self._join(len(numbers), mean, float(apart @ apart))

    def _join(self, count: int, mean: float, squares: float) -> None:
        total = self._count + count
        step = mean - self._mean
        self._mean += step * (count / total)
        self._squares += squares + step * step * (self._count * (count / total))
        self._count = total

    def statistics(self) -> NumberStatistics:
        """Of all rows that came."""
        if not self._count:
            return NumberStatistics(None, None, None, None, None, self.infinite_count)
        deviation = math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else math.nan
        return NumberStatistics(
            self._least,
            self._most,
            _known(self._mean),
            _known(deviation),
            _quartiles(np.concatenate(self._sampled)),
            self.infinite_count,
        )


class TimeSummary:
    """The first and the last of a column's points in time."""

    def __init__(self) -> None:
        self._bounds: tuple[int, int] | None = None

    def add(self, column: Any) -> None:
        """Take in values without nulls."""
        found = pc.min_max(column)
        least, most = found["min"].value, found["max"].value
        self._bounds = (min(least, self._bounds[0]), max(most, self._bounds[1])) if self._bounds else (least, most)

    def statistics(self) -> TimeStatistics:
        """Of all rows that came."""
        if self._bounds is None:
            return TimeStatistics(None, None)
        return TimeStatistics(*map(_time, self._bounds))


def _as_numbers(column: Any) -> Numbers:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _bounds(numbers: Numbers) -> tuple[float, float]:
    """NaN where one of them is."""
    return float(numbers.min()), float(numbers.max())


def _finite(numbers: Numbers) -> Numbers:
    return numbers[np.isfinite(numbers)]


def _quartiles(sampled: Numbers) -> Quartiles | None:
    if not len(sampled):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        lower, median, upper = np.quantile(sampled, (0.25, 0.5, 0.75)).tolist()
    return Quartiles(lower, median, upper) if all(map(math.isfinite, (lower, median, upper))) else None


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _time(microseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
