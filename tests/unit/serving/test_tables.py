"""Tables of requests: what does not fit is named, and what fits keeps its values."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.serving.layout import RawTable
from easyml_server.serving.tables import TableLimits, TableReader
from tests.unit.serving.requests import SIGNATURE, a_row, column, columns, rows, typed_columns, without

LIMITS = TableLimits(max_predict_rows=5, max_predict_cells=20, max_arrow_bytes=4096)
SECRET = "do not tell"


def read(request: pb.PredictRequest) -> RawTable:
    return TableReader(SIGNATURE, LIMITS).read(request)


def refused(request: pb.PredictRequest) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read(request)
    return caught.value


def column_of(table: RawTable, name: str) -> tuple[list[Any], list[int]]:
    position = [each.name for each in SIGNATURE.inputs].index(name)
    values, nulls = table.columns[position]
    return list(values), list(nulls)


def test_a_request_without_a_table_is_refused() -> None:
    error = refused(pb.PredictRequest())
    assert error.violations[0].field == "table"


@pytest.mark.parametrize("request_", [rows(), columns(count=0)], ids=["rows", "columns"])
def test_a_table_without_rows_is_refused(request_: pb.PredictRequest) -> None:
    error = refused(request_)
    assert error.reason is Reason.INVALID_FIELD
    assert "no rows" in error.message


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (rows(a_row(), a_row(beak=SECRET)), "rows.rows[1].beak"),
        (columns(column("beak", "strings", [SECRET, SECRET])), "columns.columns[5].name"),
    ],
    ids=["rows", "columns"],
)
def test_an_unknown_column_is_named_with_the_known_ones(request_: pb.PredictRequest, field: str) -> None:
    error = refused(request_)
    assert error.reason is Reason.UNKNOWN_COLUMN
    assert error.violations[0].field == field
    assert error.metadata == {"column": "beak"}
    assert "'beak'" in error.message
    assert "'size', 'age', 'city', 'member', 'since'" in error.message
    assert SECRET not in error.message


def test_long_and_strange_names_cannot_fill_an_error() -> None:
    error = refused(rows(a_row(**{"x\n\u202e" * 5000: 1})))
    assert len(error.message) < 1000
    assert "\n" not in error.message
    assert "\u202e" not in error.message
    assert len(error.violations[0].field) < 200
    assert len(error.metadata["column"]) <= 100


@pytest.mark.parametrize(
    "request_", [rows(without("age"), without("age")), columns(leave_out="age")], ids=["rows", "columns"]
)
def test_a_column_that_nobody_sent_is_missing(request_: pb.PredictRequest) -> None:
    error = refused(request_)
    assert error.reason is Reason.MISSING_COLUMN
    assert error.metadata == {"column": "age"}
    assert "'age'" in error.message


def test_a_table_without_columns_misses_all() -> None:
    error = refused(pb.PredictRequest(columns=table_pb2.ColumnTable()))
    assert error.reason is Reason.MISSING_COLUMN


def test_a_key_that_one_row_lacks_is_no_value() -> None:
    table = read(rows(a_row(), without("age"), a_row(age=None)))
    assert column_of(table, "age") == ([42, 0, 0], [1, 2])


def test_a_column_that_is_there_twice_is_refused() -> None:
    request = columns()
    request.columns.columns.add().CopyFrom(typed_columns()["age"])
    error = refused(request)
    assert error.reason is Reason.INVALID_FIELD
    assert error.violations[0].field == "columns.columns[5].name"


def test_a_column_without_values_is_refused() -> None:
    error = refused(columns(table_pb2.Column(name="age")))
    assert error.violations[0].field == "columns.columns[1].values"


def test_columns_of_different_lengths_are_refused() -> None:
    error = refused(columns(column("age", "int64s", [1, 2, 3])))
    assert error.violations[0].field == "columns.columns[1]"
    assert "3 values" in error.message


@pytest.mark.parametrize("nulls", [[2], [1, 0], [0, 0], [4_294_967_295]])
def test_null_positions_must_be_ascending_and_within_the_rows(nulls: list[int]) -> None:
    error = refused(columns(column("age", "int64s", [1, 2], nulls)))
    assert error.reason is Reason.INVALID_FIELD
    assert error.violations[0].field == "columns.columns[1].null_positions"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", SECRET),
        ("size", True),
        ("size", [1]),
        ("size", {"a": {"b": SECRET}}),
        ("age", SECRET),
        ("age", 2.5),
        ("age", math.inf),
        ("age", 1e19),
        ("age", False),
        ("city", 3),
        ("city", True),
        ("member", "true"),
        ("member", 1),
        ("since", 1_700_000_000),
        ("since", "yesterday"),
        ("since", "2024-02-30"),
        ("since", ""),
    ],
)
def test_a_cell_of_another_type_is_named_and_its_value_is_not(name: str, value: object) -> None:
    error = refused(rows(a_row(), a_row(**{name: value})))
    assert error.reason is Reason.WRONG_COLUMN_TYPE
    assert error.violations[0].field == f"rows.rows[1].{name}"
    assert error.metadata["column"] == name
    assert error.metadata["row"] == "1"
    assert SECRET not in error.message
    assert "yesterday" not in error.message


def test_a_cell_of_no_kind_is_refused() -> None:
    request = rows(a_row())
    request.rows.rows[0].fields["age"].Clear()
    assert refused(request).reason is Reason.WRONG_COLUMN_TYPE


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("size", "strings", [SECRET, ""]),
        ("size", "bools", [True, False]),
        ("size", "timestamps", [1, 2]),
        ("age", "strings", ["1", "2"]),
        ("age", "bools", [True, False]),
        ("city", "int64s", [1, 2]),
        ("member", "int64s", [0, 1]),
        ("member", "doubles", [0.0, 1.0]),
        ("since", "int64s", [1, 2]),
        ("since", "doubles", [1.0, 2.0]),
        ("since", "strings", ["2024-01-01", SECRET]),
        ("since", "strings", ["2024-01-01", ""]),
    ],
)
def test_a_column_of_another_type_is_named(name: str, kind: str, values: list[object]) -> None:
    error = refused(columns(column(name, kind, values)))
    assert error.reason is Reason.WRONG_COLUMN_TYPE
    assert error.violations[0].field.startswith("columns.columns[")
    assert error.metadata["column"] == name
    assert error.metadata["expected"]
    assert SECRET not in error.message


def test_texts_in_a_column_are_times_where_times_are_due() -> None:
    texts = ["1970-01-01", "1970-01-01T00:00:01+00:00", "no time, but no value either"]
    request = columns(column("since", "strings", texts, [2]), count=3)
    assert column_of(read(request), "since") == ([0, 1_000_000, 0], [2])


def test_a_text_that_is_no_time_is_named_with_its_row() -> None:
    error = refused(columns(column("since", "strings", ["2024-01-01", "yesterday"])))
    assert error.violations[0].field == "columns.columns[4].strings.values[1]"
    assert error.metadata == {"column": "since", "expected": "timestamp", "row": "1"}
    assert "2026-05-04T12:00:00Z" in error.message
    assert "yesterday" not in error.message


def test_a_misspelt_column_is_answered_with_the_one_that_was_meant() -> None:
    assert "did you mean 'member'?" in refused(rows(a_row(membre=True))).message


@pytest.mark.parametrize("value", [2.5, math.inf, -math.inf, 2.0**63, 1e300])
def test_only_whole_doubles_are_whole_numbers(value: float) -> None:
    error = refused(columns(column("age", "doubles", [1.0, value])))
    assert error.reason is Reason.WRONG_COLUMN_TYPE
    assert error.violations[0].field == "columns.columns[1].doubles.values[1]"
    assert error.metadata == {"column": "age", "expected": "int64", "row": "1"}


def test_whole_doubles_are_taken_for_whole_numbers_and_nan_is_no_value() -> None:
    request = columns(column("age", "doubles", [7.0, math.nan, 2.5], [2]), count=3)
    assert column_of(read(request), "age") == ([7, 0, 0], [1, 2])
    assert column_of(read(rows(a_row(age=-(2.0**63)), a_row(age=math.nan))), "age") == ([-(2**63), 0], [1])


def test_whole_numbers_are_taken_for_numbers() -> None:
    assert column_of(read(columns(column("size", "int64s", [7, 8]))), "size") == ([7, 8], [])


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2024-02-29T12:30:00.000001", datetime(2024, 2, 29, 12, 30, 0, 1, tzinfo=UTC)),
        ("2024-02-29T12:30:00+02:00", datetime(2024, 2, 29, 10, 30, tzinfo=UTC)),
        ("1969-12-31T23:59:59Z", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00+12:00", None),
    ],
)
def test_times_are_iso_8601_and_in_utc_without_a_zone(text: str, time: datetime | None) -> None:
    values, _ = column_of(read(rows(a_row(since=text))), "since")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    if time is not None:
        delta = time - epoch
        assert values == [delta.days * 86_400_000_000 + delta.seconds * 1_000_000 + delta.microseconds]


def test_both_forms_say_the_same() -> None:
    by_rows = read(rows(a_row(), a_row()))
    by_columns = read(columns())
    assert [(list(values), list(nulls)) for values, nulls in by_rows.columns] == [
        (list(values), list(nulls)) for values, nulls in by_columns.columns
    ]


@pytest.mark.parametrize("request_", [rows(*[a_row()] * 6), columns(count=6)], ids=["rows", "columns"])
def test_too_many_rows_are_refused_with_the_limit(request_: pb.PredictRequest) -> None:
    error = refused(request_)
    assert error.reason is Reason.TOO_LARGE
    assert error.metadata == {"limit": "EASYML_MAX_PREDICT_ROWS", "maximum": "5"}


@pytest.mark.parametrize("request_", [rows(*[a_row()] * 5), columns(count=5)], ids=["rows", "columns"])
def test_too_many_cells_are_refused_with_the_limit(request_: pb.PredictRequest) -> None:
    error = refused(request_)
    assert error.reason is Reason.TOO_LARGE
    assert error.metadata == {"limit": "EASYML_MAX_PREDICT_CELLS", "maximum": "20"}


def test_too_many_arrow_bytes_are_refused_with_the_limit() -> None:
    error = refused(pb.PredictRequest(arrow=b"x" * 4097))
    assert error.metadata == {"limit": "EASYML_MAX_ARROW_BYTES", "maximum": "4096"}


def test_millions_of_empty_elements_are_refused_by_their_number() -> None:
    error = refused(pb.PredictRequest.FromString(b"\x42\x80\x89\x7a" + b"\x0a\x00" * 1_000_000))
    assert error.metadata["limit"] == "EASYML_MAX_PREDICT_ROWS"
