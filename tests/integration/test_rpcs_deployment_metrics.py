"""GetDeploymentMetrics and the analysis of canaries: what replicas counted of real calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from easyml.v1 import deployment_metrics_pb2 as pb
from easyml.v1 import deployment_pb2, deployment_service_pb2, table_pb2
from easyml.v1 import prediction_service_pb2 as predictions
from tests.builders import a_table, upload
from tests.integration.test_rpcs_deployments import QUICK, Deployer, Load, made_by, under_load
from tests.integration.test_rpcs_models import a_version
from tests.integration.test_rpcs_predictions import ROWS, as_rows
from tests.marks import answers, refuses
from tests.servers import Client, ServerProcess, deploying, eventually, refusal

pytestmark = pytest.mark.slow

ACTIVE, WITHDRAWN = deployment_pb2.REVISION_STATE_ACTIVE, deployment_pb2.REVISION_STATE_WITHDRAWN
CANARY = deployment_pb2.ROLLOUT_STRATEGY_CANARY
MANY = as_rows(ROWS * 60)
VERY_MANY = table_pb2.ColumnTable(
    columns=[
        table_pb2.Column(name="x", doubles=table_pb2.DoubleValues(values=[number % 7 for number in range(3_000)])),
        table_pb2.Column(name="z", int64s=table_pb2.Int64Values(values=[number % 11 for number in range(3_000)])),
    ]
)
IN_TIME_SECONDS = 0.3
NEIGHBOURS = 4_000


class ManyRows(Deployer):
    """Asks for many rows at a time, so that the model is what takes long."""

    def ask(self, deployment_id: str) -> str:
        request = predictions.PredictRequest(deployment_id=deployment_id, **MANY)
        return str(self.client.predictions.Predict(request).model_version_id)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with deploying(tmp_path_factory.mktemp("metrics") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def deployer(server: ServerProcess) -> Iterator[ManyRows]:
    with Client(server.address, server.key) as client:
        made = made_by(client)
        yield ManyRows(client, made.project_id, made.first, made.second)


@pytest.fixture(scope="module")
def slow(deployer: ManyRows) -> str:
    """A version that looks through its whole table for each row: many times slower than the others."""
    table = upload(deployer.client, deployer.project_id, a_table(NEIGHBOURS))
    return a_version(deployer.client, deployer.project_id, table.id, algorithm="k_neighbors", model_name="birds").id


def metrics(deployer: Deployer, deployment_id: str, **window: Any) -> pb.GetDeploymentMetricsResponse:
    request = pb.GetDeploymentMetricsRequest(deployment_id=deployment_id, **window)
    answer: pb.GetDeploymentMetricsResponse = deployer.client.deployments.GetDeploymentMetrics(request)
    return answer


@answers("DeploymentService/GetDeploymentMetrics")
def test_it_tells_of_each_revision_what_its_replicas_counted(deployer: ManyRows) -> None:
    config = deployment_pb2.DeploymentConfig(probes=QUICK, scaling=deployment_pb2.Scaling(replicas=2))
    deployment = deployer.ready(deployer.create(config=config).id)
    for _ in range(4):
        deployer.ask(deployment.id)
    with pytest.raises(grpc.RpcError):
        deployer.client.predictions.Predict(predictions.PredictRequest(deployment_id=deployment.id, **as_rows([{}])))
    deployer.update(deployment.id, deployer.second)
    deployer.ready(deployment.id)
    deployer.ask(deployment.id)

    def counted() -> dict[int, dict[str, int]]:
        return {each.revision: dict(each.requests_by_code) for each in metrics(deployer, deployment.id).revisions}

    assert eventually(lambda: counted() == {2: {"OK": 1}, 1: {"OK": 4, "InvalidArgument": 1}}), counted()
    answer = metrics(deployer, deployment.id)
    newer, older = answer.revisions
    assert (newer.replicas, older.replicas, older.requests, older.errors) == (2, 0, 5, 0)
    assert (newer.mean_rows, newer.mean_batch_size) == (len(ROWS) * 60, 1)
    assert 0 < newer.latency.p50_seconds <= newer.latency.p95_seconds <= newer.latency.p99_seconds < 60
    assert newer.resident_bytes > 2 << 20
    assert newer.cpu_cores > 0
    seconds = (answer.end_time.ToDatetime() - answer.start_time.ToDatetime()).total_seconds()
    assert 0 < seconds < 300
    assert older.requests_per_second == pytest.approx(5 / seconds)
    narrow = metrics(deployer, deployment.id, window=Duration(seconds=1))
    assert narrow.start_time.ToDatetime() >= answer.start_time.ToDatetime()
    deployer.delete(deployment.id)


@refuses("DeploymentService/GetDeploymentMetrics")
def test_a_window_has_bounds_and_a_deployment_must_be_there(deployer: ManyRows) -> None:
    call = deployer.client.deployments.GetDeploymentMetrics
    unknown = refusal(call, pb.GetDeploymentMetricsRequest(deployment_id=str(uuid4())))
    assert unknown.short == ("NOT_FOUND", "NOT_FOUND")
    for window in (Duration(), Duration(nanos=999_999_999), Duration(seconds=3600, nanos=1), Duration(seconds=-5)):
        said = refusal(call, pb.GetDeploymentMetricsRequest(deployment_id=str(uuid4()), window=window))
        assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["window"])


def config(**analysis: Any) -> deployment_pb2.DeploymentConfig:
    steps = [deployment_pb2.CanaryStep(weight=weight, duration_seconds=1) for weight in (30, 60)]
    judged = deployment_pb2.CanaryAnalysis(**{"min_requests": 20, "max_error_percent": 1, **analysis})
    canary = deployment_pb2.Canary(steps=steps, analysis=judged)
    return deployment_pb2.DeploymentConfig(probes=QUICK, strategy=CANARY, canary=canary)


def progress(deployment: deployment_pb2.Deployment) -> deployment_pb2.Condition:
    kind = deployment_pb2.CONDITION_TYPE_PROGRESSING
    return next((each for each in deployment.conditions if each.type == kind), deployment_pb2.Condition())


class InTime(Deployer):
    """Asks for far more rows, which the quick versions answer in a twentieth of the time there is."""

    def ask(self, deployment_id: str) -> str:
        request = predictions.PredictRequest(deployment_id=deployment_id, columns=VERY_MANY)
        return str(self.client.predictions.Predict(request, timeout=IN_TIME_SECONDS).model_version_id)


@pytest.fixture(scope="module")
def late(deployer: ManyRows) -> str:
    """A version that asks a thousand neighbours of each row, and needs several times that time."""
    table = upload(deployer.client, deployer.project_id, a_table(NEIGHBOURS))
    many = Struct()
    many.update({"n_neighbors": 1_000})
    spec: dict[str, Any] = {"algorithm": "k_neighbors", "model_name": "birds", "hyperparameters": many}
    return a_version(deployer.client, deployer.project_id, table.id, **spec).id


def test_a_canary_is_taken_back_by_its_errors_under_load(deployer: ManyRows, late: str) -> None:
    asking = InTime(deployer.client, deployer.project_id, deployer.first, deployer.second)
    deployment = deployer.ready(deployer.create(config=config(min_requests=3)).id)
    load = Load(asking, deployment.id)
    caller = threading.Thread(target=load.run)
    caller.start()
    try:
        deployer.update(deployment.id, late)
        back = deployer.until(deployment.id, lambda now: progress(now).reason == "RevisionWithdrawn")
        last = len(load.answered)
        eventually(lambda: len(load.answered) > last + 10)
    finally:
        load.stopped = True
        caller.join()
    assert back.active_revision == 1
    assert "calls failed" in progress(back).message
    assert {each.partition(":")[0] for each in load.failed} == {"DEADLINE_EXCEEDED"}
    assert set(load.answered) == {deployer.first}
    deployer.delete(deployment.id)


def test_a_slow_canary_is_taken_back_under_load(deployer: ManyRows, slow: str) -> None:
    deployment = deployer.ready(deployer.create(config=config(max_latency_ratio=2)).id)
    with under_load(deployer, deployment.id) as load:
        deployer.update(deployment.id, slow)
        back = deployer.until(deployment.id, lambda now: progress(now).reason == "RevisionWithdrawn")
        assert back.active_revision == 1
        assert "The p99 of its latency is" in progress(back).message
        assert set(load.answered) == {deployer.first, slow}
        # Its calls under way end before it does.
        deployer.until(deployment.id, lambda now: {each.revision for each in now.replicas} == {1})
        last = len(load.answered) + 3
        eventually(lambda: len(load.answered) > last + 10)
    assert slow not in load.answered[last:]
    request = deployment_service_pb2.ListRevisionsRequest(deployment_id=deployment.id)
    revisions = deployer.client.deployments.ListRevisions(request).revisions
    assert [each.state for each in revisions] == [WITHDRAWN, ACTIVE]
    deployer.delete(deployment.id)
