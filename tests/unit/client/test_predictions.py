# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pandas as pd
import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1.prediction_service_pb2_grpc import PredictionServiceServicer
from easyml_client import AsyncEasyML, errors
from easyml_client.resources.predictions import Prediction, PredictionFailure
from tests.unit.client.support import an_id, client_of, serving

VERSION = an_id("version")


class Doubling(PredictionServiceServicer):
    """Twice the column `x`; without it, an error."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def answer(self, request: Any) -> pb.PredictResponse:
        response = pb.PredictResponse(prediction_id="p", model_version_id=VERSION)
        response.predictions.doubles.values.extend(2 * value for value in request.columns.columns[0].int64s.values)
        response.probabilities.add(label="yes", values=[0.5])
        response.notes.add(row=0, column="plan", kind=2)
        return response

    def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        self.requests.append(request)
        return self.answer(request)

    def StreamPredict(
        self, requests: Iterator[pb.StreamPredictRequest], context: Any
    ) -> Iterator[pb.StreamPredictResponse]:
        for request in requests:
            self.requests.append(request)
            if request.columns.columns[0].name == "x":
                yield pb.StreamPredictResponse(id=request.id, response=self.answer(request))
            else:
                error = pb.PredictError(reason="MISSING_COLUMN", message="Column 'x' is missing.", column="x")
                yield pb.StreamPredictResponse(id=request.id, error=error)


@pytest.mark.parametrize("rows", [[{"x": 1}, {"x": 2}], {"x": [1, 2]}, pd.DataFrame({"x": [1, 2]})])
def test_rows_columns_and_frames_are_predicted_alike(rows: Any) -> None:
    servicer = Doubling()
    with client_of(servicer) as client:
        prediction = client.predictions.predict(VERSION, rows)
    assert prediction.values == [2.0, 4.0]
    assert prediction.probabilities == {"yes": [0.5]}
    assert [(note.row, note.column, note.kind) for note in prediction.notes] == [(0, "plan", "unseen_category")]
    assert servicer.requests[0].model_version_id == VERSION


def test_a_model_is_named_with_its_project() -> None:
    servicer = Doubling()
    with client_of(servicer) as client:
        client.predictions.predict("doubler@live", [{"x": 1}], project=an_id("project"))
        with pytest.raises(errors.InvalidInput, match="its project is needed"):
            client.predictions.predict("doubler", [{"x": 1}])
    assert (servicer.requests[0].name.model_name, servicer.requests[0].name.alias) == ("doubler", "live")


def test_the_environment_names_the_project_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYML_PROJECT", an_id("ours"))
    servicer = Doubling()
    with client_of(servicer) as client:
        client.predictions.predict("doubler", [{"x": 1}])
        client.predictions.predict("doubler", [{"x": 1}], project=an_id("theirs"))
    assert [request.name.project_id for request in servicer.requests] == [an_id("ours"), an_id("theirs")]


def test_a_stream_answers_in_order_and_goes_on_after_an_error() -> None:
    servicer = Doubling()
    with client_of(servicer) as client:
        answers = list(client.predictions.stream(VERSION, iter([{"x": [1]}, {"y": [1]}, {"x": [3]}])))
    assert [type(answer) for answer in answers] == [Prediction, PredictionFailure, Prediction]
    assert answers[1].to_dict() == {"reason": "MISSING_COLUMN", "message": "Column 'x' is missing.", "column": "x"}
    assert [request.id for request in servicer.requests] == ["0", "1", "2"]
    assert [request.WhichOneof("target") for request in servicer.requests] == ["model_version_id", None, None]


async def test_a_stream_takes_an_async_iterable() -> None:
    async def tables() -> AsyncIterator[dict[str, list[int]]]:
        yield {"x": [1]}
        yield {"x": [2]}

    with serving(Doubling()) as target:
        async with AsyncEasyML(target, "a-token") as client:
            answers = [answer async for answer in client.predictions.stream(VERSION, tables())]
    assert [answer.values for answer in answers if isinstance(answer, Prediction)] == [[2.0], [4.0]]


async def test_the_asyncio_client_takes_plain_iterables_too() -> None:
    with serving(Doubling()) as target:
        async with AsyncEasyML(target, "a-token") as client:
            answers = [answer async for answer in client.predictions.stream(VERSION, [{"x": [1]}])]
    assert len(answers) == 1


def a_failing_table() -> Iterator[Any]:
    yield {"x": [1]}
    raise ZeroDivisionError("my own mistake")


def test_an_error_of_the_callers_own_tables_reaches_the_caller() -> None:
    with client_of(Doubling()) as client, pytest.raises(ZeroDivisionError, match="my own mistake"):
        list(client.predictions.stream(VERSION, a_failing_table()))


async def test_an_error_of_the_callers_own_tables_reaches_the_caller_of_the_asyncio_client() -> None:
    with serving(Doubling()) as target:
        async with AsyncEasyML(target, "a-token") as client:
            with pytest.raises(ZeroDivisionError, match="my own mistake"):
                [answer async for answer in client.predictions.stream(VERSION, a_failing_table())]
