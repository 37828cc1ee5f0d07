"""PredictionService as callers see it: one answer to each form of a table, by id, name or alias, alone or streamed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pytest

from easyml.v1 import model_service_pb2, project_pb2, project_service_pb2, table_pb2
from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import training_service_pb2 as trainings
from tests.builders import a_project_of, a_training, register, upload
from tests.conftest import World
from tests.marks import answers, refuses
from tests.servers import Client, refusal

ROWS = [{"x": 0.5, "z": 3}, {"x": 5.25, "z": 7}, {"x": 1.0, "z": 0}]


def by_name(world: World, **which: Any) -> model_service_pb2.ModelVersionName:
    return model_service_pb2.ModelVersionName(project_id=world.project_id, model_name=world.model_name, **which)


def as_rows(rows: list[dict[str, Any]] = ROWS) -> dict[str, Any]:
    table = table_pb2.RowTable()
    for row in rows:
        table.rows.add().update(row)
    return {"rows": table}


def as_columns() -> dict[str, Any]:
    x = table_pb2.Column(name="x", doubles=table_pb2.DoubleValues(values=[row["x"] for row in ROWS]))
    z = table_pb2.Column(name="z", int64s=table_pb2.Int64Values(values=[int(row["z"]) for row in ROWS]))
    return {"columns": table_pb2.ColumnTable(columns=[z, x])}


def as_arrow() -> dict[str, Any]:
    batch = pa.record_batch({"x": [row["x"] for row in ROWS], "z": [int(row["z"]) for row in ROWS]})
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, batch.schema) as writer:
        writer.write_batch(batch)
    return {"arrow": buffer.getvalue()}


def test_who_was_removed_is_refused_at_once_and_a_moved_alias_is_followed_at_once(
    owner: Client, anonymous: Client
) -> None:
    project_id = a_project_of(owner)
    dataset_id = upload(owner, project_id).id
    versions = []
    for _ in range(2):
        started = owner.trainings.StartTraining(a_training(project_id, dataset_id)).experiment
        *_, last = owner.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id))
        versions.append(last.event.finished.model_version_id)
    model_name = f"{started.dataset_name}-y"
    name = model_service_pb2.ModelVersionName(project_id=project_id, model_name=model_name, alias="champion")
    account = register(anonymous)
    member = project_service_pb2.SetMemberRequest(
        project_id=project_id, email=account.user.email, role=project_pb2.ROLE_VIEWER
    )
    owner.projects.SetMember(member)
    with Client(owner.address, account.session.access_token) as viewer:
        for version_id in (*versions, versions[0]):
            alias = model_service_pb2.SetModelAliasRequest(model_version_id=version_id, alias="champion")
            owner.models.SetModelAlias(alias)
            assert viewer.predictions.Predict(pb.PredictRequest(name=name, **as_rows())).model_version_id == version_id
        by_id = pb.PredictRequest(model_version_id=versions[0], **as_rows())
        assert viewer.predictions.Predict(by_id).model_version_id == versions[0]
        removed = project_service_pb2.RemoveMemberRequest(project_id=project_id, user_id=account.user.id)
        owner.projects.RemoveMember(removed)
        assert refusal(viewer.predictions.Predict, by_id).short == ("NOT_FOUND", "NOT_FOUND")


@answers("PredictionService/Predict")
@pytest.mark.parametrize("form", [as_rows, as_columns, as_arrow])
def test_each_form_of_a_table_gets_the_same_answer(
    owner: Client, world: World, form: Callable[[], dict[str, Any]]
) -> None:
    said = owner.predictions.Predict(pb.PredictRequest(model_version_id=world.model_version_id, **form()))
    assert said.model_version_id == world.model_version_id
    assert UUID(said.prediction_id)
    assert (said.predictions.name, list(said.predictions.strings.values)) == ("y", ["a", "b", "a"])
    assert [each.label for each in said.probabilities] == ["a", "b"]
    for values in zip(*(each.values for each in said.probabilities), strict=True):
        assert sum(values) == pytest.approx(1)
    assert not said.notes


def test_a_model_is_asked_by_name_number_and_alias(owner: Client, world: World) -> None:
    alias = model_service_pb2.SetModelAliasRequest(model_version_id=world.model_version_id, alias="asked")
    owner.models.SetModelAlias(alias)
    for which in ({}, {"version": 1}, {"alias": "asked"}):
        said = owner.predictions.Predict(pb.PredictRequest(name=by_name(world, **which), **as_rows()))
        assert said.model_version_id == world.model_version_id
    for which in ({"version": 2}, {"alias": "nobody"}):
        request = pb.PredictRequest(name=by_name(world, **which), **as_rows())
        assert refusal(owner.predictions.Predict, request).short == ("NOT_FOUND", "NOT_FOUND")


@refuses("PredictionService/Predict")
@pytest.mark.parametrize(
    ("target", "field"),
    [({}, "target"), ({"model_version_id": "x"}, "model_version_id"), ({"name": {"project_id": "x"}}, "project_id")],
)
def test_a_model_that_is_not_named_is_refused(owner: Client, target: dict[str, Any], field: str) -> None:
    said = refusal(owner.predictions.Predict, pb.PredictRequest(**target, **as_rows()))
    assert said.short == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert said.fields[0] == field


@answers("PredictionService/StreamPredict")
def test_a_stream_answers_each_request_in_its_place(owner: Client, world: World) -> None:
    def requests() -> Iterator[pb.StreamPredictRequest]:
        yield pb.StreamPredictRequest(model_version_id=world.model_version_id, id="one", **as_rows())
        yield pb.StreamPredictRequest(id="two", **as_rows([{"x": 1.0, "z": 1, "beak": 3}]))
        yield pb.StreamPredictRequest(id="three", **as_columns())
        yield pb.StreamPredictRequest(id="four", model_version_id=str(uuid4()), **as_rows())
        yield pb.StreamPredictRequest(id="five")
        yield pb.StreamPredictRequest(id="six", model_version_id=world.model_version_id, **as_arrow())

    said = list(owner.predictions.StreamPredict(requests()))
    assert [each.id for each in said] == ["one", "two", "three", "four", "five", "six"]
    for each in (said[0], said[2], said[5]):
        assert list(each.response.predictions.strings.values) == ["a", "b", "a"]
    assert (said[1].error.reason, said[1].error.column) == ("UNKNOWN_COLUMN", "beak")
    assert (said[3].error.reason, said[4].error.reason) == ("NOT_FOUND", "INVALID_FIELD")
    assert all(said[number].error.message.endswith(".") for number in (1, 3, 4))


@refuses("PredictionService/StreamPredict")
def test_a_stream_that_names_no_model_ends_at_once(owner: Client, world: World) -> None:
    said = refusal(owner.predictions.StreamPredict, iter([pb.StreamPredictRequest(id="one", **as_rows())]))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["target"])
    unknown = pb.StreamPredictRequest(name=by_name(world, alias="nobody"), **as_rows())
    assert refusal(owner.predictions.StreamPredict, iter([unknown])).short == ("NOT_FOUND", "NOT_FOUND")


def test_a_stream_without_requests_has_no_answers(owner: Client) -> None:
    assert list(owner.predictions.StreamPredict(iter([]))) == []
