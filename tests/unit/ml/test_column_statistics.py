"""Statistics of columns, held against what pandas and the standard library say of the same values."""

from __future__ import annotations

import datetime as dt
import io
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyml_server.domain.datasets import FileFormat
from easyml_server.domain.statistics import (
    FREQUENT_COLUMNS,
    SAMPLED_ROWS,
    ColumnStatistics,
    NumberStatistics,
    TableStatistics,
    ValueCount,
)
from easyml_server.ml.column_statistics import NumberSummary
from easyml_server.ml.table_schema import describe
from easyml_server.trainers import codec
from tests.unit.ml.tables_helper import Reader

LONG = 3 * SAMPLED_ROWS


def described(folder: Path, columns: dict[str, Any]) -> TableStatistics:
    """Of a table as the converter stores it."""
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path)
    return describe(path).statistics


def of(folder: Path, values: Any) -> ColumnStatistics:
    (column,) = described(folder, {"a": values}).columns
    return column


def numbers_of(folder: Path, values: Any) -> NumberStatistics:
    found = of(folder, values).numbers
    assert found is not None
    return found


@pytest.mark.parametrize("values", [[float("inf"), float("-inf"), None], [None], []], ids=["infinite", "null", "none"])
def test_where_no_number_is_finite_nothing_is_said_of_numbers(tmp_path: Path, values: list[float | None]) -> None:
    found = numbers_of(tmp_path, pa.array(values, pa.float64()))
    infinite = sum(value is not None for value in values)
    assert found == NumberStatistics(None, None, None, None, None, infinite)


def test_infinite_numbers_and_nan_are_left_out_and_the_infinite_counted(tmp_path: Path) -> None:
    found = of(tmp_path, pa.array([1.0, float("inf"), float("nan"), 3.0, None, float("-inf")], pa.float64()))
    assert found.value_count == 5
    assert found.numbers is not None
    assert (found.numbers.minimum, found.numbers.maximum, found.numbers.mean) == (1.0, 3.0, 2.0)
    assert found.numbers.infinite_count == 2


def test_numbers_too_large_to_be_added_up_have_no_mean_and_no_deviation(tmp_path: Path) -> None:
    found = numbers_of(tmp_path, [1.5e308, 1.7e308, 1.6e308])
    assert (found.minimum, found.maximum, found.mean, found.deviation) == (1.5e308, 1.7e308, None, None)
    assert found.quartiles is not None
    assert found.quartiles.median == 1.6e308


def test_of_one_number_there_is_no_deviation(tmp_path: Path) -> None:
    found = numbers_of(tmp_path, [4])
    assert (found.minimum, found.mean, found.deviation) == (4.0, 4.0, None)


@pytest.mark.parametrize("whole", [True, False])
def test_numbers_are_what_pandas_says(tmp_path: Path, whole: bool) -> None:
    chance = np.random.default_rng(5)
    values = pd.Series(chance.normal(1e6, 10, 40_000))
    values = values.round().astype("int64") if whole else values.where(values.index % 7 != 0)
    found = numbers_of(tmp_path, pa.array(values, from_pandas=True))
    said = values.describe()
    assert found.minimum == said["min"]
    assert found.maximum == said["max"]
    assert found.mean == pytest.approx(said["mean"], rel=1e-12)
    assert found.deviation == pytest.approx(said["std"], rel=1e-9)
    assert found.quartiles is not None
    quartiles = (found.quartiles.lower, found.quartiles.median, found.quartiles.upper)
    assert quartiles == pytest.approx(tuple(said[["25%", "50%", "75%"]]), rel=1e-12)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), min_size=1, max_size=6))
def test_batches_are_joined_as_if_they_had_been_one(batches: list[list[float]]) -> None:
    summary = NumberSummary()
    for batch in map(pa.array, batches):
        summary.add(batch, batch)
    everything = [value for batch in batches for value in batch]
    found = summary.statistics()
    assert found.mean == pytest.approx(statistics.fmean(everything), abs=1e-6)
    if len(everything) > 1:
        assert found.deviation == pytest.approx(statistics.stdev(everything), abs=1e-5)


def test_quartiles_of_a_long_table_come_from_a_sample_and_the_rest_from_all(tmp_path: Path) -> None:
    # A rhythm of 24 rows, and the largest value once.
    hours = np.arange(LONG) % 24
    trend = np.arange(LONG, dtype=np.float64)
    found = described(tmp_path, {"hour": hours, "trend": trend})
    assert found.sampled_rows == SAMPLED_ROWS
    hour, rising = (column.numbers for column in found.columns)
    assert hour is not None
    assert hour.quartiles is not None
    assert rising is not None
    assert rising.quartiles is not None
    assert abs(hour.quartiles.median - 11.5) <= 0.5
    assert (rising.maximum, rising.mean) == (LONG - 1, pytest.approx((LONG - 1) / 2))
    # Drawn by chance evenly: half of the sample is below within 5 standard errors.
    assert rising.quartiles.median == pytest.approx(LONG / 2, abs=5 * 0.5 / math.sqrt(SAMPLED_ROWS) * LONG)
    assert described(tmp_path, {"hour": hours, "trend": trend}) == found


def test_times_have_a_first_and_a_last(tmp_path: Path) -> None:
    first, last = (dt.datetime(year, 2, 28, 1, 2, 3, 4, dt.UTC) for year in (1923, 2031))
    found = of(tmp_path, pa.array([last, None, first, last], pa.timestamp("us", tz="UTC")))
    assert found.times is not None
    assert (found.times.earliest, found.times.latest, found.value_count) == (first, last, 3)


def test_a_time_that_no_calendar_has_is_not_said(tmp_path: Path) -> None:
    found = of(tmp_path, pa.array([0, 2**62], pa.timestamp("us", tz="UTC")))
    assert found.times is not None
    assert (found.times.earliest, found.times.latest) == (dt.datetime(1970, 1, 1, tzinfo=dt.UTC), None)


@pytest.mark.parametrize("rows", [1_000, LONG])
def test_frequent_values_are_counted_over_all_rows(tmp_path: Path, rows: int) -> None:
    chance = np.random.default_rng(3)
    values = [f"city {number}" for number in np.minimum(chance.geometric(0.2, rows), 40)]
    expected = sorted(Counter(values).items(), key=lambda each: (-each[1], each[0]))[:10]
    found = of(tmp_path, values)
    assert [(each.value, each.count) for each in found.frequent] == expected


def test_of_equally_frequent_values_those_first_in_order_are_kept(tmp_path: Path) -> None:
    found = of(tmp_path, [letter for letter in "nmlkjihgfedcba" for _ in range(3)])
    assert "".join(each.value for each in found.frequent) == "abcdefghij"


@pytest.mark.parametrize(
    ("values", "frequent"),
    [
        ([True, False, None, False], (ValueCount("false", 2), ValueCount("true", 1))),
        ([1, 0, 0, 1, 0], (ValueCount("0", 3), ValueCount("1", 2))),
        (list(range(21)) * 2, ()),
        ([0.5, 0.5], ()),
        ([f"comment {number}" for number in range(100)], ()),
        (pa.array([None, None], pa.string()), ()),
        (["x" * 61, "a\0b"] * 2, (ValueCount("a\N{REPLACEMENT CHARACTER}b", 2), ValueCount("x" * 60 + "…", 2))),
        (["y" * 300] + ["b"] * 30, ()),
    ],
    ids=["booleans", "classes", "many whole numbers", "doubles", "free text", "nulls", "odd texts", "long texts"],
)
def test_only_what_is_of_few_values_has_frequent_ones(
    tmp_path: Path, values: Any, frequent: tuple[ValueCount, ...]
) -> None:
    assert of(tmp_path, values).frequent == frequent


def test_of_very_many_columns_the_first_ones_keep_their_frequent_values(tmp_path: Path) -> None:
    found = described(tmp_path, {f"c{number}": [True] for number in range(FREQUENT_COLUMNS + 5)}).columns
    assert [bool(column.frequent) for column in found] == [True] * FREQUENT_COLUMNS + [False] * 5


def test_a_worker_tells_them_to_the_server_as_they_are(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    times = pa.array([0, 1, None], pa.timestamp("us"))
    pq.write_table(pa.table({"x": [1.5, float("inf"), None], "y": ["ü", "b", "b"], "t": times}), buffer)
    converted = Reader(tmp_path, FileFormat.PARQUET)(buffer.getvalue()).converted
    assert codec.decode_converted(codec.encode_converted(converted)) == converted
    assert [column.name for column in converted.statistics.columns] == ["x", "y", "t"]
