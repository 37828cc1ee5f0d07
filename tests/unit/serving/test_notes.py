"""Notes say which cells were made up."""

from __future__ import annotations

import math

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.serving.layout import Layout
from easyml_server.serving.notes import MAX_NOTES, NULL_FILLED, UNSEEN_CATEGORY, Notes, NoteTaker
from easyml_server.serving.tables import TableLimits, TableReader
from tests.unit.serving.requests import SIGNATURE, a_row, column, columns, rows, without


def taken(request: pb.PredictRequest, signature: Signature = SIGNATURE) -> Notes | None:
    table = TableReader(signature, TableLimits()).read(request)
    return NoteTaker(signature).take(Layout(signature).prepare(table), table.rows)


def told(request: pb.PredictRequest, signature: Signature = SIGNATURE) -> list[tuple[int, str, int]]:
    notes = taken(request, signature)
    return [(note.row, note.column, note.kind) for note in notes.kept] if notes else []


def test_a_row_that_has_everything_needs_no_note() -> None:
    assert taken(rows(a_row(), a_row(city="Oslo"))) is None


def test_every_value_that_is_missing_is_noted_whether_the_column_was_complete_or_not() -> None:
    empty = dict.fromkeys(a_row())
    assert told(rows(a_row(), empty)) == [(1, column.name, NULL_FILLED) for column in SIGNATURE.inputs]
    assert told(rows(a_row(), without("age"))) == [(1, "age", NULL_FILLED)]
    assert told(columns(column("since", "timestamps", [0, 0], [1]))) == [(1, "since", NULL_FILLED)]


def test_numbers_that_a_model_cannot_take_are_filled_in_too() -> None:
    for value in (math.nan, math.inf, -math.inf, 1e39):
        assert told(rows(a_row(size=value))) == [(0, "size", NULL_FILLED)]


def test_a_category_that_was_never_seen_is_noted() -> None:
    assert told(rows(a_row(city="Rom"), a_row())) == [(0, "city", UNSEEN_CATEGORY)]


def test_an_empty_text_is_no_value() -> None:
    assert told(rows(a_row(city=""))) == [(0, "city", NULL_FILLED)]


def test_without_a_list_of_what_was_seen_nothing_is_unseen() -> None:
    signature = Signature(
        (SignatureColumn("city", StorageType.STRING, ColumnKind.CATEGORICAL, nullable=True),),
        "x",
        StorageType.DOUBLE,
    )
    assert told(rows({"city": "Rom"}, {"city": None}), signature) == [(1, "city", NULL_FILLED)]


def test_numbers_that_name_categories_are_looked_up_as_text() -> None:
    signature = Signature(
        (
            SignatureColumn("zone", StorageType.INT64, ColumnKind.CATEGORICAL, nullable=False, categories=("1", "2")),
            SignatureColumn(
                "rate", StorageType.DOUBLE, ColumnKind.CATEGORICAL, nullable=False, categories=("1", "2.5")
            ),
        ),
        "x",
        StorageType.DOUBLE,
    )
    assert told(rows({"zone": 2, "rate": 2.5}, {"zone": 3, "rate": 1}), signature) == [(1, "zone", UNSEEN_CATEGORY)]


def test_notes_are_in_the_order_of_rows_and_the_rest_is_counted() -> None:
    many = [a_row(size=None, city="Rom") for _ in range(MAX_NOTES)]
    notes = taken(rows(*many))
    assert notes is not None
    assert len(notes.kept) == MAX_NOTES
    assert notes.omitted == MAX_NOTES
    assert [(note.row, note.column) for note in notes.kept[:3]] == [(0, "size"), (0, "city"), (1, "size")]
