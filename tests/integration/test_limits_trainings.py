"""How many trainings wait and run, for how long and on how much memory, and how much they tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import easyml_server.ml.training
from easyml.v1 import experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml_server.domain.events import LogLine
from tests.builders import a_long_training, a_project_of, a_training, upload
from tests.marks import limits
from tests.servers import Client, refusal, serving
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table

pytestmark = pytest.mark.slow

STATES = experiment_pb2.TrainingState
THINNED = experiment_pb2.TRAINING_WARNING_KIND_EVENTS_THINNED


def start(client: Client, request: pb.StartTrainingRequest) -> str:
    return str(client.trainings.StartTraining(request).experiment.id)


def get(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    request = pb.GetExperimentRequest(experiment_id=experiment_id)
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
    return found


def watch(client: Client, experiment_id: str) -> list[Any]:
    events = client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=experiment_id))
    return [each.event for each in events if each.HasField("event")]


def until_it_runs(client: Client, experiment_id: str) -> None:
    events = client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=experiment_id))
    next(each for each in events if each.event.WhichOneof("event") == "stage_started")
    events.cancel()


@limits("TRAININGS_PER_PROJECT", "QUEUED_PER_PROJECT", "QUEUE_LENGTH")
def test_a_project_has_so_many_trainings_and_runs_so_many_at_once(tmp_path: Path) -> None:
    settings = {"WORKERS": "2", "TRAININGS_PER_PROJECT": "1", "QUEUED_PER_PROJECT": "2", "QUEUE_LENGTH": "3"}
    with serving(tmp_path / "data", **settings) as server, Client(server.address, server.key) as owner:
        projects = [a_project_of(owner) for _ in range(3)]
        datasets = [upload(owner, project).id for project in projects]

        def full(number: int, setting: str, maximum: int) -> None:
            request = a_training(projects[number], datasets[number])
            for request.validate_only in (True, False):
                said = refusal(owner.trainings.StartTraining, request)
                assert said.short == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
                assert said.metadata == {"limit": f"EASYML_{setting}", "maximum": str(maximum)}
                assert said.retry_seconds

        running = start(owner, a_long_training(projects[0], datasets[0]))
        until_it_runs(owner, running)
        waiting = start(owner, a_training(projects[0], datasets[0]))
        full(0, "QUEUED_PER_PROJECT", 2)
        # A worker is free, and a training of another project that came later gets it.
        later = start(owner, a_long_training(projects[1], datasets[1]))
        until_it_runs(owner, later)
        assert get(owner, waiting).state == STATES.TRAINING_STATE_QUEUED
        full(2, "QUEUE_LENGTH", 3)
        for experiment_id in (running, later):
            owner.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=experiment_id))
            watch(owner, experiment_id)
        watch(owner, waiting)
        assert get(owner, waiting).state == STATES.TRAINING_STATE_SUCCEEDED
        assert start(owner, a_training(projects[2], datasets[2]))


def with_trees(project: str, dataset: str, trees: int) -> pb.StartTrainingRequest:
    request = a_training(project, dataset, algorithm="gradient_boosting")
    request.spec.hyperparameters.update({"n_estimators": trees})
    return request


@limits("EVENTS_PER_RUN")
def test_a_training_tells_so_much_and_then_what_it_left_out(tmp_path: Path) -> None:
    settings = {"EVENTS_PER_RUN": "100", "EVENTS_PER_SECOND": "100000"}
    with serving(tmp_path / "data", **settings) as server, Client(server.address, server.key) as owner:
        project = a_project_of(owner)
        dataset = upload(owner, project).id
        for trees, all_told in ((50, True), (300, False)):
            events = watch(owner, start(owner, with_trees(project, dataset, trees)))
            kinds = Counter(event.WhichOneof("event") for event in events)
            thinned = [e.warning.message for e in events if e.warning.kind == THINNED]
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            if all_told:
                assert (kinds["iteration_completed"], thinned) == (trees, [])
                continue
            assert 50 < kinds["iteration_completed"] < 100
            left_out = trees - kinds["iteration_completed"]
            assert [message.split()[0] for message in thinned] == [str(left_out)]


@limits("EVENTS_PER_SECOND")
def test_a_training_tells_so_much_a_second(tmp_path: Path) -> None:
    with serving(tmp_path / "data", EVENTS_PER_SECOND="20") as server, Client(server.address, server.key) as owner:
        project = a_project_of(owner)
        events = watch(owner, start(owner, with_trees(project, upload(owner, project).id, 300)))
        told = [event for event in events if event.HasField("iteration_completed")]
        # A second's worth may come at once; what is told besides counts too.
        seconds = (events[-1].event_time.ToDatetime() - events[0].event_time.ToDatetime()).total_seconds()
        assert 1 <= len(told) <= 20 + 20 * seconds
        thinned = [e.warning.message for e in events if e.warning.kind == THINNED]
        assert [message.split()[0] for message in thinned] == [str(300 - len(told))]


@limits("TRAINING_SECONDS", "WORKER_MEMORY_BYTES")
@pytest.mark.parametrize(
    ("setting", "reason", "kind"),
    [
        ({"TRAINING_SECONDS": "2"}, "TIME_LIMIT", "USER"),
        ({"WORKER_MEMORY_BYTES": str(100 << 20)}, "OUT_OF_MEMORY", "SYSTEM"),
    ],
)
def test_a_training_ends_at_the_limits_of_the_server(
    tmp_path: Path, setting: dict[str, str], reason: str, kind: str
) -> None:
    with serving(tmp_path / "data", **setting) as server, Client(server.address, server.key) as owner:
        project = a_project_of(owner)
        dataset = upload(owner, project).id
        if reason == "TIME_LIMIT":
            # Short enough, and more than is allowed is no more than is allowed.
            watch(owner, short := start(owner, a_training(project, dataset)))
            assert get(owner, short).state == STATES.TRAINING_STATE_SUCCEEDED
        request = a_long_training(project, dataset)
        request.spec.max_duration.FromSeconds(3600)
        watch(owner, experiment_id := start(owner, request))
        ended = get(owner, experiment_id)
        assert ended.failure.reason == experiment_pb2.FailureReason.Value(f"FAILURE_REASON_{reason}")
        assert ended.failure.kind == experiment_pb2.FailureKind.Value(f"FAILURE_KIND_{kind}")
        if reason == "TIME_LIMIT":
            assert ended.spec.max_duration.ToTimedelta().total_seconds() == 2


@limits("LOG_LINE_BYTES")
def test_a_log_line_has_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(easyml_server.ml.training, "build_estimator", broken)
    job = a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES)
    lines = {}
    for size in (256, 8192):
        reports: list[Any] = []
        easyml_server.ml.training.train(replace(job, log_line_bytes=size), reports.append)
        (lines[size],) = (report.text for report in reports if isinstance(report, LogLine))
    assert len(lines[8192]) > 256
    assert len(lines[256]) == 256
    assert lines[8192].endswith(lines[256])
