"""Stored models: loaded only as they were stored, and answering by their signature."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.models import ArtifactFormat
from easyml_server.serving.models import LoadedModel, load_model
from easyml_server.serving.predictions import write_response
from easyml_server.serving.predictors import CannotLoad
from easyml_server.serving.tables import TableLimits
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed
from tests.unit.serving.requests import VERSION, a_row, rows
from tests.unit.serving.stored import copy_of, manifest_of, pipeline_only, with_file


def load(folder: Path) -> LoadedModel:
    return load_model(VERSION, folder, TableLimits())


def ask(model: LoadedModel, *sent: dict[str, Any]) -> pb.PredictResponse:
    response = pb.PredictResponse()
    write_response(model.version_id, model.signature, model.answer(model.reader.read(rows(*sent))), response)
    return response


def refused(folder: Path) -> str:
    with pytest.raises(CannotLoad) as caught:
        load(folder)
    return str(caught.value)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert "manifest.json cannot be read" in refused(tmp_path)


def test_a_damaged_manifest_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = copy_of(trained, tmp_path / "model")
    (folder / "manifest.json").write_text(json.dumps({"format": 1}))
    assert "damaged" in refused(folder)


@pytest.mark.parametrize("name", ["model.onnx", "model.skops"])
def test_one_flipped_bit_is_refused(trained: Path, tmp_path: Path, name: str) -> None:
    folder = (copy_of if name == "model.onnx" else pipeline_only)(trained, tmp_path / "model")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert "SHA-256" in refused(folder)


def test_a_file_that_is_gone_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = copy_of(trained, tmp_path / "model")
    (folder / "model.onnx").unlink()
    assert "model.onnx cannot be read" in refused(folder)


def test_a_pipeline_with_a_function_of_the_system_is_refused_and_runs_nothing(trained: Path, tmp_path: Path) -> None:
    import os

    canary = tmp_path / "canary"
    harmful = skops.io.dumps(make_pipeline(FunctionTransformer(os.mkdir, kw_args={"path": str(canary)})))
    assert "trusted" in refused(with_file(trained, tmp_path / "model", ArtifactFormat.SKOPS, harmful))
    assert not canary.exists()


@pytest.mark.parametrize("format", [ArtifactFormat.ONNX, ArtifactFormat.SKOPS])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04"])
def test_bytes_that_are_no_model_are_refused(
    trained: Path, tmp_path: Path, format: ArtifactFormat, content: bytes
) -> None:
    refused(with_file(trained, tmp_path / "model", format, content))


def test_a_graph_that_takes_other_columns_is_refused(trained: Path, tmp_path: Path) -> None:
    signature = manifest_of(trained).signature
    fewer = replace(signature, inputs=signature.inputs[:-1])
    assert "other columns" in refused(copy_of(trained, tmp_path / "model", signature=fewer))


def test_a_model_that_fails_on_its_own_example_is_refused(trained: Path, tmp_path: Path) -> None:
    signature = replace(manifest_of(trained).signature, classes=("one",))
    assert "example" in refused(copy_of(trained, tmp_path / "model", signature=signature))


def test_an_imported_format_is_not_served(trained: Path, tmp_path: Path) -> None:
    assert "neither" in refused(with_file(trained, tmp_path / "model", ArtifactFormat.MLFLOW, b"zip"))


def test_a_model_without_an_example_is_warmed_up_all_the_same(trained: Path, tmp_path: Path) -> None:
    assert ask(load(copy_of(trained, tmp_path / "model", input_example=())), a_row()).model_version_id == VERSION


def test_the_answer_names_the_output_and_the_classes(trained: Path) -> None:
    signature = manifest_of(trained).signature
    answer = ask(load(trained), a_row(), a_row(size=None))
    assert answer.predictions.name == "level"
    assert set(answer.predictions.strings.values) <= {"high", "low", "middle"}
    assert len(answer.predictions.strings.values) == 2
    assert tuple(each.label for each in answer.probabilities) == signature.classes
    sums = np.sum([each.values for each in answer.probabilities], axis=0)
    assert sums == pytest.approx([1, 1])
    assert [(note.row, note.column) for note in answer.notes] == [(1, "size")]


def test_every_answer_has_an_id_of_its_own(trained: Path) -> None:
    model = load(trained)
    ids = {ask(model, a_row()).prediction_id for _ in range(50)}
    assert len(ids) == 50
    assert all(str(UUID(each)) == each and UUID(each).version == 4 for each in ids)


@pytest.mark.parametrize("pipeline", [False, True], ids=["graph", "pipeline"])
@pytest.mark.parametrize(
    ("storage_type", "values", "given"),
    [
        (StorageType.BOOL, [True, False], "bools"),
        (StorageType.INT64, [3, -1], "int64s"),
        (StorageType.DOUBLE, [3.0, -1.0], "int64s"),
        (StorageType.STRING, ["Łódź", "true"], "strings"),
    ],
)
def test_classes_come_back_as_they_were(
    tmp_path: Path, storage_type: StorageType, values: list[Any], given: str, *, pipeline: bool
) -> None:
    table = a_mixed_table()
    sizes = table["size"][1]
    table["kind"] = (storage_type, [values[0] if (size or 0) > 50 else values[1] for size in sizes])
    job = a_job(tmp_path, table, target="kind", features=FEATURES)
    succeed(job)
    folder = Path(job.output_path)
    answer = ask(
        load(pipeline_only(folder, tmp_path / "pipeline") if pipeline else folder), a_row(size=120), a_row(size=-20)
    )
    assert list(getattr(answer.predictions, given).values) == values


def test_a_regression_gives_numbers_and_no_probabilities(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_mixed_table(), target="score", features=FEATURES, task=Task.REGRESSION, algorithm="ridge")
    succeed(job)
    answer = ask(load(Path(job.output_path)), a_row())
    assert len(answer.predictions.doubles.values) == 1
    assert not answer.probabilities
