"""A server whose documents are on MongoDB: the same job, MongoDB that goes away and comes back, deaths in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from easyml.v1 import (
    dataset_service_pb2,
    experiment_pb2,
    model_service_pb2,
    prediction_service_pb2,
    project_pb2,
    project_service_pb2,
    training_service_pb2,
)
from tests.builders import a_long_training, a_project_of, a_training, upload
from tests.faults.consistency import check_no_process
from tests.faults.plan import FaultPlan
from tests.faults.points import DOCUMENT_POINTS
from tests.integration.documents import (
    NOT_SERVING,
    SERVING,
    config_of,
    followed,
    health_of,
    started,
    stored,
    trained,
    wait_until_applied,
    waiting,
)
from tests.mongodb import MongoServer, mongodb
from tests.servers import Client, ServerProcess, eventually, log_of, refusal, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TRAININGS = 10
READ_SECONDS = 20.0
"""What is promised of a call that needs what is away."""


@pytest.fixture
def server(tmp_path: Path, url: str) -> Iterator[ServerProcess]:
    with serving(tmp_path / "data", MONGODB_URL=url, MIGRATE_AT_START="true", WORKERS="2") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, server.key) as client:
        yield client


@contextmanager
def mortal(tmp_path: Path) -> Iterator[tuple[MongoServer, ServerProcess, Client]]:
    """A MongoDB that a test may kill, and a server on it."""
    with mongodb(tmp_path / "mongodb", mortal=True) as mongo:
        settings = {"MONGODB_URL": mongo.database_url("easyml"), "MIGRATE_AT_START": "true", "WORKERS": "2"}
        with serving(tmp_path / "data", **settings) as server, Client(server.address, server.key) as client:
            yield mongo, server, client


def renamed(project_id: str, name: str) -> project_service_pb2.UpdateProjectConfigRequest:
    """A write of a document."""
    config = project_pb2.ProjectConfig(project_id=project_id, mlflow_experiment=name)
    return project_service_pb2.UpdateProjectConfigRequest(
        config=config, update_mask=FieldMask(paths=["mlflow_experiment"])
    )


def listed(project_id: str) -> dataset_service_pb2.ListDatasetsRequest:
    """Its datasets with what their columns hold."""
    return dataset_service_pb2.ListDatasetsRequest(project_id=project_id, view=project_pb2.RESOURCE_VIEW_FULL)


def check_details(client: Client, project_id: str, dataset_id: str, version_id: str) -> None:
    """What MongoDB alone knows of a dataset or model is refused while it is away; all else is there."""
    get = dataset_service_pb2.GetDatasetRequest(dataset_id=dataset_id)
    version = model_service_pb2.GetModelVersionRequest(model_version_id=version_id)
    for call, request in (
        (client.datasets.GetDataset, get),
        (client.datasets.ListDatasets, listed(project_id)),
        (client.models.GetModelVersion, version),
    ):
        refused = refusal(call, request, timeout=READ_SECONDS)
        assert (refused.short, refused.metadata) == (("UNAVAILABLE", "PART_UNAVAILABLE"), {"part": "documents"})
        assert refused.retry_seconds
        request.view = project_pb2.RESOURCE_VIEW_BASIC
        assert call(request, timeout=READ_SECONDS)
    preview = dataset_service_pb2.PreviewDatasetRequest(dataset_id=dataset_id)
    assert client.datasets.PreviewDataset(preview).schema.columns
    assert client.models.GetModelVersion(version).model_version.signature.inputs


def state_of(client: Client, experiment_id: str) -> int:
    request = training_service_pb2.GetExperimentRequest(experiment_id=experiment_id)
    return int(client.trainings.GetExperiment(request).experiment.state)


def test_the_main_job_is_the_same(server: ServerProcess, client: Client, mongo: MongoServer, url: str) -> None:
    project_id, experiment_id, version_id = trained(client)
    client.projects.UpdateProjectConfig(renamed(project_id, "a.b$c"))
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id)
    request.rows.rows.add().update({"x": 0.1, "z": 3})
    assert list(client.predictions.Predict(request).predictions.strings.values) == ["a"]
    eventually(lambda: stored(mongo, url, "mlflow_metadata", experiment_id), 60)
    wait_until_applied(server.data)
    assert stored(mongo, url, "model_sessions", experiment_id)["state"] == "succeeded"
    assert stored(mongo, url, "project_configs", project_id)["mlflow_experiment"] == "a.b$c"
    get = model_service_pb2.GetModelVersionRequest(model_version_id=version_id)
    results = client.models.GetModelVersion(get).model_version.results
    assert len(results.classification.classes) == 2
    assert stored(mongo, url, "model_results", version_id)["rows"] == results.rows
    (dataset,) = client.datasets.ListDatasets(listed(project_id)).datasets
    held = stored(mongo, url, "dataset_metadata", dataset.current_version.id)
    assert [each["name"] for each in held["columns"]] == ["x", "z", "y"]
    assert len(dataset.current_version.statistics.columns) == 3
    assert health_of(client, "documents") == SERVING
    server.stop()
    server.start()
    with Client(server.address, server.key) as again:
        assert again.projects.GetProjectConfig(config_of(project_id)).config.mlflow_experiment == "a.b$c"
        again.projects.DeleteProject(project_service_pb2.DeleteProjectRequest(project_id=project_id, force=True))
        wait_until_applied(server.data)
    assert stored(mongo, url, "project_configs", project_id) is None
    assert stored(mongo, url, "model_sessions", experiment_id) is None
    assert stored(mongo, url, "mlflow_metadata", experiment_id) is None
    assert stored(mongo, url, "dataset_metadata", dataset.current_version.id) is None
    assert stored(mongo, url, "model_results", version_id) is None


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.faults)])
def test_mongodb_dies_in_the_middle_of_trainings_and_nothing_is_lost(tmp_path: Path, seconds: int) -> None:
    with mortal(tmp_path) as (mongo, server, client):
        project_id, _, version_id = trained(client)
        dataset_id = upload(client, project_id).id
        experiments = [started(client, project_id, dataset_id) for _ in range(TRAININGS)]
        wait_until_applied(server.data)
        followed(client, experiments[0])
        mongo.kill()
        killed = time.monotonic()
        for experiment_id in experiments:
            assert followed(client, experiment_id)
        # What needs the document that only MongoDB has is told to come back; the rest is answered.
        refused = refusal(client.projects.GetProjectConfig, config_of(project_id), timeout=READ_SECONDS)
        assert refused.short == ("UNAVAILABLE", "PART_UNAVAILABLE")
        assert refused.metadata == {"part": "documents"}
        assert refused.retry_seconds
        assert refusal(client.trainings.StartTraining, a_training(project_id, dataset_id)).short == refused.short
        check_details(client, project_id, dataset_id, version_id)
        eventually(lambda: health_of(client, "documents") == NOT_SERVING)
        other_id = a_project_of(client)
        name = ""
        while not name or time.monotonic() - killed < seconds:
            # Read as it was written, though MongoDB has never heard of it.
            name = f"after {time.monotonic() - killed} seconds"
            client.projects.UpdateProjectConfig(renamed(other_id, name), timeout=READ_SECONDS)
            answer = client.projects.GetProjectConfig(config_of(other_id), timeout=READ_SECONDS)
            assert answer.config.mlflow_experiment == name
            assert refusal(client.projects.GetProjectConfig, config_of(project_id), timeout=READ_SECONDS) is not None
            assert health_of(client, "") == SERVING
        assert waiting(server.data) >= TRAININGS
        mongo.start()
        eventually(lambda: health_of(client, "documents") == SERVING)
        wait_until_applied(server.data)
        url = mongo.database_url("easyml")
        for experiment_id in experiments:
            assert state_of(client, experiment_id) == experiment_pb2.TRAINING_STATE_SUCCEEDED
            assert stored(mongo, url, "model_sessions", experiment_id)["state"] == "succeeded"
        assert stored(mongo, url, "project_configs", other_id)["mlflow_experiment"] == name
        assert client.projects.GetProjectConfig(config_of(project_id)).config.project_id == project_id
        assert followed(client, started(client, project_id, dataset_id))


@pytest.mark.parametrize("point", DOCUMENT_POINTS)
def test_a_server_killed_around_an_apply_loses_nothing(
    tmp_path: Path, mongo: MongoServer, url: str, point: str
) -> None:
    plan = FaultPlan(tmp_path / "plan")
    settings = {"MONGODB_URL": url, "MIGRATE_AT_START": "true", "FAULT": str(plan.path)}
    with serving(tmp_path / "data", **settings) as server:
        with Client(server.address, server.key) as client:
            project_id = a_project_of(client)
            wait_until_applied(server.data)
            plan.arm(point)
            # Answered: the kill comes after the commit.
            client.projects.UpdateProjectConfig(renamed(project_id, "kept"))
            assert server.ended() == -9
        check_no_process(server.data)
        assert waiting(server.data) == 1
        plan.arm()
        server.start()
        with Client(server.address, server.key) as client:
            assert client.projects.GetProjectConfig(config_of(project_id)).config.mlflow_experiment == "kept"
            wait_until_applied(server.data)
            assert client.projects.GetProjectConfig(config_of(project_id)).config.mlflow_experiment == "kept"
    assert stored(mongo, url, "project_configs", project_id)["mlflow_experiment"] == "kept"


def test_a_server_comes_back_while_mongodb_is_away(tmp_path: Path) -> None:
    with mortal(tmp_path) as (mongo, server, client):
        project_id, _, _ = trained(client)
        wait_until_applied(server.data)
        long_id = started(client, project_id, upload(client, project_id).id, name="cut off")
        mongo.kill()
        server.kill()
        server.start()
        with Client(server.address, server.key) as again:
            # What a crash cut off is taken up without documents.
            assert followed(again, long_id)
            assert health_of(again, "documents") == NOT_SERVING
            assert refusal(again.projects.GetProjectConfig, config_of(project_id)).metadata == {"part": "documents"}
            mongo.start()
            eventually(lambda: health_of(again, "documents") == SERVING)
            assert again.projects.GetProjectConfig(config_of(project_id)).config.project_id == project_id
            wait_until_applied(server.data)


def test_a_quiet_watch_does_not_end_because_documents_are_away(tmp_path: Path) -> None:
    with mortal(tmp_path) as (mongo, _, client):
        project_id = a_project_of(client)
        dataset_id = upload(client, project_id).id
        # Two that run and one that waits: nothing happens to it until one of them has ended.
        running = [client.trainings.StartTraining(a_long_training(project_id, dataset_id)).experiment.id for _ in "ab"]
        queued = started(client, project_id, dataset_id)
        eventually(lambda: stored(mongo, mongo.database_url("easyml"), "model_sessions", queued))
        mongo.kill()
        eventually(lambda: health_of(client, "documents") == NOT_SERVING)
        watching = client.trainings.WatchTraining(training_service_pb2.WatchTrainingRequest(experiment_id=queued))
        beats = 0
        for answer in watching:
            beats += answer.HasField("heartbeat")
            if beats == 2:
                break
        for experiment_id in running:
            client.trainings.CancelTraining(training_service_pb2.CancelTrainingRequest(experiment_id=experiment_id))
        *_, last = watching
        assert last.event.HasField("finished")


def test_nothing_of_a_document_and_no_password_is_in_the_log(tmp_path: Path) -> None:
    with mortal(tmp_path) as (mongo, server, _):
        server.stop()
        head, _, tail = mongo.database_url("easyml").partition("://")
        secretive = f"{head}://someone:secret-password@{tail}?authSource=admin"
        wrong = {**server.settings, "MONGODB_URL": secretive, "LOG_LEVEL": "debug"}
        # What it wrote to its log is in the error.
        with pytest.raises(AssertionError, match="refuses the user or the password"):
            ServerProcess(server.data, wrong).start()
        talkative = {**server.settings, "LOG_LEVEL": "debug"}
        with serving(server.data, **talkative) as loud, Client(loud.address, loud.key) as client:
            project_id = a_project_of(client)
            client.projects.UpdateProjectConfig(renamed(project_id, "canary-in-a-document"))
            wait_until_applied(server.data)
            mongo.kill()
            assert refusal(client.projects.GetProjectConfig, config_of(project_id)).metadata == {"part": "documents"}
        mongo.start()
        server.start()
    said = log_of(server.data).read_text()
    assert "documents_away" in said
    assert "canary-in-a-document" not in said
    assert "secret-password" not in said
