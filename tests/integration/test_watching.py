"""Watching and cancelling trainings, from the outside."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from pathlib import Path
from uuid import uuid4

import grpc
import psutil
import pytest

from easyml.v1 import experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_long_training, a_project_of, a_training, upload
from tests.marks import answers, refuses
from tests.servers import Client, refusal, refusal_of, serving

STATES = experiment_pb2.TrainingState


def start(client: Client, request: pb.StartTrainingRequest) -> str:
    return str(client.trainings.StartTraining(request).experiment.id)


def sequences(client: Client, experiment_id: str, after: int = 0) -> list[int]:
    request = pb.WatchTrainingRequest(experiment_id=experiment_id, after_sequence=after)
    return [each.event.sequence for each in client.trainings.WatchTraining(request) if each.HasField("event")]


def get(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    request = pb.GetExperimentRequest(experiment_id=experiment_id)
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
    return found


def wait_for(client: Client, experiment_id: str, kind: str) -> int:
    """Watch until an event of this kind comes, then go away; its sequence."""
    watching = client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=experiment_id))
    for each in watching:
        if each.event.WhichOneof("event") == kind:
            watching.cancel()
            return int(each.event.sequence)
    raise AssertionError(f"there was no {kind}")


@answers("TrainingService/WatchTraining")
def test_many_watchers_from_many_places_see_the_same_history(owner: Client, project_id: str) -> None:
    experiment_id = start(owner, a_training(project_id, upload(owner, project_id).id, algorithm="random_forest"))
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda after: sequences(owner, experiment_id, after), [0, 0, 0, 1, 1]))
    last = get(owner, experiment_id).last_sequence
    assert found == [list(range(1, last + 1))] * 3 + [list(range(2, last + 1))] * 2
    # The same after the end, from anywhere.
    assert sequences(owner, experiment_id, 3) == list(range(4, last + 1))
    assert sequences(owner, experiment_id, last) == []


@refuses("TrainingService/WatchTraining")
def test_a_sequence_that_is_not_there_yet_is_refused(owner: Client, world: object) -> None:
    experiment_id = world.experiment_id  # type: ignore[attr-defined]  # the fixture's
    last = get(owner, experiment_id).last_sequence
    request = pb.WatchTrainingRequest(experiment_id=experiment_id, after_sequence=last + 1)
    found = refusal(owner.trainings.WatchTraining, request)
    assert (found.short, found.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["after_sequence"])


@answers("TrainingService/CancelTraining")
def test_a_cancelled_training_keeps_what_it_reported(owner: Client, project_id: str) -> None:
    experiment_id = start(owner, a_long_training(project_id, upload(owner, project_id).id))
    wait_for(owner, experiment_id, "iteration_completed")
    owner.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=experiment_id))
    found = sequences(owner, experiment_id)
    experiment = get(owner, experiment_id)
    assert experiment.state == STATES.TRAINING_STATE_CANCELLED
    assert found == list(range(1, experiment.last_sequence + 1))
    assert not experiment.model_version_id
    again = owner.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=experiment_id)).experiment
    assert again.etag == experiment.etag


@pytest.mark.slow
def test_the_queue_is_fair_and_can_be_left(tmp_path: Path) -> None:
    settings = {"WORKERS": "1", "QUEUED_PER_PROJECT": "3"}
    with serving(tmp_path / "data", **settings) as server, Client(server.address, server.key) as owner:
        project_id = a_project_of(owner)
        dataset_id = upload(owner, project_id).id
        running = start(owner, a_long_training(project_id, dataset_id))
        wait_for(owner, running, "stage_started")
        waiting = [start(owner, a_training(project_id, dataset_id)) for _ in range(2)]
        assert [get(owner, each).queue_position for each in waiting] == [1, 2]
        full = refusal(owner.trainings.StartTraining, a_training(project_id, dataset_id))
        assert full.short == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
        assert full.retry_seconds
        owner.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=waiting[0]))
        sequences(owner, waiting[0])
        assert get(owner, waiting[0]).state == STATES.TRAINING_STATE_CANCELLED
        other_project = a_project_of(owner)
        other = start(owner, a_training(other_project, upload(owner, other_project).id))
        owner.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=running))
        for each in (waiting[1], other):
            sequences(owner, each)
            assert get(owner, each).state == STATES.TRAINING_STATE_SUCCEEDED


@pytest.mark.slow
def test_a_killed_worker_fails_its_training_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "data", WORKERS="2") as server, Client(server.address, server.key) as owner:
        project_id = a_project_of(owner)
        dataset_id = upload(owner, project_id).id
        killed, spared = (start(owner, a_long_training(project_id, dataset_id)) for _ in range(2))
        for each in (killed, spared):
            wait_for(owner, each, "iteration_completed")
        worker = next(process for process in psutil.process_iter() if works_for(process, tmp_path, killed, owner))
        os.kill(worker.pid, signal.SIGKILL)
        sequences(owner, killed)
        failure = get(owner, killed).failure
        assert failure.reason == experiment_pb2.FAILURE_REASON_WORKER_DIED
        assert failure.kind == experiment_pb2.FAILURE_KIND_SYSTEM
        assert failure.exit_code == -signal.SIGKILL
        assert get(owner, spared).state == STATES.TRAINING_STATE_RUNNING
        owner.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=spared))
        sequences(owner, spared)
        # The pool has replaced what was lost.
        after = start(owner, a_training(project_id, dataset_id))
        sequences(owner, after)
        assert get(owner, after).state == STATES.TRAINING_STATE_SUCCEEDED
        assert not list((tmp_path / "data" / "work").iterdir())


def works_for(process: psutil.Process, folder: Path, experiment_id: str, owner: Client) -> bool:
    """Whether a process is the worker of the older of two trainings: it works in the folder that was made first."""
    folders = sorted((folder / "data" / "work").iterdir(), key=lambda each: each.stat().st_ctime)
    first = min(folders, key=lambda each: each.stat().st_mtime)
    try:
        return Path(process.cwd()) == first and get(owner, experiment_id).state == STATES.TRAINING_STATE_RUNNING
    except (psutil.Error, OSError):
        return False


@pytest.mark.slow
def test_a_training_longer_than_its_time_ends(owner: Client, project_id: str) -> None:
    request = a_long_training(project_id, upload(owner, project_id).id)
    request.spec.max_duration.FromSeconds(1)
    experiment_id = start(owner, request)
    sequences(owner, experiment_id)
    failure = get(owner, experiment_id).failure
    assert failure.reason == experiment_pb2.FAILURE_REASON_TIME_LIMIT
    assert failure.kind == experiment_pb2.FAILURE_KIND_USER


@pytest.mark.slow
def test_a_hundred_starts_with_one_request_id_start_one_training(owner: Client, project_id: str) -> None:
    request = a_training(project_id, upload(owner, project_id).id, request_id=str(uuid4()))

    def insist(_: int) -> str:
        while True:
            try:
                return start(owner, request)
            except grpc.RpcError as error:
                found = refusal_of(error)
                assert found.short == ("RESOURCE_EXHAUSTED", "OVERLOADED"), found
                assert found.retry_seconds

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        assert len(set(pool.map(insist, range(100)))) == 1
    listed = owner.trainings.ListExperiments(pb.ListExperimentsRequest(project_id=project_id)).experiments
    assert len(listed) == 1
