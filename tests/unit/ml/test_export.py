"""Only our types are loaded, and a manifest is read with suspicion."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skops.io.exceptions import UntrustedTypesFoundException

from easyml_server.domain.algorithms import Task
from easyml_server.domain.catalogue import ALGORITHMS
from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.manifest import BadManifest, dump_manifest, load_manifest
from easyml_server.domain.models import (
    Artifact,
    ArtifactFormat,
    ModelManifest,
    Parity,
    Signature,
    SignatureColumn,
)
from easyml_server.ml import export, graphs
from easyml_server.ml.export import FittedModel, load_pipeline, make_graph, probe_rows
from easyml_server.ml.trusted_types import TRUSTED_TYPES


class _Commands:
    """An object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize("kind", ["function", "reduce", "operator"])
def test_a_file_that_asks_for_a_command_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    hostile: Any = {
        "function": Pipeline([("bad", FunctionTransformer(os.system)), ("model", LinearRegression())]),
        "reduce": _Commands(canary),
        "operator": {"call": os.system, "with": f"touch {canary}"},
    }[kind]
    path = tmp_path / "model.skops"
    skops.io.dump(hostile, path)
    with pytest.raises(UntrustedTypesFoundException):
        load_pipeline(path)
    assert not canary.exists()


def test_the_list_of_types_holds_classes_of_the_libraries_only() -> None:
    assert len(TRUSTED_TYPES) < 24
    for name in TRUSTED_TYPES:
        assert name.partition(".")[0] in ("sklearn", "numpy", "xgboost", "lightgbm", "collections")
        assert name.rpartition(".")[2][0].isupper() or name == "numpy.dtype"


def a_fitted_model(pipeline: Pipeline, task: Task = Task.REGRESSION) -> FittedModel:
    frame = pd.DataFrame({"x": np.arange(20.0)})
    signature = Signature(
        (SignatureColumn("x", StorageType.DOUBLE, ColumnKind.NUMERIC, nullable=False),), "y", StorageType.DOUBLE
    )
    algorithm = next(a for a in ALGORITHMS if a.task is task and a.name == "decision_tree")
    return FittedModel(algorithm, pipeline.fit(frame, np.arange(20.0)), signature, "y", frame, 1.0, ())


def test_what_cannot_be_converted_has_no_graph_and_a_cause() -> None:
    odd = Pipeline([("odd", FunctionTransformer(np.log1p)), ("estimator", LinearRegression())])
    graph, parity = make_graph(a_fitted_model(odd))
    assert graph is None
    assert not parity.proved
    assert "cannot be turned into a graph" in parity.cause


def test_a_graph_that_predicts_otherwise_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = graphs.ask_graph
    monkeypatch.setattr(graphs, "ask_graph", lambda *a: graphs.Answers(ask(*a).predictions + 0.001, None))
    graph, parity = make_graph(a_fitted_model(Pipeline([("estimator", LinearRegression())])))
    assert graph is None
    assert (parity.proved, parity.rows) == (False, 20 + 20 + 20)
    assert parity.max_difference == pytest.approx(0.001, rel=1e-3)
    assert "60 of 60 rows" in parity.cause


@pytest.mark.parametrize("limit", ["MAX_CONVERTED_BYTES", "max_model_bytes"])
def test_a_graph_that_would_be_too_large_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    model = a_fitted_model(Pipeline([("estimator", LinearRegression())]))
    size = 1 << 30
    if limit == "MAX_CONVERTED_BYTES":
        monkeypatch.setattr(export, limit, 10)
    else:
        skops.io.dump(model.pipeline, tmp_path / "measured")
        size = (tmp_path / "measured").stat().st_size + 10
    with export.graph_beside(model) as graph:
        manifest = export.export_model(model, graph, tmp_path, size)
    assert [artifact.format for artifact in manifest.artifacts] == [ArtifactFormat.SKOPS]
    assert not manifest.parity.proved
    assert "too large" in manifest.parity.cause
    assert not (tmp_path / "model.onnx").exists()


def answers(predictions: list[Any], probabilities: list[list[float]] | None = None) -> graphs.Answers:
    return graphs.Answers(np.array(predictions), None if probabilities is None else np.array(probabilities))


@pytest.mark.parametrize(
    ("expected", "actual", "deviation", "proved"),
    [
        (answers(["a", "b"]), answers(["a", "b"]), 0.0, True),
        (answers(["a", "b"]), answers(["a", "a"]), 0.0, False),
        (answers([True]), answers([1]), 0.0, True),
        (answers([1], [[0.1, 0.9]]), answers([1], [[0.10009, 0.89991]]), 0.0, True),
        (answers([1], [[0.1, 0.9]]), answers([1], [[0.1002, 0.8998]]), 0.0, False),
        (answers([1], [[0.1, 0.9]]), answers([1], [[np.nan, 0.9]]), 0.0, False),
        (answers([5.0]), answers([5.00009]), 1.0, True),
        (answers([5.0]), answers([5.0002]), 1.0, False),
        (answers([5.0]), answers([np.nan]), 1.0, False),
        (answers([1e6]), answers([1e6 + 0.5]), 1.0, True),
        (answers([1e6]), answers([1e6 + 2]), 1.0, False),
    ],
)
def test_parity(expected: graphs.Answers, actual: graphs.Answers, deviation: float, proved: bool) -> None:
    parity = graphs.compare(expected, actual, deviation)
    assert parity.proved is proved
    assert np.isfinite(parity.max_difference)
    assert bool(parity.cause) is not proved


def test_probe_rows_hold_gaps_only_where_a_signature_allows_them() -> None:
    inputs = (
        SignatureColumn("n", StorageType.DOUBLE, ColumnKind.NUMERIC, nullable=True),
        SignatureColumn("whole", StorageType.DOUBLE, ColumnKind.NUMERIC, nullable=False),
        SignatureColumn("c", StorageType.STRING, ColumnKind.CATEGORICAL, nullable=True),
    )
    frame = pd.DataFrame({"n": [1.0], "whole": [2.0], "c": pd.Series(["a"], dtype=object)})
    rows = probe_rows(frame, Signature(inputs, "y", StorageType.DOUBLE))
    assert rows["n"].isna().tolist() == [False, True, False]
    assert rows["whole"].tolist() == [2.0] * 3
    assert rows["c"].tolist()[:2] == ["a", ""]
    assert rows["c"].tolist()[2] not in ("a", "")
    assert list(rows.dtypes) == list(frame.dtypes)


def a_manifest() -> ModelManifest:
    column = SignatureColumn("x", StorageType.STRING, ColumnKind.CATEGORICAL, nullable=True, categories=("ä", "b"))
    return ModelManifest(
        task=Task.CLASSIFICATION,
        algorithm="svc",
        target="y",
        signature=Signature((column,), "y", StorageType.BOOL, ("false", "true"), predicts_probabilities=True),
        artifacts=(Artifact(ArtifactFormat.SKOPS, "model.skops", 10, "0" * 64),),
        parity=Parity(proved=False, rows=3, max_difference=0.5, cause="because"),
        library_versions={"numpy": "2"},
        input_example=({"x": None}, {"x": "b"}),
    )


def test_a_manifest_comes_back_as_it_went() -> None:
    assert load_manifest(dump_manifest(a_manifest())) == a_manifest()


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(dump_manifest(a_manifest())), **fields})


def an_artifact(**fields: Any) -> dict[str, Any]:
    return {"format": "skops", "filename": "model.skops", "size_bytes": 1, "sha256": "0" * 64, **fields}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        b"\xff\xfe",
        changed(format=2),
        changed(format=None),
        changed(more=1),
        changed(task="clustering"),
        changed(algorithm=3),
        changed(artifacts={}),
        changed(artifacts=[{}]),
        changed(artifacts=[an_artifact(filename="../model.skops")]),
        changed(artifacts=[an_artifact(filename="/etc/passwd")]),
        changed(artifacts=[an_artifact(filename="")]),
        changed(artifacts=[an_artifact(sha256="0" * 63)]),
        changed(artifacts=[an_artifact(size_bytes=-1)]),
        changed(artifacts=[an_artifact(size_bytes=True)]),
        changed(artifacts=[an_artifact(format="pickle")]),
        changed(parity={"proved": 1}),
        changed(parity={"proved": True, "max_difference": "0"}),
        dump_manifest(a_manifest()).replace("0.5", "NaN"),
        changed(signature=None),
        changed(library_versions={"numpy": 2}),
    ],
)
def test_what_is_no_manifest_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadManifest):
        load_manifest(text)
