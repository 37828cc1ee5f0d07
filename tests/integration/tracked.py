"""A server whose runs and models go to an MLflow tracking server, by a way that can be cut, watched and refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyml.v1 import experiment_pb2, model_pb2, model_service_pb2, prediction_service_pb2, training_service_pb2
from easyml_server.processes.answers import ANSWER, Answer
from easyml_server.tracking.messages import REQUEST, RecordRequest
from easyml_server.tracking.process import ENTRY
from tests.mlflow import Gate, MlflowServer, gate
from tests.proxy import Proxy, proxy
from tests.servers import Client, ServerProcess, eventually, serving

RECORD_SECONDS = 120.0
CREDENTIALS, IN_THE_URI = "ann:canary word", "ann:canary%20word"
VERSION_TAG = "easyml.model_version_id"
ROWS = [{"x": 0.5, "z": 3}, {"x": 6.001, "z": 9}, {"x": 4.0, "z": 0}]
SCRIPT = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(json.dumps(list(model.predict(pd.DataFrame(json.load(sys.stdin))))))
"""


@dataclass(frozen=True)
class Tracked:
    """The server, and what is between it and MLflow: a proxy, and behind it a gate that asks for a password."""

    mlflow: MlflowServer
    gate: Gate
    way: Proxy
    server: ServerProcess

    @property
    def uri(self) -> str:
        """As it is shown."""
        return f"http://127.0.0.1:{self.way.port}"

    def client(self) -> Client:
        """A new one, since a server may have been killed."""
        return Client(self.server.address, self.server.key)

    def document(self, experiment_id: str) -> Any:
        """What the document of a run says; None without one."""
        with closing(sqlite3.connect(f"file:{self.server.data / 'easyml.db'}?mode=ro", uri=True)) as database:
            found = database.execute(
                "SELECT body FROM documents WHERE collection = 'mlflow_metadata' AND id = ?",
                [experiment_id.replace("-", "")],
            ).fetchone()
        return None if found is None else json.loads(found[0])

    def registered(self, project_id: str) -> Any | None:
        """The one registered model of a project."""
        found = self.mlflow.models("easyml.project_id", project_id)
        assert len(found) <= 1
        return found[0] if found else None

    def versions(self, project_id: str) -> dict[str, str]:
        """MLflow's numbers by our ids."""
        model = self.registered(project_id)
        found = [] if model is None else self.mlflow.versions(model["name"])
        tags = [(tag, each["version"]) for each in found for tag in each.get("tags", [])]
        return {tag["value"]: number for tag, number in tags if tag["key"] == VERSION_TAG}

    def aliases(self, project_id: str) -> dict[str, str]:
        """MLflow's numbers by aliases."""
        model = self.registered(project_id)
        return {} if model is None else {each["alias"]: each["version"] for each in model.get("aliases", [])}


@contextmanager
def tracking(mlflow: MlflowServer, data: Path) -> Iterator[Tracked]:
    """Such a server for a while."""
    with gate(mlflow) as between, proxy(*between.address) as way:
        between.credentials = CREDENTIALS
        settings = {
            "MLFLOW_TRACKING_URI": f"http://{IN_THE_URI}@127.0.0.1:{way.port}",
            "MLFLOW_REGISTER_MODELS": "true",
        }
        with serving(data, **settings) as server:
            yield Tracked(mlflow, between, way, server)


def experiment_of(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    """A training that has succeeded, whatever became of its record."""
    request = training_service_pb2.GetExperimentRequest(experiment_id=experiment_id)
    experiment: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
    assert experiment.state == experiment_pb2.TRAINING_STATE_SUCCEEDED
    return experiment


def recorded(client: Client, experiment_id: str) -> str:
    """The id of its run, once it has one."""
    return eventually(lambda: experiment_of(client, experiment_id).mlflow_run_id, RECORD_SECONDS)


def exported(client: Client, version_id: str) -> int:
    """The bytes of a version as MLflow has it."""
    request = model_service_pb2.ExportModelRequest(model_version_id=version_id, format=model_pb2.ARTIFACT_FORMAT_MLFLOW)
    return sum(len(answer.chunk) for answer in client.models.ExportModel(request))


def predicted(client: Client, version_id: str) -> list[Any]:
    """What the server predicts."""
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id)
    for row in ROWS:
        request.rows.rows.add().update(row)
    return list(client.predictions.Predict(request).predictions.strings.values)


def predicted_by_a_script(uri: str, model: str) -> list[Any]:
    """What a script with MLflow alone predicts."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", SCRIPT, uri, model],
        input=json.dumps(ROWS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


class Writer:
    """A tracking process of the test's own."""

    def __init__(self, environment: dict[str, str], folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", ENTRY, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": ":".join(sys.path), "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        )

    def ask(self, request: RecordRequest) -> None:
        """Ask it to record a run."""
        assert self._process.stdin is not None
        self._process.stdin.write(REQUEST.dump_json(request) + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Answer:
        """What it says to that."""
        assert self._process.stdout is not None
        return ANSWER.validate_json(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@contextmanager
def writers(count: int, environment: dict[str, str], folder: str) -> Iterator[list[Writer]]:
    """Some of them for a while."""
    made = [Writer(environment, folder) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.close()
