"""What MLflow's own tools see of a training: the run in `mlflow ui`, the model in a plain script."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from easyml.v1 import experiment_pb2, model_service_pb2, prediction_service_pb2, training_service_pb2
from tests.builders import a_project_of, a_training, upload
from tests.servers import ROOT, Client, ServerProcess, environment, eventually, free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TABLE = (
    "size,weight,owner,born,kind\n"
    + "\n".join(
        f"{number % 9 or ''},{number * 0.37 % 5:.2f},{'ann' if number % 3 else ''},2024-01-{number % 27 + 1:02},"
        f"{'cat' if number % 9 > 4 else 'dog'}"
        for number in range(300)
    )
    + "\n"
).encode()
ROWS = [
    {"size": 3, "weight": 1.25, "owner": "ann", "born": "2024-01-05T00:00:00Z"},
    {"size": None, "weight": 4.5, "owner": None, "born": "2024-01-20T00:00:00Z"},
    {"size": 8, "weight": None, "owner": "nobody", "born": None},
]
SCRIPT = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
rows = pd.DataFrame(json.load(sys.stdin))
rows["born"] = pd.to_datetime(rows["born"]).dt.tz_localize(None)
import easyml_server
print(json.dumps({"predictions": list(model.predict(rows)), "code": easyml_server.__file__}))
"""


@dataclass(frozen=True)
class Recorded:
    """A training that MLflow knows."""

    server: ServerProcess
    client: Client
    experiment: experiment_pb2.Experiment

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.server.data / 'mlflow' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    data = tmp_path_factory.mktemp("tracking") / "data"
    with (
        serving(data, MLFLOW_REGISTER_MODELS="true") as server,
        Client(server.address, server.key) as client,
    ):
        project_id = a_project_of(client)
        request = a_training(project_id, upload(client, project_id, TABLE).id, target="kind", algorithm="xgboost")
        request.spec.cross_validation.folds = 2
        request.spec.hyperparameters.update({"n_estimators": 12})
        started = client.trainings.StartTraining(request).experiment
        yield Recorded(server, client, recorded_run(client, started.id))


def recorded_run(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    """The experiment once MLflow has its run."""

    def look() -> experiment_pb2.Experiment | None:
        request = training_service_pb2.GetExperimentRequest(experiment_id=experiment_id)
        experiment: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
        assert experiment.state != experiment_pb2.TRAINING_STATE_FAILED, experiment.failure
        return experiment if experiment.mlflow_run_id else None

    return eventually(look, seconds=120)


@contextmanager
def mlflow_ui(recorded: Recorded) -> Iterator[str]:
    """`mlflow ui` on the data folder; its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", recorded.uri, "--port", str(port)]
    log = recorded.server.data.with_name("ui.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment({}), cwd=recorded.server.data.parent
        )
    try:
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(address, process), seconds=120)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "mlflow ui ended"
    try:
        with urllib.request.urlopen(f"{address}/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def asked(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_mlflow_ui_shows_the_run_with_parameters_metrics_per_step_and_the_model(recorded: Recorded) -> None:
    run_id = recorded.experiment.mlflow_run_id
    with mlflow_ui(recorded) as address:
        run = asked(address, f"runs/get?run_id={run_id}")["run"]
        history = asked(address, f"metrics/get-history?run_id={run_id}&metric_key=iteration.test_logloss")["metrics"]
        files = asked(address, f"artifacts/list?run_id={run_id}&path=model")["files"]
    assert run["info"]["status"] == "FINISHED"
    parameters = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert (parameters["algorithm"], parameters["hyperparameters.n_estimators"]) == ("xgboost", "12")
    told = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    metrics = {(m.partition, m.metric): m.value for m in recorded.experiment.metrics}
    accuracy = metrics[experiment_pb2.PARTITION_TEST, recorded.experiment.spec.objective.metric]
    assert told["test.accuracy"] == pytest.approx(accuracy)
    assert sorted(each["step"] for each in history) == list(range(1, 13))
    assert {"model/MLmodel", "model/input_example.json"} <= {each["path"] for each in files}


@pytest.mark.parametrize("named", ["by its run", "by its alias"])
def test_a_plain_script_loads_the_model_and_predicts_what_the_server_predicts(recorded: Recorded, named: str) -> None:
    model = aliased(recorded) if named == "by its alias" else f"runs:/{recorded.experiment.mlflow_run_id}/model"
    script = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", SCRIPT, recorded.uri, model],
        input=json.dumps(ROWS),
        capture_output=True,
        text=True,
        check=False,
        cwd=recorded.server.data.parent,
    )
    assert script.returncode == 0, script.stderr
    said = json.loads(script.stdout.splitlines()[-1])
    request = prediction_service_pb2.PredictRequest(model_version_id=recorded.experiment.model_version_id)
    for row in ROWS:
        request.rows.rows.add().update(row)
    answer = recorded.client.predictions.Predict(request)
    assert said["predictions"] == list(answer.predictions.strings.values)
    # Not this checkout's: what was stored beside the model is enough.
    assert not Path(said["code"]).is_relative_to(ROOT)


def aliased(recorded: Recorded) -> str:
    """Point an alias to the model; the URI once MLflow has it."""
    request = model_service_pb2.SetModelAliasRequest(
        model_version_id=recorded.experiment.model_version_id, alias="production"
    )
    recorded.client.models.SetModelAlias(request)

    def look() -> str | None:
        with closing(sqlite3.connect(recorded.uri.removeprefix("sqlite:///"))) as database:
            found = database.execute("SELECT name FROM registered_model_aliases WHERE alias = 'production'").fetchone()
        return None if found is None else str(found[0])

    return f"models:/{eventually(look, seconds=120)}@production"
