"""Predictions, one table or a stream of them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_client.plans.references import ModelRef, ProjectRef, model_version
from easyml_client.resources.deployments import Deployment
from easyml_client.resources.predictions import Prediction, PredictionFailure
from easyml_client.steps import Emit, Plan, Stream, call, converse
from easyml_client.tables import Table, to_wire


def predict(model: ModelRef | Deployment, rows: Table, *, project: ProjectRef | None = None) -> Plan[Prediction]:
    """Predict rows with a model version or a `Deployment`.

    Rows are a list of dicts, a dict of columns, one dict, or a pandas DataFrame.

    Columns are typed by their values; times may be texts in ISO 8601. None, NaN and a name that a row leaves out are no
    value, and each column is named at least once. A model's name needs the project, or EASYML_PROJECT.
    """
    target = yield from _target(model, project)
    return Prediction.of((yield from call(pb.PredictRequest(**target, **_table(rows)), pb.PredictResponse)))


def stream(
    model: ModelRef | Deployment, tables: Iterable[Table] | AsyncIterable[Table], *, project: ProjectRef | None = None
) -> Stream[Prediction | PredictionFailure]:
    """Predict table after table on one connection, in order; one that cannot be answered gives a PredictionFailure."""
    target = yield from _target(model, project)
    requests = _each(target, tables) if isinstance(tables, Iterable) else _each_async(target, tables)
    answers = yield from converse(requests, pb.StreamPredictRequest, pb.StreamPredictResponse)
    while (answer := (yield from answers.receive())) is not None:
        failed = answer.WhichOneof("result") == "error"
        yield Emit(PredictionFailure.of(answer.error) if failed else Prediction.of(answer.response))


def _target(model: ModelRef | Deployment, project: ProjectRef | None) -> Plan[dict[str, Any]]:
    if isinstance(model, Deployment):
        return {"deployment_id": model.id}
    return (yield from model_version(model, project))


def _each(target: dict[str, Any], tables: Iterable[Table]) -> Iterator[pb.StreamPredictRequest]:
    for number, table in enumerate(tables):
        yield _request(target, number, table)


async def _each_async(target: dict[str, Any], tables: AsyncIterable[Table]) -> AsyncIterator[pb.StreamPredictRequest]:
    number = 0
    async for table in tables:
        yield _request(target, number, table)
        number += 1


def _request(target: dict[str, Any], number: int, table: Table) -> pb.StreamPredictRequest:
    """The first message names the model for all."""
    return pb.StreamPredictRequest(id=str(number), **(target if number == 0 else {}), **_table(table))


def _table(rows: Table) -> dict[str, Any]:
    table = to_wire(rows)
    return {"columns" if isinstance(table, table_pb2.ColumnTable) else "rows": table}
