from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyml.v1 import table_pb2
from easyml_client import errors, tables

NOON = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)


def column(table: Any, name: str) -> table_pb2.Column:
    wire = tables.to_wire(table)
    assert isinstance(wire, table_pb2.ColumnTable)
    return next(column for column in wire.columns if column.name == name)


@pytest.mark.parametrize("rows", [[], {}, {"a": []}, [{}]])
def test_a_table_without_rows_is_refused(rows: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="There are no rows"):
        tables.to_wire(rows)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="different lengths"):
        tables.to_wire({"a": [1, 2], "b": [1]})


def test_rows_that_are_no_objects_are_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="list of dicts"):
        tables.to_wire([[1, 2]])


def test_a_value_without_a_type_on_the_wire_is_named() -> None:
    with pytest.raises(errors.InvalidInput, match="a is a complex"):
        tables.to_wire([{"a": 1j}])


@pytest.mark.parametrize("row", [{"a": 2**53 + 1, "b": None}, {"a": 2**63 + 1}, {"a": 10**400}])
def test_a_number_that_would_arrive_as_another_one_is_refused(row: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="too large"):
        tables.to_wire([row])


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1, 2], "int64s"),
        ([2**63 - 1, -(2**63)], "int64s"),
        ([1, 2.5], "doubles"),
        ([1.0, float("inf")], "doubles"),
        ([True, False], "bools"),
        (["a", "b"], "strings"),
        ([NOON, dt.date(2026, 5, 4)], "timestamps"),
        (np.array([1, 2], dtype=np.int8), "int64s"),
        (np.array([0.5, 2], dtype=np.float32), "doubles"),
        ([np.bool_(True), False], "bools"),
        ([np.str_("a"), "b"], "strings"),
    ],
)
def test_columns_are_typed_by_their_values(cells: Any, kind: str) -> None:
    assert column({"a": cells}, "a").WhichOneof("values") == kind


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_what_is_missing_is_a_null_position(missing: Any) -> None:
    found = column([{"a": 1}, {"a": missing}, {}], "a")
    assert (list(found.int64s.values), list(found.null_positions)) == ([1, 0, 0], [1, 2])


@pytest.mark.parametrize("cells", [[None, None], [1, "a"], [True, 1]])
def test_a_column_without_one_type_makes_rows_of_the_table(cells: list[Any]) -> None:
    wire = tables.to_wire({"a": cells, "b": [NOON, NOON]})
    assert isinstance(wire, table_pb2.RowTable)
    assert wire.rows[0].fields["b"].string_value == "2026-05-04T12:00:00+00:00"


def test_a_dict_of_single_values_is_one_row() -> None:
    wire = tables.to_wire({"age": 39, "plan": "basic"})
    assert isinstance(wire, table_pb2.ColumnTable)
    assert tables.rows_of(wire) == [{"age": 39, "plan": "basic"}]


def test_a_data_frame_keeps_its_columns() -> None:
    frame = pd.DataFrame(
        {
            "age": pd.array([39, None], dtype="Int64"),
            "plan": pd.Categorical(["basic", None]),
            "since": pd.to_datetime(["2026-05-04", None]),
            7: [0.5, float("nan")],
        }
    )
    wire = tables.to_wire(frame)
    assert isinstance(wire, table_pb2.ColumnTable)
    assert tables.rows_of(wire) == [
        {"age": 39, "plan": "basic", "since": dt.datetime(2026, 5, 4, tzinfo=dt.UTC), "7": 0.5},
        {"age": None, "plan": None, "since": None, "7": None},
    ]


_CELLS = [
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.datetimes(timezones=st.just(dt.UTC)),
]


@given(st.one_of([st.lists(st.none() | cell, min_size=1).filter(any) for cell in _CELLS]))
def test_what_goes_over_the_wire_comes_back(cells: list[Any]) -> None:
    wire = tables.to_wire({"a": cells})
    assert isinstance(wire, table_pb2.ColumnTable)
    received = table_pb2.ColumnTable.FromString(wire.SerializeToString())
    assert tables.columns_of(received) == {"a": cells}
