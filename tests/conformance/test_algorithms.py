"""Every algorithm of the catalogue keeps the same promises, on a table of every type, with gaps and rare categories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import accuracy_score, root_mean_squared_error

from easyml_server.domain.algorithms import Algorithm, Task
from easyml_server.domain.catalogue import ALGORITHMS
from easyml_server.domain.events import IterationCompleted, StageStarted
from easyml_server.domain.experiments import Metric, Partition, TrainingStage
from easyml_server.domain.manifest import load_manifest
from easyml_server.domain.models import ArtifactFormat, ModelManifest
from easyml_server.domain.training import Report, SplitMade, TrainingJob, TrainingSucceeded
from easyml_server.ml import graphs
from easyml_server.ml.export import load_pipeline, probe_rows
from easyml_server.ml.frames import read_frame
from easyml_server.ml.metrics import expected_metrics
from easyml_server.ml.prepare import prepare
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, again, succeed

FOLDS = 2


@dataclass(frozen=True)
class Trained:
    """One algorithm, trained once for all tests here."""

    algorithm: Algorithm
    job: TrainingJob
    outcome: TrainingSucceeded
    reports: list[Report]

    @property
    def manifest(self) -> ModelManifest:
        return self.outcome.manifest

    def file(self, format: ArtifactFormat) -> Path:
        names = {artifact.format: artifact.filename for artifact in self.manifest.artifacts}
        return Path(self.job.output_path) / names[format]

    def table(self) -> pd.DataFrame:
        return prepare(read_frame(self.job.table_path, FEATURES), self.manifest.signature)


@pytest.fixture(scope="module", params=ALGORITHMS, ids=lambda a: f"{a.task}-{a.name}")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    algorithm: Algorithm = request.param
    target = "level" if algorithm.task is Task.CLASSIFICATION else "score"
    job = a_job(
        tmp_path_factory.mktemp(algorithm.name),
        a_mixed_table(),
        target=target,
        task=algorithm.task,
        algorithm=algorithm.name,
        features=FEATURES,
        folds=FOLDS,
    )
    return Trained(algorithm, job, *succeed(job))


def test_every_stage_is_told_in_order(trained: Trained) -> None:
    stages = [report.stage for report in trained.reports if isinstance(report, StageStarted)]
    assert stages == list(TrainingStage)


def test_every_metric_has_a_finite_value_on_every_partition(trained: Trained) -> None:
    classes = len(trained.manifest.signature.classes)
    probabilities = trained.manifest.signature.predicts_probabilities
    expected = set(expected_metrics(trained.algorithm.task, classes, probabilities=probabilities))
    for partition in Partition:
        values = {m.metric: m for m in trained.outcome.metrics if m.partition is partition}
        assert set(values) == expected
        assert all(np.isfinite(value.value) for value in values.values())
        has_deviation = [value.standard_deviation is not None for value in values.values()]
        assert all(has_deviation) if partition is Partition.VALIDATION else not any(has_deviation)


def test_results_in_detail_are_those_of_the_metrics(trained: Trained) -> None:
    results = trained.outcome.results
    values = {m.metric: m.value for m in trained.outcome.metrics if m.partition is Partition.TEST}
    assert results.rows == next(report for report in trained.reports if isinstance(report, SplitMade)).test_rows
    if results.classification is not None:
        classes = results.classification.classes
        assert values[Metric.F1_MACRO] == pytest.approx(sum(each.f1 for each in classes) / len(classes))
        assert len(results.classification.curves) == (1 if len(classes) == 2 else len(classes))
        for curve in results.classification.curves:
            assert bool(curve.calibration) == trained.algorithm.predicts_probabilities
    else:
        assert results.regression is not None
        assert len(results.regression.pairs) == min(results.rows, 200)
        errors = [abs(pair.true - pair.predicted) for pair in results.regression.pairs]
        if results.rows <= 200:
            assert values[Metric.MAE] == pytest.approx(sum(errors) / len(errors))


def test_the_catalogue_says_truly_whether_there_are_probabilities(trained: Trained) -> None:
    assert trained.manifest.signature.predicts_probabilities == trained.algorithm.predicts_probabilities


def test_the_catalogue_says_truly_whether_iterations_are_told(trained: Trained) -> None:
    iterations = [report for report in trained.reports if isinstance(report, IterationCompleted)]
    assert bool(iterations) == trained.algorithm.reports_iterations
    for fold in range(FOLDS + 1) if iterations else ():
        numbers = [event.iteration for event in iterations if event.fold == fold]
        assert numbers == sorted(set(numbers))
        assert numbers[0] >= 1
        assert all(event.iterations in (0, numbers[-1]) for event in iterations if event.fold == fold)


def test_the_same_seed_gives_the_same_model_to_the_last_digit(trained: Trained) -> None:
    repeated = again(trained.job, folds=0)
    outcome, reports = succeed(repeated)
    first = [m for m in trained.outcome.metrics if m.partition is not Partition.VALIDATION]
    assert list(outcome.metrics) == first
    assert [r for r in reports if isinstance(r, SplitMade)] == [r for r in trained.reports if isinstance(r, SplitMade)]
    table = trained.table()
    models = [
        load_pipeline(trained.file(ArtifactFormat.SKOPS)),
        load_pipeline(Path(repeated.output_path, "model.skops")),
    ]
    for method in ("predict", "predict_proba") if trained.algorithm.predicts_probabilities else ("predict",):
        assert_array_equal(*(getattr(model, method)(table) for model in models))


def test_the_stored_pipeline_predicts_what_was_measured(trained: Trained) -> None:
    """From the raw table through `prepare`, as whoever loads the file would do it."""
    model = load_pipeline(trained.file(ArtifactFormat.SKOPS))
    truth = read_frame(trained.job.table_path, [trained.job.spec.target])[trained.job.spec.target].to_numpy()
    predicted = model.predict(trained.table())
    rows = next(report for report in trained.reports if isinstance(report, SplitMade))
    values = {(m.metric, m.partition): m.value for m in trained.outcome.metrics}
    shares = {Partition.TRAIN: rows.train_rows / len(truth), Partition.TEST: rows.test_rows / len(truth)}
    if trained.algorithm.task is Task.CLASSIFICATION:
        expected = sum(share * values[Metric.ACCURACY, side] for side, share in shares.items())
        assert accuracy_score(truth, predicted) == pytest.approx(expected)
    else:
        expected = sum(share * values[Metric.MSE, side] for side, share in shares.items())
        assert root_mean_squared_error(truth, predicted) == pytest.approx(expected**0.5)


def test_the_graph_predicts_what_the_stored_pipeline_predicts(trained: Trained) -> None:
    """Over the whole table, with rows without values and with categories never seen."""
    signature = trained.manifest.signature
    assert trained.manifest.parity.proved, trained.manifest.parity.cause
    assert trained.manifest.parity.rows > 0
    probabilities = signature.predicts_probabilities
    rows = probe_rows(trained.table(), signature)
    model = load_pipeline(trained.file(ArtifactFormat.SKOPS))
    session = graphs.open_graph(trained.file(ArtifactFormat.ONNX).read_bytes())
    names = [output.name for output in session.get_outputs()]
    assert names == [graphs.PREDICTION, graphs.PROBABILITIES][: 1 + probabilities]
    assert [argument.name for argument in session.get_inputs()] == list(rows.columns)
    expected = graphs.ask_pipeline(model, rows, probabilities=probabilities)
    deviation = 0.0 if signature.classes else float(np.std(expected.predictions))
    assert graphs.compare(expected, graphs.ask_graph(session, rows), deviation).proved


def test_the_manifest_is_complete_and_lies_beside_the_model(trained: Trained) -> None:
    manifest, folder = trained.manifest, Path(trained.job.output_path)
    assert load_manifest((folder / "manifest.json").read_bytes()) == manifest
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "model.skops", "model.onnx"}
    assert [artifact.size_bytes for artifact in manifest.artifacts] == [
        (folder / artifact.filename).stat().st_size for artifact in manifest.artifacts
    ]
    assert tuple(column.name for column in manifest.signature.inputs) == FEATURES
    assert len(manifest.input_example) == 5
    assert set(manifest.input_example[0]) == set(FEATURES)
    assert {"scikit-learn", trained.algorithm.implementation.partition(".")[0]} - {"sklearn"} <= set(
        manifest.library_versions
    )
