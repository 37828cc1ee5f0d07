"""Rows as callers send them to a model: each oddity is named, or noted, and never a silent wrong number."""

from __future__ import annotations

from typing import Any

import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml.v1 import training_service_pb2 as trainings
from tests.builders import a_project_of, a_training, upload
from tests.servers import Client, refusal

A_ROW: dict[str, Any] = {"size": 1.5, "age": 40, "city": "Oslo", "member": True}
NULL_FILLED, UNSEEN = pb.CELL_NOTE_KIND_NULL_FILLED, pb.CELL_NOTE_KIND_UNSEEN_CATEGORY
NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def version_id(owner: Client) -> str:
    """A model with an input of each type; `size` and `city` had missing values when it was trained."""
    lines = ["size,age,city,member,y"]
    for number in range(80):
        size = "" if number % 11 == 0 else f"{number % 7 + 0.5}"
        city = "" if number % 13 == 0 else ("Oslo", "Rome", "Bern")[number % 3]
        lines.append(f"{size},{20 + number % 40},{city},{'true' if number % 2 else 'false'},{'ab'[number % 7 > 3]}")
    project_id = a_project_of(owner)
    dataset = upload(owner, project_id, "\n".join([*lines, ""]).encode())
    request = a_training(project_id, dataset.id, algorithm="logistic_regression")
    started = owner.trainings.StartTraining(request).experiment
    *_, last = owner.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id))
    return str(last.event.finished.model_version_id)


def rows(version_id: str, *sent: dict[str, Any]) -> pb.PredictRequest:
    request = pb.PredictRequest(model_version_id=version_id, rows=table_pb2.RowTable())
    for row in sent:
        request.rows.rows.add().update(row)
    return request


REFUSED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "an unknown column": ({"beak": 3}, "UNKNOWN_COLUMN", "rows.rows[1].beak", "'size'"),
    "text for a number": ({"size": "large"}, "WRONG_COLUMN_TYPE", "rows.rows[1].size", "numbers"),
    "text for a whole number": ({"age": "forty"}, "WRONG_COLUMN_TYPE", "rows.rows[1].age", "whole numbers"),
    "a fraction for a whole number": ({"age": 40.5}, "WRONG_COLUMN_TYPE", "rows.rows[1].age", "whole numbers"),
    "a number for text": ({"city": 3}, "WRONG_COLUMN_TYPE", "rows.rows[1].city", "text"),
    "a number for true or false": ({"member": 1}, "WRONG_COLUMN_TYPE", "rows.rows[1].member", "true or false"),
    "true for a number": ({"size": True}, "WRONG_COLUMN_TYPE", "rows.rows[1].size", "numbers"),
    "a list for a number": ({"size": [1.5]}, "WRONG_COLUMN_TYPE", "rows.rows[1].size", "numbers"),
    "an object for text": ({"city": {"name": "Oslo"}}, "WRONG_COLUMN_TYPE", "rows.rows[1].city", "text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cell_that_does_not_fit_is_named_with_the_way_out(owner: Client, version_id: str, name: str) -> None:
    changes, reason, field, way_out = REFUSED[name]
    said = refusal(owner.predictions.Predict, rows(version_id, A_ROW, A_ROW | changes))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", reason), [field])
    assert said.metadata["column"] == next(iter(changes))
    assert way_out in said.message
    if reason == "WRONG_COLUMN_TYPE":
        assert said.metadata["row"] == "1"


@pytest.mark.parametrize("missing", A_ROW)
def test_a_column_that_nobody_sent_is_named(owner: Client, version_id: str, missing: str) -> None:
    row = {name: value for name, value in A_ROW.items() if name != missing}
    said = refusal(owner.predictions.Predict, rows(version_id, row, row))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "MISSING_COLUMN"), ["rows.rows"])
    assert said.metadata == {"column": missing}
    assert "null" in said.message


@pytest.mark.parametrize(
    ("changes", "column", "kind"),
    [
        ({"city": "Atlantis"}, "city", UNSEEN),
        ({"city": ""}, "city", NULL_FILLED),
        ({"city": None}, "city", NULL_FILLED),
        ({"size": None}, "size", NULL_FILLED),
        ({"size": NAN}, "size", NULL_FILLED),
        ({"size": INFINITE}, "size", NULL_FILLED),
        ({"size": 1e300}, "size", NULL_FILLED),
        ({"age": None}, "age", NULL_FILLED),
        ({"age": NAN}, "age", NULL_FILLED),
        ({"member": None}, "member", NULL_FILLED),
    ],
    ids=str,
)
def test_a_cell_that_something_was_made_up_for_is_noted(
    owner: Client, version_id: str, changes: dict[str, Any], column: str, kind: int
) -> None:
    said = owner.predictions.Predict(rows(version_id, A_ROW, A_ROW | changes))
    assert [(note.row, note.column, note.kind) for note in said.notes] == [(1, column, kind)]
    assert len(said.predictions.strings.values) == 2
    for label in said.probabilities:
        assert all(0 <= value <= 1 for value in label.values)


def test_rows_and_typed_columns_are_told_alike(owner: Client, version_id: str) -> None:
    columns = table_pb2.ColumnTable(
        columns=[
            table_pb2.Column(name="size", doubles=table_pb2.DoubleValues(values=[NAN, 1.5]), null_positions=[1]),
            table_pb2.Column(name="age", int64s=table_pb2.Int64Values(values=[40, 40])),
            table_pb2.Column(name="city", strings=table_pb2.StringValues(values=["Atlantis", "Oslo"])),
            table_pb2.Column(name="member", bools=table_pb2.BoolValues(values=[True, True])),
        ]
    )
    typed = owner.predictions.Predict(pb.PredictRequest(model_version_id=version_id, columns=columns))
    as_rows = owner.predictions.Predict(
        rows(version_id, A_ROW | {"size": None, "city": "Atlantis"}, A_ROW | {"size": None})
    )
    for said in (typed, as_rows):
        assert [(note.row, note.column, note.kind) for note in said.notes] == [
            (0, "size", NULL_FILLED), (0, "city", UNSEEN), (1, "size", NULL_FILLED),
        ]  # fmt: skip
    assert typed.predictions == as_rows.predictions
    columns.columns[3].ClearField("bools")
    columns.columns[3].strings.values.extend(["yes", "no"])
    said = refusal(owner.predictions.Predict, pb.PredictRequest(model_version_id=version_id, columns=columns))
    assert said.short == ("INVALID_ARGUMENT", "WRONG_COLUMN_TYPE")
    assert said.metadata["column"] == "member"


@pytest.mark.parametrize("table", [{}, {"rows": {}}, {"columns": {}}, {"arrow": b""}, {"arrow": b"rubbish"}], ids=str)
def test_no_rows_are_nothing_to_answer(owner: Client, version_id: str, table: dict[str, Any]) -> None:
    said = refusal(owner.predictions.Predict, pb.PredictRequest(model_version_id=version_id, **table))
    assert said.code.name == "INVALID_ARGUMENT"
    assert said.reason in ("INVALID_FIELD", "MALFORMED_MESSAGE", "MISSING_COLUMN")
    assert said.fields
