"""Replicas that follow the calls, as callers see them: more and fewer, none while nobody calls; no call fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from easyml.v1 import deployment_pb2
from easyml.v1 import deployment_service_pb2 as pb
from easyml.v1 import prediction_service_pb2 as predictions
from tests.builders import a_project_of, upload
from tests.integration.test_rpcs_deployments import QUICK, READY, Deployer
from tests.integration.test_rpcs_models import a_version
from tests.integration.test_rpcs_predictions import ROWS, as_rows
from tests.marks import answers, limits, refuses
from tests.servers import Client, ServerProcess, deploying, eventually, refusal, refusal_of

AVAILABLE = deployment_pb2.CONDITION_TYPE_AVAILABLE
SCALING_ACTIVE = deployment_pb2.CONDITION_TYPE_SCALING_ACTIVE
SCALING_LIMITED = deployment_pb2.CONDITION_TYPE_SCALING_LIMITED
PREDICT = "/easyml.v1.PredictionService/Predict"
MANY_ROWS = 600


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its deployments end with it."""
    with deploying(tmp_path_factory.mktemp("scaling") / "data", MAX_WAITING_PREDICTIONS="2", REPLICAS="3") as server:
        yield server


@pytest.fixture(scope="module")
def deployer(server: ServerProcess) -> Iterator[Deployer]:
    with Client(server.address, server.key) as client:
        project_id = a_project_of(client)
        version = a_version(client, project_id, upload(client, project_id).id, model_name="birds").id
        yield Deployer(client, project_id, version, version)


def following(**scaling: int) -> deployment_pb2.DeploymentConfig:
    return deployment_pb2.DeploymentConfig(scaling=deployment_pb2.Scaling(**scaling), probes=QUICK)


@pytest.fixture(scope="module")
def idle(deployer: Deployer) -> Iterator[str]:
    """One that has no replica while nobody calls, which is soon."""
    deployment = deployer.create(config=following(min_replicas=0, max_replicas=1, cooldown_seconds=1))
    yield deployment.id
    deployer.delete(deployment.id)


def is_idle(deployment: deployment_pb2.Deployment) -> bool:
    return bool(deployment.state == READY and deployment.wanted_replicas == 0 and not deployment.replicas)


def condition(deployment: deployment_pb2.Deployment, type: Any) -> deployment_pb2.Condition:
    return next(each for each in deployment.conditions if each.type == type)


def scale(deployer: Deployer, deployment_id: str, **changes: Any) -> deployment_pb2.Deployment:
    request = pb.ScaleDeploymentRequest(deployment_id=deployment_id, **changes)
    scaled: deployment_pb2.Deployment = deployer.client.deployments.ScaleDeployment(request).deployment
    return scaled


class Callers:
    """Callers in threads who never stop asking for many rows."""

    def __init__(self, deployer: Deployer, deployment_id: str, number: int) -> None:
        request = predictions.PredictRequest(deployment_id=deployment_id, **as_rows(ROWS * (MANY_ROWS // len(ROWS))))
        self._request = request.SerializeToString()
        self._call = deployer.client.raw(PREDICT)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]
        self.answered = 0
        self.failed: list[str] = []

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._call(self._request)
                self.answered += 1
            except grpc.RpcError as error:
                self.failed.append(f"{error.code().name}: {error.details()}")

    @contextmanager
    def asking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join()


@answers("DeploymentService/ScaleDeployment")
def test_replicas_follow_the_calls_up_and_down_without_a_failed_call(deployer: Deployer) -> None:
    config = following(min_replicas=1, max_replicas=3, target_requests_in_flight=1, cooldown_seconds=2)
    made = deployer.create(config=config)
    assert (made.wanted_replicas, made.config.scaling.replicas) == (1, 0)
    begun = deployer.ready(made.id)
    assert condition(begun, SCALING_ACTIVE).reason == "Begun"

    many, few = Callers(deployer, made.id, 4), Callers(deployer, made.id, 1)
    with few.asking():
        with many.asking():
            grown = deployer.until(made.id, lambda now: now.ready_replicas >= 2)
            said = condition(grown, SCALING_ACTIVE)
            assert (said.status, said.reason) == (True, "FollowsCalls")
            assert "calls were in flight" in said.message
        fewer = deployer.until(made.id, lambda now: now.wanted_replicas == 1 and len(now.replicas) == 1)
        assert (fewer.state, fewer.latest_revision, fewer.etag) == (READY, 1, made.etag)
    assert (many.failed, few.failed) == ([], [])
    assert many.answered > 0 < few.answered

    bounds = deployment_pb2.Scaling(min_replicas=2, max_replicas=2)
    scaled = scale(deployer, made.id, scaling=bounds)
    assert (scaled.wanted_replicas, scaled.config.scaling.cooldown_seconds) == (2, 60)
    assert condition(deployer.ready(made.id), SCALING_ACTIVE).message.startswith("2 replicas for now")
    fixed = scale(deployer, made.id, replicas=1)
    assert fixed.config.scaling == deployment_pb2.Scaling(replicas=1)
    assert {each.type for each in deployer.ready(made.id).conditions}.isdisjoint({SCALING_ACTIVE, SCALING_LIMITED})
    deployer.delete(made.id)


def test_calls_that_stay_open_count_and_the_bound_is_said(deployer: Deployer) -> None:
    made = deployer.create(config=following(max_replicas=2, target_requests_in_flight=1, cooldown_seconds=1))
    deployer.ready(made.id)
    first = predictions.StreamPredictRequest(deployment_id=made.id, **as_rows())
    done = threading.Event()

    def requests() -> Iterator[predictions.StreamPredictRequest]:
        yield first
        done.wait()

    streams = [deployer.client.predictions.StreamPredict(requests()) for _ in range(4)]
    for stream in streams:
        next(stream)
    limited = deployer.until(made.id, lambda now: now.ready_replicas == 2 and condition(now, SCALING_LIMITED).status)
    assert "more than 2 replicas, which max_replicas allows" in condition(limited, SCALING_LIMITED).message
    done.set()
    assert [list(stream) for stream in streams] == [[]] * 4
    alone = deployer.until(made.id, lambda now: now.wanted_replicas == 1)
    assert not condition(alone, SCALING_LIMITED).status
    deployer.delete(made.id)


def test_without_calls_none_runs_and_the_first_call_waits_for_one(deployer: Deployer, idle: str) -> None:
    found = deployer.until(idle, is_idle)
    assert (found.active_revision, [each.weight for each in found.traffic]) == (1, [100])
    available = condition(found, AVAILABLE)
    assert (available.status, available.reason) == (True, "ScaledToZero")
    assert not condition(found, SCALING_ACTIVE).status
    assert deployer.ask(idle) == deployer.first
    deployer.until(idle, is_idle)
    request = predictions.StreamPredictRequest(deployment_id=idle, id="1", **as_rows())
    (answered,) = deployer.client.predictions.StreamPredict(iter([request]))
    assert answered.response.model_version_id == deployer.first


def test_a_new_revision_of_an_idle_one_is_ready_before_it_answers(deployer: Deployer, idle: str) -> None:
    before = deployer.until(idle, is_idle)
    changed = deployer.update(idle, deployer.second)
    assert (changed.wanted_replicas, changed.active_revision) == (1, before.latest_revision)
    assert deployer.ask(idle) == deployer.first
    deployer.until(idle, lambda now: now.active_revision == changed.latest_revision)
    assert deployer.ask(idle) == deployer.second


def test_a_call_that_runs_out_of_time_is_told_what_it_waited_for(deployer: Deployer, idle: str) -> None:
    deployer.until(idle, is_idle)
    request = predictions.PredictRequest(deployment_id=idle, **as_rows())
    said = refusal(deployer.client.predictions.Predict, request, timeout=0.8)
    assert said.short == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert "was not ready in time" in said.message
    # It was started all the same.
    deployer.until(idle, lambda now: now.ready_replicas == 1)


@limits("MAX_WAITING_PREDICTIONS")
def test_so_many_calls_wait_for_a_first_replica(deployer: Deployer, idle: str) -> None:
    deployer.until(idle, is_idle)
    request = predictions.PredictRequest(deployment_id=idle, **as_rows())
    calls = [deployer.client.predictions.Predict.future(request) for _ in range(3)]
    errors = [error for call in calls if (error := call.exception()) is not None]
    assert len(errors) == 1
    said = refusal_of(errors[0])
    assert said.short == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert said.metadata == {"limit": "EASYML_MAX_WAITING_PREDICTIONS", "maximum": "2"}
    assert said.retry_seconds == 1


def test_a_model_that_cannot_start_is_told_by_its_reason(server: ServerProcess, deployer: Deployer, idle: str) -> None:
    deployer.until(idle, is_idle)
    (graph,) = server.data.glob(f"files/*/models/{deployer.first}/*.onnx")
    with damaged(graph):
        said = refusal(deployer.client.predictions.Predict, predictions.PredictRequest(deployment_id=idle, **as_rows()))
        assert said.short == ("UNAVAILABLE", "PART_UNAVAILABLE")
        assert "The stored model cannot be served" in said.message
        stream = predictions.StreamPredictRequest(deployment_id=idle, **as_rows())
        assert refusal(deployer.client.predictions.StreamPredict, iter([stream])).reason == "PART_UNAVAILABLE"
    # It is well again by itself.
    eventually(lambda: answered(deployer, idle))


def answered(deployer: Deployer, deployment_id: str) -> bool:
    try:
        return bool(deployer.ask(deployment_id))
    except grpc.RpcError as error:
        assert refusal_of(error).reason == "PART_UNAVAILABLE"
        return False


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"changed")
    try:
        yield
    finally:
        path.write_bytes(whole)


@refuses("DeploymentService/CreateDeployment", "DeploymentService/ScaleDeployment")
def test_a_scaling_that_cannot_be_is_refused_by_its_fields(deployer: Deployer, idle: str) -> None:
    before = deployer.get(idle)
    validate = deployer.client.deployments.ValidateDeploymentConfig
    for scaling, problems in (
        ({"min_replicas": 3, "max_replicas": 2}, ["min_replicas INVALID_FIELD", "max_replicas INVALID_FIELD"]),
        ({"replicas": 1, "max_replicas": 2}, ["replicas INVALID_FIELD"]),
        ({"max_replicas": 4}, ["max_replicas TOO_LARGE"]),
        ({"target_requests_in_flight": 4}, ["max_replicas INVALID_FIELD"]),
        ({"max_replicas": 2, "target_cpu_percent": 80}, ["target_cpu_percent INVALID_FIELD"]),
        ({"max_replicas": 2, "cooldown_seconds": 3601}, ["cooldown_seconds INVALID_FIELD"]),
        ({"min_replicas": -1, "max_replicas": 2}, ["min_replicas INVALID_FIELD"]),
    ):
        fields = [problem.split()[0] for problem in problems]
        request = pb.ScaleDeploymentRequest(deployment_id=idle, scaling=deployment_pb2.Scaling(**scaling))
        assert refusal(deployer.client.deployments.ScaleDeployment, request).fields == [
            f"scaling.{field}" for field in fields
        ]
        wanted = pb.ValidateDeploymentConfigRequest(project_id=deployer.project_id, config=following(**scaling))
        told = [f"{each.field} {each.reason}" for each in validate(wanted).problems]
        assert told == [f"config.scaling.{problem}" for problem in problems]
        with pytest.raises(grpc.RpcError) as refused:
            deployer.create(config=following(**scaling))
        assert refusal_of(refused.value).fields == [f"config.scaling.{field}" for field in fields]
    for neither in ({}, {"replicas": 1, "scaling": deployment_pb2.Scaling(max_replicas=2)}):
        request = pb.ScaleDeploymentRequest(deployment_id=idle, **neither)
        said = refusal(deployer.client.deployments.ScaleDeployment, request)
        assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["replicas"])
    assert deployer.get(idle).etag == before.etag


def test_a_server_that_starts_again_knows_how_many_are_wanted(server: ServerProcess, deployer: Deployer) -> None:
    config = following(min_replicas=1, max_replicas=2, cooldown_seconds=600)
    made = deployer.ready(deployer.create(config=config).id)
    scale(deployer, made.id, replicas=2)
    deployer.until(made.id, lambda now: now.ready_replicas == 2)
    scale(deployer, made.id, scaling=config.scaling)
    still = deployer.ready(made.id)
    server.leave()
    server.start()
    with Client(server.address, server.key) as client:
        again = Deployer(client, deployer.project_id, deployer.first, deployer.second)
        found = again.ready(made.id)
        assert (found.wanted_replicas, found.ready_replicas) == (2, 2)
        assert {each.id for each in found.replicas} == {each.id for each in still.replicas}
        again.delete(made.id)
