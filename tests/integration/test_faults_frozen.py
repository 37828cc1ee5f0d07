"""Watchers that do not read, and processes that are frozen: whoever waits for them is not held up for long."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from easyml.v1 import experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_long_training, a_project_of, a_training, upload
from tests.faults.consistency import check_consistent
from tests.faults.plan import until
from tests.servers import Client, ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SILENT = 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path / "data", WORKERS="2", EVENTS_PER_SECOND="100000") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, server.key) as client:
        yield client


def watched(experiment_id: str) -> pb.WatchTrainingRequest:
    return pb.WatchTrainingRequest(experiment_id=experiment_id)


def events(answers: Iterator[pb.WatchTrainingResponse]) -> Iterator[pb.WatchTrainingResponse]:
    return (answer for answer in answers if answer.HasField("event"))


def sequences(answers: Iterator[pb.WatchTrainingResponse]) -> list[int]:
    return [answer.event.sequence for answer in events(answers)]


def get(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    request = pb.GetExperimentRequest(experiment_id=experiment_id)
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
    return found


def test_watchers_that_do_not_read_hold_up_nobody_and_take_no_memory(server: ServerProcess, client: Client) -> None:
    project_id = a_project_of(client)
    request = a_training(project_id, upload(client, project_id).id, algorithm="lightgbm")
    request.spec.hyperparameters.update({"n_estimators": 2500})
    request.spec.cross_validation.folds = 5
    with ExitStack() as stack:
        experiment_id = client.trainings.StartTraining(request).experiment.id
        # Each has a connection of its own, whose window stays small; else gRPC itself would read for whoever does not.
        window = ("grpc.http2.bdp_probe", 0)
        silent = [stack.enter_context(Client(server.address, server.key, window)) for _ in range(SILENT)]
        streams = [each.trainings.WatchTraining(watched(experiment_id)) for each in silent]
        for stream in streams:
            assert next(stream).event.sequence == 1
        process = psutil.Process(server.running.pid)
        before = process.memory_info().rss
        seen, size = [], 0
        for answer in events(client.trainings.WatchTraining(watched(experiment_id))):
            seen.append(answer.event.sequence)
            size += answer.ByteSize()
        grown = process.memory_info().rss - before
        experiment = get(client, experiment_id)
        assert experiment.state == experiment_pb2.TRAINING_STATE_SUCCEEDED
        assert experiment.last_sequence > 10_000
        assert seen == list(range(1, experiment.last_sequence + 1))
        # Whoever kept for each what it does not read would hold at least the bytes that go over the wire.
        assert grown < SILENT * size
        # They were only slow: what they missed waits for them.
        for stream in streams[:3]:
            assert sequences(stream) == list(range(2, experiment.last_sequence + 1))


def worker_of(server: ServerProcess) -> psutil.Process:
    """The worker of the one training that runs, by the folder it works in."""
    (folder,) = (server.data / "work").iterdir()
    found: list[psutil.Process] = []

    def is_there() -> bool:
        found[:] = [each for each in server.family() if Path(each.cwd()) == folder]
        return bool(found)

    until(is_there, "a worker")
    return found[0]


def frozen_worker(server: ServerProcess, client: Client, experiment_id: str) -> psutil.Process:
    watching = client.trainings.WatchTraining(watched(experiment_id))
    next(answer for answer in watching if answer.event.HasField("iteration_completed"))
    watching.cancel()
    worker = worker_of(server)
    worker.send_signal(signal.SIGSTOP)
    return worker


def test_a_training_whose_worker_is_frozen_can_be_cancelled(server: ServerProcess, client: Client) -> None:
    project_id = a_project_of(client)
    started = client.trainings.StartTraining(a_long_training(project_id, upload(client, project_id).id))
    worker = frozen_worker(server, client, started.experiment.id)
    client.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=started.experiment.id))
    seen = sequences(client.trainings.WatchTraining(watched(started.experiment.id)))
    experiment = get(client, started.experiment.id)
    assert experiment.state == experiment_pb2.TRAINING_STATE_CANCELLED
    assert seen == list(range(1, experiment.last_sequence + 1))
    worker.wait(30)
    check_consistent(server.data)


def test_a_training_whose_worker_is_frozen_ends_with_its_time_and_alone(server: ServerProcess, client: Client) -> None:
    project_id = a_project_of(client)
    dataset_id = upload(client, project_id).id
    request = a_long_training(project_id, dataset_id)
    # Long enough for a first iteration on a machine that has other work.
    request.spec.max_duration.FromSeconds(20)
    experiment_id = client.trainings.StartTraining(request).experiment.id
    worker = frozen_worker(server, client, experiment_id)
    other = client.trainings.StartTraining(a_training(project_id, dataset_id)).experiment.id
    sequences(client.trainings.WatchTraining(watched(other)))
    assert get(client, other).state == experiment_pb2.TRAINING_STATE_SUCCEEDED
    sequences(client.trainings.WatchTraining(watched(experiment_id)))
    assert get(client, experiment_id).failure.reason == experiment_pb2.FAILURE_REASON_TIME_LIMIT
    worker.wait(30)
    check_consistent(server.data)
