"""A server whose trainings run on a Dask cluster: before there is one, on it, and when its workers die."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from easyml.v1 import experiment_pb2, prediction_service_pb2, table_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml_server.cluster import look_at_dask
from easyml_server.data_folder import StartError
from easyml_server.settings import Settings
from tests.builders import a_long_training, a_project_of, upload
from tests.dask import DaskCluster
from tests.integration.documents import NOT_SERVING, SERVING, followed, health_of, started
from tests.integration.replicas import watch, works_in
from tests.servers import Client, ServerProcess, environment, eventually, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]

QUEUED, RUNNING = experiment_pb2.TRAINING_STATE_QUEUED, experiment_pb2.TRAINING_STATE_RUNNING
CANCELLED = experiment_pb2.TRAINING_STATE_CANCELLED


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """One that is not there yet."""
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.remove_workers()
    if cluster.scheduler.process is not None:
        cluster.scheduler.stop()


@pytest.fixture(scope="module")
def server(cluster: DaskCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    files = (folder / "files").as_uri()
    with serving(folder / "data", DASK_ADDRESS=cluster.address, ARTIFACT_URL=files) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, server.key) as client:
        yield client


def files_of(server: ServerProcess) -> Path:
    return server.data.parent / "files"


def doctor_of(server: ServerProcess) -> tuple[bool, str]:
    """What the doctor says of Dask."""
    command = [sys.executable, "-m", "easyml_server", "doctor", "--json", "--data-dir", str(server.data)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(server.settings), check=False)
    (found,) = [finding for finding in json.loads(done.stdout) if finding["what"] == "dask"]
    return found["ok"], found["sentence"]


def look_at(cluster: DaskCluster, server: ServerProcess) -> str:
    """What the doctor says, without starting Python again."""
    settings = Settings(dask_address=cluster.address, artifact_url=files_of(server).as_uri())
    return asyncio.run(look_at_dask(settings, cluster.address))


def fits(server: ServerProcess) -> list[psutil.Process]:
    """Processes at work in a folder of the server's."""
    return [process for process in psutil.process_iter() if works_in(process, files_of(server) / "work")]


def test_trainings_wait_for_a_cluster_and_run_when_it_comes(
    cluster: DaskCluster, server: ServerProcess, client: Client
) -> None:
    eventually(lambda: health_of(client, "trainings") == NOT_SERVING)
    assert health_of(client, "") == SERVING
    with pytest.raises(StartError, match=r"does not answer .* \(dask scheduler\)"):
        look_at(cluster, server)
    project_id = a_project_of(client)
    experiment_id = started(client, project_id, upload(client, project_id).id)
    cluster.start_scheduler()
    with pytest.raises(StartError, match=r"has no workers; start some: dask worker"):
        look_at(cluster, server)
    answer = client.trainings.GetExperiment(pb.GetExperimentRequest(experiment_id=experiment_id))
    assert answer.experiment.state == QUEUED
    cluster.add_worker()
    version_id = followed(client, experiment_id)
    assert health_of(client, "trainings") == SERVING
    fine, sentence = doctor_of(server)
    assert fine, sentence
    assert "workers: 1" in sentence
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id, rows=table_pb2.RowTable())
    request.rows.rows.add().update({"x": 6.0, "z": 1.0})
    assert client.predictions.Predict(request).predictions.strings.values == ["b"]


def test_a_worker_lost_in_mid_run_is_told_and_replaced_and_cancel_ends_the_fit(
    cluster: DaskCluster, server: ServerProcess, client: Client
) -> None:
    cluster.remove_workers()
    worker = cluster.add_worker()
    project_id = a_project_of(client)
    request = a_long_training(project_id, upload(client, project_id).id)
    experiment_id = str(client.trainings.StartTraining(request).experiment.id)
    states, lines, killed = [], [], False
    for event in watch(client, experiment_id):
        if event.HasField("state_changed"):
            states.append(event.state_changed.state)
        elif event.HasField("log_line"):
            lines.append(event.log_line.text)
        elif event.HasField("stage_started") and states == [QUEUED, RUNNING] and not killed:
            worker.kill()
            cluster.add_worker()
            killed = True
        elif event.HasField("stage_started") and states == [QUEUED, RUNNING] * 2:
            break
    (fit,) = eventually(lambda: fits(server))
    client.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=experiment_id))
    psutil.wait_procs([fit], 10)
    assert not fit.is_running()
    assert any("Dask worker" in line and "starts from the beginning" in line for line in lines)
    events = list(watch(client, experiment_id))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].finished.state == CANCELLED


def test_a_fit_does_not_outlive_the_server_that_is_killed(
    cluster: DaskCluster, server: ServerProcess, client: Client
) -> None:
    project_id = a_project_of(client)
    request = a_long_training(project_id, upload(client, project_id).id)
    experiment_id = str(client.trainings.StartTraining(request).experiment.id)
    (fit,) = eventually(lambda: fits(server))
    server.kill()
    psutil.wait_procs([fit], 10)
    assert not fit.is_running()
    server.start()
    # The next server goes on with it, on the same cluster.
    (again,) = eventually(lambda: fits(server))
    assert again.pid != fit.pid
    with Client(server.address, server.key) as later:
        later.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=experiment_id))
        assert list(watch(later, experiment_id))[-1].finished.state == CANCELLED
