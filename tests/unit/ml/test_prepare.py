"""What is missing, odd or infinite in cells, and what the pipeline gets to see of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.ml.prepare import DATE_PARTS, Cells, cells_of, graph_inputs, prepare, prepare_cells, text_of

NAN = float("nan")


def a_column(name: str, storage_type: StorageType, kind: ColumnKind = ColumnKind.NUMERIC) -> SignatureColumn:
    return SignatureColumn(name, storage_type, kind, nullable=True)


def prepared(values: Any, storage_type: StorageType, kind: ColumnKind = ColumnKind.NUMERIC) -> pd.DataFrame:
    signature = Signature((a_column("x", storage_type, kind),), "y", StorageType.DOUBLE)
    return prepare(pd.DataFrame({"x": values}), signature)


@pytest.mark.parametrize("odd", [None, NAN, float("inf"), float("-inf"), 1e39, -1e39])
def test_a_number_that_is_missing_infinite_or_too_large_is_nan(odd: float | None) -> None:
    assert_array_equal(prepared([1.5, odd], StorageType.DOUBLE)["x"], [1.5, NAN])


@pytest.mark.parametrize("dtype", ["Int64", "float64", "object"])
def test_whole_numbers_are_the_same_whatever_pandas_made_of_them(dtype: str) -> None:
    column = pd.Series([3, None, -4]).astype(dtype)
    assert_array_equal(prepared(column, StorageType.INT64)["x"], [3.0, NAN, -4.0])


@pytest.mark.parametrize("dtype", ["object", "string", "str", "category"])
def test_text_is_the_same_whatever_pandas_made_of_it(dtype: str) -> None:
    column = pd.Series(["Oslo", None, "Łódź"], dtype=dtype)
    result = prepared(column, StorageType.STRING, ColumnKind.CATEGORICAL)["x"]
    assert result.tolist() == ["Oslo", "", "Łódź"]
    assert result.dtype == object


@pytest.mark.parametrize("dtype", ["object", "boolean"])
def test_truths_become_ones_zeros_and_nan(dtype: str) -> None:
    column = pd.Series([True, False, None], dtype=dtype)
    assert_array_equal(prepared(column, StorageType.BOOL, ColumnKind.BOOLEAN)["x"], [1.0, 0.0, NAN])


def test_numbers_said_to_be_boolean_are_zero_or_one() -> None:
    assert_array_equal(prepared([0, 7, None], StorageType.INT64, ColumnKind.BOOLEAN)["x"], [0.0, 1.0, NAN])


def test_numbers_said_to_be_categories_become_text_that_does_not_depend_on_their_type() -> None:
    whole = prepared([3, None, 20], StorageType.INT64, ColumnKind.CATEGORICAL)["x"].tolist()
    broken = prepared([3.0, NAN, 20.0], StorageType.DOUBLE, ColumnKind.CATEGORICAL)["x"].tolist()
    assert whole == broken == ["3", "", "20"]


def test_whole_numbers_keep_all_their_digits_as_categories() -> None:
    column = pd.Series([2**60 + 1, None], dtype="Int64")
    assert prepared(column, StorageType.INT64, ColumnKind.CATEGORICAL)["x"].tolist() == [str(2**60 + 1), ""]


def test_the_parts_of_a_date() -> None:
    times = [datetime(2024, 2, 29, 13, 59, tzinfo=UTC), None, datetime(1969, 12, 31, tzinfo=UTC)]
    frame = prepared(times, StorageType.TIMESTAMP, ColumnKind.DATETIME)
    assert list(frame.columns) == [f"x.{part}" for part in DATE_PARTS]
    assert frame.iloc[0].tolist() == [2024, 2, 29, 3, 13, 19782]
    assert frame.iloc[1].isna().all()
    assert frame.iloc[2].tolist() == [1969, 12, 31, 2, 0, -1]


@given(st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), min_size=1))  # noqa: DTZ001
def test_the_parts_of_any_date_are_those_of_the_calendar(times: list[datetime]) -> None:
    times = [time.replace(tzinfo=UTC) for time in times]
    frame = prepared(times, StorageType.TIMESTAMP, ColumnKind.DATETIME)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [(t.year, t.month, t.day, t.weekday(), t.hour, (t - epoch) // timedelta(days=1)) for t in times]
    assert frame.to_numpy().tolist() == [list(map(float, parts)) for parts in expected]


def test_a_time_of_another_zone_counts_in_utc() -> None:
    column = pd.Series(pd.to_datetime(["2024-01-01T01:30:00+02:00"]))
    frame = prepared(column, StorageType.TIMESTAMP, ColumnKind.DATETIME)
    assert frame["x.day"].tolist() == [31]
    assert frame["x.hour"].tolist() == [23]


def test_the_part_of_a_date_gives_way_to_a_column_of_its_name() -> None:
    inputs = (
        a_column("x", StorageType.TIMESTAMP, ColumnKind.DATETIME),
        a_column("x.year", StorageType.DOUBLE),
        a_column("x.year_", StorageType.DOUBLE),
    )
    frame = pd.DataFrame({"x": [datetime(2020, 1, 1, tzinfo=UTC)], "x.year": [1.0], "x.year_": [2.0]})
    result = prepare(frame, Signature(inputs, "y", StorageType.DOUBLE))
    assert result["x.year__"].tolist() == [2020]
    assert result["x.year"].tolist() == [1.0]


def test_further_columns_are_ignored_and_the_order_is_that_of_the_signature() -> None:
    inputs = (a_column("b", StorageType.INT64), a_column("a", StorageType.INT64))
    frame = pd.DataFrame({"a": [1], "more": ["?"], "b": [2]}, index=[9])
    result = prepare(frame, Signature(inputs, "y", StorageType.DOUBLE))
    assert list(result.columns) == ["b", "a"]
    assert result.index.tolist() == [9]


def test_a_missing_column_is_an_error() -> None:
    with pytest.raises(KeyError):
        prepare(pd.DataFrame({"a": [1]}), Signature((a_column("x", StorageType.INT64),), "y", StorageType.DOUBLE))


def test_no_rows_give_no_rows() -> None:
    for storage_type in StorageType:
        signature = Signature((a_column("x", storage_type, ColumnKind.CATEGORICAL),), "y", StorageType.DOUBLE)
        frame = pd.DataFrame(
            {"x": pd.Series([], dtype="datetime64[us, UTC]" if storage_type == "timestamp" else object)}
        )
        assert len(prepare(frame, signature)) == 0


def test_cells_without_pandas_give_the_same_as_a_frame() -> None:
    """As a model server does it, straight from the arrays of a request."""
    frame = pd.DataFrame({"x": pd.Series([5, None], dtype="Int64")})
    signature = Signature((a_column("x", StorageType.INT64),), "y", StorageType.DOUBLE)
    cells = {"x": Cells(np.array([5, 99]), np.array([False, True]))}
    assert_array_equal(prepare_cells(cells, signature)["x"], prepare(frame, signature)["x"])
    assert_array_equal(cells_of(frame["x"], StorageType.INT64).missing, [False, True])


def test_graph_inputs_are_tensors_of_one_column_in_order() -> None:
    columns = {"n": np.array([1.0, NAN]), "t": np.array(["a", ""], dtype=object)}
    tensors = graph_inputs(columns, [("first", "tensor(float)"), ("second", "tensor(string)")])
    assert tensors["first"].dtype == np.float32
    assert tensors["first"].shape == tensors["second"].shape == (2, 1)
    assert graph_inputs({"n": columns["n"]}, [("n", "tensor(double)")])["n"].dtype == np.float64


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (3.0, "3"),
        (2.5, "2.5"),
        ("x", "x"),
        (-1e20, "-100000000000000000000"),
    ],
)
def test_the_text_of_a_class(value: Any, text: str) -> None:
    assert text_of(value) == text
