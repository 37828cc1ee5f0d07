"""A server whose clock goes back by an hour while people work on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from easyml.v1 import auth_service_pb2, dataset_service_pb2, experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_header, a_long_training, a_project_of, a_table, a_training, an_upload, register, upload
from tests.integration.replicas import watch
from tests.integration.set_back import AHEAD_FILE
from tests.servers import Client, ServerProcess, eventually, refusal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOUR = "3600"


@pytest.fixture
def ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Says how far the server's clock is ahead."""
    path = tmp_path / "ahead"
    path.write_text(HOUR)
    monkeypatch.setenv(AHEAD_FILE, str(path))
    return path


@pytest.fixture
def server(tmp_path: Path, ahead: Path) -> Iterator[ServerProcess]:
    assert ahead.exists()
    settings = {"OPEN_REGISTRATION": "true"}
    server = ServerProcess(tmp_path / "data", settings, program="tests.integration.set_back").start()
    try:
        yield server
    finally:
        server.stop()


def experiment(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(
        pb.GetExperimentRequest(experiment_id=experiment_id)
    ).experiment
    return found


def test_work_goes_on(server: ServerProcess, ahead: Path) -> None:
    with Client(server.address) as anonymous:
        session = register(anonymous).session
        with Client(server.address, session.access_token) as client:
            project_id = a_project_of(client)
            dataset_id = upload(client, project_id).id
            content = a_table()
            header = a_header(project_id, content, upload_id=str(uuid4()))
            assert refusal(client.datasets.UploadDataset, an_upload(header, content[:100])).reason
            running = client.trainings.StartTraining(a_long_training(project_id, dataset_id)).experiment.id
            next(event for event in watch(client, running) if event.WhichOneof("event") == "iteration_completed")

            ahead.write_text("0")

            # Who was signed in still is, and can stay so.
            client.auth.GetCurrentUser(auth_service_pb2.GetCurrentUserRequest())
            anonymous.auth.RefreshToken(auth_service_pb2.RefreshTokenRequest(refresh_token=session.refresh_token))
            # What ran ends in order.
            client.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=running))
            events = list(watch(client, running))
            times = [event.event_time.ToDatetime() for event in events]
            assert times == sorted(times)
            found = experiment(client, running)
            assert found.state == experiment_pb2.TRAINING_STATE_CANCELLED
            assert found.start_time.ToDatetime() <= found.end_time.ToDatetime()
            # What was half there is finished.
            request = dataset_service_pb2.GetUploadRequest(upload_id=header.upload_id)
            header.offset = client.datasets.GetUpload(request).upload.received_bytes
            made = client.datasets.UploadDataset(an_upload(header, content)).dataset
            # New work is done, and recorded: at once, not in an hour.
            started = client.trainings.StartTraining(a_training(project_id, made.id)).experiment.id
            assert list(watch(client, started))[-1].finished.state == experiment_pb2.TRAINING_STATE_SUCCEEDED
            for each in (running, started):
                eventually(lambda each=each: experiment(client, each).mlflow_run_id or None, seconds=60)
