"""A model server answers what the stored pipeline predicts: every algorithm, from its graph and from its pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.domain.algorithms import Algorithm, Task
from easyml_server.domain.catalogue import ALGORITHMS
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.manifest import MANIFEST_FILENAME, dump_manifest, load_manifest
from easyml_server.domain.models import ArtifactFormat, Signature
from easyml_server.ml import graphs
from easyml_server.ml.export import load_pipeline
from easyml_server.ml.prepare import prepare
from easyml_server.serving.models import LoadedModel, load_model
from easyml_server.serving.predictions import write_response
from easyml_server.serving.tables import TableLimits
from tests.unit.ml.training_jobs import FEATURES, Columns, a_job, a_mixed_table, succeed

VERSION = str(UUID(int=1))
ROWS = 60
UNSEEN = "\N{SNOWMAN}"


@dataclass(frozen=True)
class Trained:
    """One algorithm, trained once for all tests here."""

    algorithm: Algorithm
    folder: Path

    @property
    def signature(self) -> Signature:
        return load_manifest((self.folder / MANIFEST_FILENAME).read_bytes()).signature

    def served(self, format: ArtifactFormat) -> LoadedModel:
        """The model with only one of its stored forms in the manifest."""
        path = self.folder / MANIFEST_FILENAME
        whole = path.read_bytes()
        manifest = load_manifest(whole)
        artifacts = tuple(each for each in manifest.artifacts if each.format is format)
        assert artifacts, manifest.parity.cause
        path.write_text(dump_manifest(replace(manifest, artifacts=artifacts)))
        try:
            return load_model(VERSION, self.folder, TableLimits())
        finally:
            path.write_bytes(whole)


@pytest.fixture(scope="module", params=ALGORITHMS, ids=lambda a: f"{a.task}-{a.name}")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(request.param, tmp_path_factory.mktemp(request.param.name), a_mixed_table())


def train(algorithm: Algorithm, folder: Path, table: Columns) -> Trained:
    job = a_job(
        folder,
        table,
        target="level" if algorithm.task is Task.CLASSIFICATION else "score",
        task=algorithm.task,
        algorithm=algorithm.name,
        features=FEATURES,
    )
    succeed(job)
    return Trained(algorithm, Path(job.output_path))


def held_out() -> Columns:
    """Rows nothing was learned from, some without any value, some with a category never seen."""
    table = {name: column for name, column in a_mixed_table(ROWS, seed=99).items() if name in FEATURES}
    for kind, values in table.values():
        values[3] = values[-1] = None
        if kind is StorageType.STRING:
            values[5] = UNSEEN
    return table


def as_columns(table: Columns) -> pb.PredictRequest:
    request = pb.PredictRequest(model_version_id=VERSION)
    for name, (kind, values) in table.items():
        column = request.columns.columns.add(name=name)
        nulls = [row for row, value in enumerate(values) if value is None]
        column.null_positions.extend(nulls)
        _FILL[kind](column, ["" if value is None else value for value in values], nulls)
    return request


def _numbers(column: table_pb2.Column, values: list[Any], _nulls: list[int]) -> None:
    column.doubles.values.extend(0.0 if value == "" else value for value in values)


def _whole_numbers(column: table_pb2.Column, values: list[Any], _nulls: list[int]) -> None:
    column.int64s.values.extend(0 if value == "" else value for value in values)


def _texts(column: table_pb2.Column, values: list[Any], _nulls: list[int]) -> None:
    column.strings.values.extend(values)


def _bools(column: table_pb2.Column, values: list[Any], _nulls: list[int]) -> None:
    column.bools.values.extend(bool(value) for value in values)


def _times(column: table_pb2.Column, values: list[Any], nulls: list[int]) -> None:
    times = [0 if row in nulls else round(value.timestamp() * 1_000_000) for row, value in enumerate(values)]
    column.timestamps.micros.extend(times)


_FILL: Mapping[StorageType, Any] = {
    StorageType.DOUBLE: _numbers,
    StorageType.INT64: _whole_numbers,
    StorageType.STRING: _texts,
    StorageType.BOOL: _bools,
    StorageType.TIMESTAMP: _times,
}


def as_rows(table: Columns) -> pb.PredictRequest:
    request = pb.PredictRequest(model_version_id=VERSION)
    for row in range(ROWS):
        cells = {name: values[row] for name, (_, values) in table.items()}
        plain = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in cells.items()}
        request.rows.rows.add().update(plain)
    return request


def expected(trained: Trained, table: Columns) -> graphs.Answers:
    """What anyone gets who loads the stored pipeline in a script."""
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, (_, values) in table.items()})
    prepared = prepare(frame, trained.signature)
    pipeline = load_pipeline(trained.folder / "model.skops")
    return graphs.ask_pipeline(pipeline, prepared, probabilities=trained.signature.predicts_probabilities)


def asked(model: LoadedModel, request: pb.PredictRequest) -> pb.PredictResponse:
    response = pb.PredictResponse()
    write_response(model.version_id, model.signature, model.answer(model.reader.read(request)), response)
    return response


def answered(model: LoadedModel, request: pb.PredictRequest, trained: Trained) -> graphs.Answers:
    response = asked(model, request)
    classifies = trained.algorithm.task is Task.CLASSIFICATION
    column = response.predictions.strings if classifies else response.predictions.doubles
    shares = np.array([each.values for each in response.probabilities], dtype=np.float64).T
    return graphs.Answers(np.array(list(column.values)), shares if len(response.probabilities) else None)


@pytest.mark.parametrize("format", [ArtifactFormat.ONNX, ArtifactFormat.SKOPS])
@pytest.mark.parametrize("form", [as_columns, as_rows])
def test_a_model_server_answers_what_the_pipeline_predicts(trained: Trained, format: ArtifactFormat, form: Any) -> None:
    table = held_out()
    should_be = expected(trained, table)
    actual = answered(trained.served(format), form(table), trained)
    deviation = 0.0 if trained.signature.classes else float(np.std(should_be.predictions))
    parity = graphs.compare(should_be, actual, deviation)
    assert parity.proved, parity.cause
    if format is ArtifactFormat.SKOPS:
        assert parity.max_difference == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{a.task}-{a.name}")
def test_values_may_be_missing_where_they_never_were_in_training(algorithm: Algorithm, tmp_path: Path) -> None:
    columns = a_mixed_table(320)
    whole_rows = [row for row in range(320) if all(values[row] is not None for _, values in columns.values())]
    complete = {name: (kind, [values[row] for row in whole_rows]) for name, (kind, values) in columns.items()}
    trained = train(algorithm, tmp_path, complete)
    assert not any(column.nullable for column in trained.signature.inputs)
    table = held_out()
    should_be = expected(trained, table)
    deviation = 0.0 if trained.signature.classes else float(np.std(should_be.predictions))
    for stored in (ArtifactFormat.ONNX, ArtifactFormat.SKOPS):
        actual = answered(trained.served(stored), as_columns(table), trained)
        parity = graphs.compare(should_be, actual, deviation)
        assert parity.proved, parity.cause


def test_one_row_at_a_time_gives_the_same_answers(trained: Trained) -> None:
    table = {name: (kind, values[:8]) for name, (kind, values) in held_out().items()}
    model = trained.served(ArtifactFormat.ONNX)
    together = answered(model, as_columns(table), trained)
    singles = [
        answered(model, as_columns({name: (kind, [values[row]]) for name, (kind, values) in table.items()}), trained)
        for row in range(8)
    ]
    for row, single in enumerate(singles):
        if trained.signature.classes:
            assert single.predictions[0] == together.predictions[row]
        else:
            assert single.predictions[0] == pytest.approx(together.predictions[row], rel=1e-5)


def test_what_was_made_up_is_noted(trained: Trained) -> None:
    table = held_out()
    response = asked(trained.served(ArtifactFormat.ONNX), as_columns(table))
    filled = {(note.row, note.column) for note in response.notes if note.kind == pb.CELL_NOTE_KIND_NULL_FILLED}
    unseen = {(note.row, note.column) for note in response.notes if note.kind == pb.CELL_NOTE_KIND_UNSEEN_CATEGORY}
    assert filled == {
        (row, name) for name, (_, values) in table.items() for row, value in enumerate(values) if value is None
    }
    assert unseen == {(5, "city")}
