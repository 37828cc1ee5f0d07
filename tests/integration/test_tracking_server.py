"""MLflow on a tracking server: what comes to it, that nothing comes twice, and that nothing waits for it but the record."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from easyml.v1 import experiment_pb2, model_pb2, model_service_pb2, training_service_pb2
from easyml_server.data_folder import StartError
from easyml_server.doctor import examine
from easyml_server.processes.answers import ANSWER
from easyml_server.recording import tracking_server
from easyml_server.settings import Settings
from easyml_server.tracking.messages import REQUEST, Point, RecordRequest
from easyml_server.tracking.process import ENTRY
from tests.builders import a_project_of, a_training, upload
from tests.integration.documents import NOT_SERVING, SERVING, followed, health_of, started
from tests.mlflow import Gate, MlflowServer, gate, mlflow_server
from tests.proxy import proxy
from tests.servers import Client, ServerProcess, eventually, log_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RECORD_SECONDS = 120.0
PASSWORD = "canary%20word"
ACTIVE, DELETED = "ACTIVE_ONLY", "DELETED_ONLY"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def guarded(mlflow: MlflowServer) -> Iterator[Gate]:
    with gate(mlflow) as made:
        yield made


@contextmanager
def recording(tmp_path: Path, uri: str, **settings: str) -> Iterator[tuple[ServerProcess, Client]]:
    with (
        serving(tmp_path / "data", MLFLOW_TRACKING_URI=uri, **settings) as server,
        Client(server.address, server.key) as client,
    ):
        yield server, client


def trained(client: Client, **changes: Any) -> tuple[str, str]:
    """A project of one training that has ended; experiment and model version."""
    project_id = a_project_of(client)
    experiment_id = started(client, project_id, upload(client, project_id).id, **changes)
    return experiment_id, followed(client, experiment_id)


def experiment_of(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    request = training_service_pb2.GetExperimentRequest(experiment_id=experiment_id)
    experiment: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
    assert experiment.state == experiment_pb2.TRAINING_STATE_SUCCEEDED
    return experiment


def recorded(client: Client, experiment_id: str) -> str:
    """The id of its run, once it has one."""
    return eventually(lambda: experiment_of(client, experiment_id).mlflow_run_id, RECORD_SECONDS)


def document(server: ServerProcess, experiment_id: str) -> Any:
    """What the document of a run says; None without one."""
    with closing(sqlite3.connect(f"file:{server.data / 'easyml.db'}?mode=ro", uri=True)) as database:
        found = database.execute(
            "SELECT body FROM documents WHERE collection = 'mlflow_metadata' AND id = ?",
            [experiment_id.replace("-", "")],
        ).fetchone()
    return None if found is None else json.loads(found[0])


def export(client: Client, version_id: str) -> int:
    """The bytes of a version as MLflow has it."""
    request = model_service_pb2.ExportModelRequest(
        model_version_id=version_id, format=model_pb2.ARTIFACT_FORMAT_MLFLOW
    )
    return sum(len(answer.chunk) for answer in client.models.ExportModel(request))


def test_an_outage_delays_the_record_and_nothing_else(mlflow: MlflowServer, tmp_path: Path) -> None:
    with proxy(mlflow.host, mlflow.port) as way:
        way.down()
        with recording(tmp_path, f"http://127.0.0.1:{way.port}") as (server, client):
            assert health_of(client, "tracking") == SERVING
            experiment_id, version_id = trained(client)
            eventually(lambda: health_of(client, "tracking") == NOT_SERVING)
            assert health_of(client, "") == SERVING
            said = eventually(lambda: document(server, experiment_id))
            assert said["run_id"] == ""
            assert f"http://127.0.0.1:{way.port} does not answer" in said["problem"]
            assert "does not answer" in log_of(server.data).read_text()
            assert not experiment_of(client, experiment_id).mlflow_run_id
            assert export(client, version_id) > 0
            way.up()
            run_id = recorded(client, experiment_id)
            eventually(lambda: health_of(client, "tracking") == SERVING)
            said = document(server, experiment_id)
            assert (said["run_id"], said["problem"]) == (run_id, None)
            assert said["tracking_uri"] == f"http://127.0.0.1:{way.port}"
    (run,) = mlflow.runs(experiment_id)
    assert (run["info"]["run_id"], run["info"]["status"]) == (run_id, "FINISHED")
    assert {"model/MLmodel"} <= {
        each["path"] for each in mlflow.asked(f"artifacts/list?run_id={run_id}&path=model")["files"]
    }
    assert not (server.data / "mlflow" / "mlflow.db").exists()


def test_a_server_killed_in_the_middle_of_a_run_leaves_one_whole_run(guarded: Gate, tmp_path: Path) -> None:
    with recording(tmp_path, f"http://{guarded.address}") as (server, client):
        # Parameters and metrics are there by then, and no file is.
        guarded.hold("mlflow-artifacts")
        experiment_id, _ = trained(client)
        assert guarded.holding.wait(RECORD_SECONDS)
        assert [run["info"]["status"] for run in guarded.target.runs(experiment_id)] == ["RUNNING"]
        server.kill()
        guarded.release()
        server.start()
        with Client(server.address, server.key) as again:
            run_id = recorded(again, experiment_id)
    (run,) = guarded.target.runs(experiment_id, ACTIVE)
    assert (run["info"]["run_id"], run["info"]["status"]) == (run_id, "FINISHED")
    assert len(guarded.target.runs(experiment_id, DELETED)) == 1


def test_refusals_are_told_in_words_and_tried_again(guarded: Gate, tmp_path: Path) -> None:
    guarded.credentials = "ann:canary word"
    guarded.refusing = 401
    with recording(tmp_path, f"http://ann:{PASSWORD}@{guarded.address}") as (server, client):
        experiment_id, _ = trained(client)
        log = log_of(server.data)
        for status, words in (
            (401, "does not take the credentials (401); set MLFLOW_TRACKING_USERNAME"),
            (403, "does not allow it (403)"),
            (500, "answers with an error of its own (500)"),
        ):
            guarded.refusing = status
            eventually(lambda words=words: words in log.read_text(), RECORD_SECONDS)  # type: ignore[misc]
            assert health_of(client, "tracking") == NOT_SERVING
        guarded.refusing = None
        # With the password of the URI, which nobody is shown.
        recorded(client, experiment_id)
        said = document(server, experiment_id)
    assert said["tracking_uri"] == f"http://{guarded.address}"
    for text in (log.read_text(), json.dumps(said), json.dumps(guarded.target.runs(experiment_id))):
        assert "canary" not in text


def test_two_that_record_one_experiment_at_once_make_one_run(guarded: Gate, tmp_path: Path) -> None:
    request = RecordRequest(
        1, "an-experiment", "together", "run", "FINISHED", 1000, 2000, {"a": "1"}, [Point("m", 1.0, 0, 1000)], {}, None
    )
    settings = Settings(mlflow_tracking_uri=f"http://{guarded.address}", data_dir=tmp_path)
    to = tracking_server(settings)
    assert to is not None
    guarded.hold("runs/update")
    writers = [recorder(tmp_path, dict(to.environment)) for _ in range(2)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(REQUEST.dump_json(request) + b"\n")
        writer.stdin.flush()
    # Both have made a run that is not finished.
    eventually(lambda: guarded.held == 2, RECORD_SECONDS)
    guarded.release()
    answers = [ANSWER.validate_json(writer.stdout.readline()) for writer in writers if writer.stdout]
    for writer in writers:
        writer.communicate()
    (run,) = guarded.target.runs("an-experiment")
    assert run["info"]["status"] == "FINISHED"
    done = {answer.result["run_id"] for answer in answers if not answer.error}
    assert done <= {run["info"]["run_id"]}
    assert all(not answer.error or "tried" in answer.error for answer in answers), answers


def recorder(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A tracking process."""
    return subprocess.Popen(
        [sys.executable, "-m", ENTRY, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": ":".join(sys.path), "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
    )


def test_doctor_says_whether_it_answers(guarded: Gate, tmp_path: Path) -> None:
    def found(uri: str) -> tuple[bool, str]:
        settings = Settings(mlflow_tracking_uri=uri, data_dir=tmp_path)
        (finding,) = [each for each in examine(settings) if each.what == "tracking"]
        return finding.ok, finding.sentence

    guarded.credentials = "ann:canary word"
    assert found(f"http://ann:{PASSWORD}@{guarded.address}") == (
        True,
        f"http://{guarded.address} answers, and experiments can be read.",
    )
    fine, sentence = found(f"http://ann:wrong@{guarded.address}")
    assert not fine
    assert "(401)" in sentence
    assert found("ftp://elsewhere")[0] is False


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host", "not of http or https"),
        ("http://", "has no host"),
        ("http://ann@host", "without a password"),
        ("http://ann:canary@host:port", "cannot be read"),
        ("http://ann:canary@host?x=1", "behind ? or #"),
    ],
)
def test_what_names_no_server_is_said_at_start_without_a_password(uri: str, words: str) -> None:
    with pytest.raises(StartError, match="EASYML_MLFLOW_TRACKING_URI|MLFLOW_TRACKING_USERNAME") as raised:
        tracking_server(Settings(mlflow_tracking_uri=uri))
    assert words in str(raised.value)
    assert "canary" not in str(raised.value)
