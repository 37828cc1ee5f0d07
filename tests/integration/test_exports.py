"""Exported models: each file loads in a process that knows nothing of the server, and predicts what Predict does."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from easyml.v1 import dataset_pb2, model_pb2, prediction_service_pb2, table_pb2
from easyml.v1 import model_service_pb2 as pb
from easyml.v1 import training_service_pb2 as trainings
from tests.builders import a_project_of, a_training, upload
from tests.marks import answers, limits, refuses
from tests.servers import ROOT, Client, refusal, serving

PENGUINS = ROOT / "examples/data/penguins.csv"
NAMES = ("island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex", "year")
ROWS: list[dict[str, Any]] = [
    dict(zip(NAMES, values, strict=True))
    for values in (
        ("Dream", 49.0, 19.5, 210.0, 3950.0, "male", 2008),
        ("Biscoe", 46.1, 13.2, 211.0, 4500.0, "female", 2007),
        ("Torgersen", 39.1, 18.7, 181.0, 3750.0, "male", 2009),
    )
]
SCRIPTS = {
    "onnx": """
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(path)
feeds = {}
for argument, name in zip(session.get_inputs(), rows[0], strict=True):
    kind = {"tensor(string)": object, "tensor(float)": np.float32, "tensor(double)": np.float64}[argument.type]
    feeds[argument.name] = np.array([[row[name]] for row in rows], dtype=kind)
predictions, probabilities = session.run(None, feeds)
answer = predictions.ravel().tolist(), probabilities.tolist()
""",
    "skops": """
import pandas as pd, skops.io
pipeline = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
frame = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object if isinstance(rows[0][name], str)
                      else float) for name in rows[0]})
answer = pipeline.predict(frame).tolist(), pipeline.predict_proba(frame).tolist()
""",
    "mlflow": """
import zipfile, mlflow.pyfunc, pandas as pd
zipfile.ZipFile(path).extractall("model")
model = mlflow.pyfunc.load_model("model")
answer = list(model.predict(pd.DataFrame(rows))), None
import easyml_server
assert easyml_server.__file__.startswith(os.getcwd()), "its own code"
""",
}
SCRIPT = (
    "import json, os, sys, warnings\nwarnings.simplefilter('ignore')\npath, rows = sys.argv[1], json.load(sys.stdin)\n"
)


@pytest.fixture(scope="module")
def version(owner: Client) -> model_pb2.ModelVersion:
    """A model of penguins."""
    project_id = a_project_of(owner)
    dataset = upload(owner, project_id, PENGUINS.read_bytes(), filename="penguins.csv")
    return trained(owner, project_id, dataset, target="species", algorithm="logistic_regression", model_name="penguins")


def trained(client: Client, project_id: str, dataset: dataset_pb2.Dataset, **spec: Any) -> model_pb2.ModelVersion:
    started = client.trainings.StartTraining(a_training(project_id, dataset.id, **spec)).experiment
    *_, last = client.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id))
    request = pb.GetModelVersionRequest(model_version_id=last.event.finished.model_version_id)
    found: model_pb2.ModelVersion = client.models.GetModelVersion(request).model_version
    return found


def exported(client: Client, version_id: str, name: str) -> tuple[pb.ExportHeader, bytes]:
    format = model_pb2.ArtifactFormat.Value(f"ARTIFACT_FORMAT_{name.upper()}")
    first, *rest = client.models.ExportModel(pb.ExportModelRequest(model_version_id=version_id, format=format))
    content = b"".join(part.chunk for part in rest)
    assert (first.header.format, first.header.size_bytes) == (format, len(content))
    assert first.header.sha256 == hashlib.sha256(content).hexdigest()
    return first.header, content


@answers("ModelService/ExportModel")
@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_exported_model_predicts_the_same_in_a_plain_script(
    owner: Client, version: model_pb2.ModelVersion, tmp_path: Path, name: str
) -> None:
    header, content = exported(owner, version.id, name)
    assert header.filename == ("penguins-1.mlflow.zip" if name == "mlflow" else f"penguins-1.{name}")
    if name != "mlflow":
        stored = next(a for a in version.artifacts if a.format == header.format)
        assert (stored.sha256, stored.size_bytes) == (header.sha256, header.size_bytes)
    path = tmp_path / header.filename
    path.write_bytes(content)
    run = subprocess.run(
        [sys.executable, "-c", f"{SCRIPT}{SCRIPTS[name]}\nprint(json.dumps(answer))", str(path)],
        input=json.dumps(ROWS), capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    predictions, probabilities = json.loads(run.stdout.splitlines()[-1])
    request = prediction_service_pb2.PredictRequest(model_version_id=version.id, rows=table_pb2.RowTable())
    for row in ROWS:
        request.rows.rows.add().update(row)
    said = owner.predictions.Predict(request)
    assert predictions == list(said.predictions.strings.values) == ["Chinstrap", "Gentoo", "Adelie"]
    if probabilities is not None:
        served = [list(each) for each in zip(*(each.values for each in said.probabilities), strict=True)]
        for row, expected in zip(probabilities, served, strict=True):
            assert row == pytest.approx(expected, abs=1e-4)


@refuses("ModelService/ExportModel")
@limits("MAX_MODEL_BYTES")
@pytest.mark.slow
def test_a_form_that_was_not_made_says_why_and_a_model_that_is_too_large_fails(owner: Client, tmp_path: Path) -> None:
    project_id = a_project_of(owner)
    dataset = upload(owner, project_id)
    sizes = {a.format: a.size_bytes for a in trained(owner, project_id, dataset).artifacts}
    skops, onnx = sizes[model_pb2.ARTIFACT_FORMAT_SKOPS], sizes[model_pb2.ARTIFACT_FORMAT_ONNX]
    # Sizes of compressed files vary by a few bytes between runs.
    for maximum, made in ((skops + onnx + 64, True), (skops + onnx // 2, False)):
        with (
            serving(tmp_path / str(maximum), MAX_MODEL_BYTES=str(maximum)) as server,
            Client(server.address, server.key) as client,
        ):
            own_project = a_project_of(client)
            version = trained(client, own_project, upload(client, own_project))
            assert version.parity.proved is made
            if made:
                assert exported(client, version.id, "onnx")
                continue
            request = pb.ExportModelRequest(model_version_id=version.id, format=model_pb2.ARTIFACT_FORMAT_ONNX)
            said = refusal(client.models.ExportModel, request)
            assert said.short == ("FAILED_PRECONDITION", "FORMAT_UNAVAILABLE")
            assert said.metadata == {"format": "onnx", "cause": version.parity.cause}
            assert version.parity.cause in said.message
            assert exported(client, version.id, "skops")
