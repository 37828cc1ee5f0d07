"""A process is killed at each named point once, and nothing that was promised is lost. See `domain.faults`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from easyml.v1 import experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.faults.consistency import check_consistent
from tests.faults.kills import Story
from tests.faults.plan import FaultPlan
from tests.faults.points import (
    CONVERTER_POINTS,
    IN_EVERY_RUN,
    MODEL_POINTS,
    SERVER_POINTS,
    points_in_the_code,
    points_with_a_test,
)
from tests.servers import Client, ServerProcess, refusal, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> FaultPlan:
    return FaultPlan(tmp_path_factory.mktemp("faults") / "plan")


@pytest.fixture(scope="module")
def server(plan: FaultPlan) -> Iterator[ServerProcess]:
    with serving(plan.path.parent / "data", FAULT=str(plan.path)) as server:
        yield server


@pytest.fixture(scope="module")
def stories(server: ServerProcess, plan: FaultPlan) -> dict[type[Story], Story]:
    return {kind: kind(server, plan) for kind in set(SERVER_POINTS.values())}


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, server.key) as client:
        yield client


def test_each_point_has_a_test() -> None:
    assert points_in_the_code() == points_with_a_test()


@pytest.mark.parametrize(("fault", "story"), IN_EVERY_RUN)
def test_a_server_killed_at_a_point_loses_nothing(stories: dict[type[Story], Story], fault: str, story: str) -> None:
    kill = stories[SERVER_POINTS[fault, story]].killed_by(fault)
    print(kill)  # noqa: T201 (pytest shows it when the test fails)


@pytest.mark.parametrize("point", MODEL_POINTS)
def test_a_worker_killed_while_it_writes_fails_its_training_alone(
    server: ServerProcess, client: Client, plan: FaultPlan, point: str
) -> None:
    project_id = a_project_of(client)
    request = a_training(project_id, upload(client, project_id).id)
    plan.arm(point)
    failed = ended(client, request)
    assert failed.failure.reason == experiment_pb2.FAILURE_REASON_WORKER_DIED
    assert failed.failure.stage == experiment_pb2.TRAINING_STAGE_EXPORTING
    request.ClearField("request_id")
    assert ended(client, request).state == experiment_pb2.TRAINING_STATE_SUCCEEDED
    check_consistent(server.data)


@pytest.mark.parametrize("point", CONVERTER_POINTS)
def test_a_converter_that_is_killed_leaves_nothing(
    server: ServerProcess, client: Client, plan: FaultPlan, point: str
) -> None:
    content = a_table()
    header = a_header(a_project_of(client), content)
    plan.arm(point)
    assert refusal(client.datasets.UploadDataset, an_upload(header, content)).code.name == "INVALID_ARGUMENT"
    check_consistent(server.data)
    assert client.datasets.UploadDataset(an_upload(header, content)).dataset.id
    check_consistent(server.data)


def ended(client: Client, request: pb.StartTrainingRequest) -> experiment_pb2.Experiment:
    """Train and wait for the end."""
    experiment_id = client.trainings.StartTraining(request).experiment.id
    list(client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=experiment_id)))
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(
        pb.GetExperimentRequest(experiment_id=experiment_id)
    ).experiment
    return found
