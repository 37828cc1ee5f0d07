"""One training, from the stored table to the stored model; runs in a process of its own that can be killed."""

from __future__ import annotations

import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from easyml_server.domain.algorithms import Algorithm, Task
from easyml_server.domain.catalogue import find_algorithm
from easyml_server.domain.events import FoldCompleted, LogLevel, LogLine, StageStarted, WarningRaised
from easyml_server.domain.experiments import (
    FailureReason,
    MetricValue,
    Partition,
    TrainingSpec,
    TrainingStage,
    TrainingWarning,
    TrainingWarningKind,
)
from easyml_server.domain.models import ModelManifest, Signature, SignatureColumn
from easyml_server.domain.training import Outcome, Report, SplitMade, TrainingFailed, TrainingJob, TrainingSucceeded
from easyml_server.ml.estimators import build_estimator
from easyml_server.ml.evaluation import Evaluation, evaluate, warn_of_undefined
from easyml_server.ml.export import FittedModel, MadeGraph, export_model, graph_beside
from easyml_server.ml.features import choose_features
from easyml_server.ml.inference_time import inference_time_ms
from easyml_server.ml.leaks import possible_leaks
from easyml_server.ml.metrics import over_folds
from easyml_server.ml.objective import Aim, aim_of
from easyml_server.ml.pipeline import build_pipeline
from easyml_server.ml.prepare import prepare_cells
from easyml_server.ml.progress import Rows, Watch, fit_estimator
from easyml_server.ml.refusal import Refused, failure_of, library_refusals, words_of
from easyml_server.ml.results import results_of
from easyml_server.ml.splits import SplitRows, Splitter, split_key, split_sha256
from easyml_server.ml.target import Target
from easyml_server.ml.training_data import TrainingData, column_of, input_example, load_data

_RARE_ROWS: Final = 10


def train(job: TrainingJob, report: Callable[[Report], None]) -> Outcome:
    """Train as the job says and leave the model in its folder, or nothing.

    Whatever goes wrong is an outcome, except what ends the process. The same job gives the same model to the last
    digit: one thread, one seed. Warnings of the libraries about their own use go nowhere; what concerns the user is
    reported.
    """
    run = _Run(job, report)
    try:
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run.train()
    except Exception as error:  # the boundary of the worker
        spec = job.spec
        words = words_of(find_algorithm(spec.task, spec.algorithm), spec.hyperparameters)
        failure = failure_of(error, job.experiment_id, words)
        if failure.reason is FailureReason.INTERNAL:
            report(LogLine(LogLevel.ERROR, _where(error, job.log_line_bytes)))
        _empty(Path(job.output_path))
        return TrainingFailed(replace(failure, stage=run.stage))


@dataclass(frozen=True, slots=True)
class _Material:
    """What is learned from, by position: the rows as the pipeline takes them, and the objective."""

    inputs: tuple[SignatureColumn, ...]
    prepared: pd.DataFrame
    aim: Aim


@dataclass(slots=True)
class _Run:
    """One training as it goes through its stages."""

    job: TrainingJob
    report: Callable[[Report], None]
    stage: TrainingStage = TrainingStage.LOADING

    @property
    def spec(self) -> TrainingSpec:
        return self.job.spec

    def train(self) -> Outcome:
        self.begin(TrainingStage.LOADING)
        algorithm = _algorithm(self.spec)
        data = load_data(self.job, self.warn)
        self.begin(TrainingStage.PREPARING)
        aim = aim_of(self.spec.objective, algorithm, data.target, data.weights)
        splitter, rows = self.split(data)
        material = self.prepare(data, aim, rows)
        validation = self.cross_validate(algorithm, material, splitter, rows)
        self.begin(TrainingStage.FITTING)
        pipeline = self.fit(algorithm, material, rows, Watch(self.report))
        model = self.fitted_model(algorithm, pipeline, data, material, rows)
        with graph_beside(model) as graph:
            self.begin(TrainingStage.EVALUATING)
            sides = [self.evaluate(pipeline, material, rows, side) for side in (Partition.TRAIN, Partition.TEST)]
            results = results_of(sides[1].predictions, len(material.aim.target.labels), material.aim.positive)
            self.begin(TrainingStage.EXPORTING)
            manifest = self.export(model, graph)
            made, _ = graph.result()
            milliseconds = inference_time_ms(model, made.session if made and manifest.parity.proved else None)
        metrics = (*sides[0].metrics, *sides[1].metrics, *validation)
        matrices = tuple(side.matrix for side in sides if side.matrix)
        return TrainingSucceeded(metrics, matrices, results, manifest, milliseconds)

    def begin(self, stage: TrainingStage) -> None:
        self.stage = stage
        self.report(StageStarted(stage))

    def warn(self, warning: TrainingWarning) -> None:
        self.report(WarningRaised(warning))

    def split(self, data: TrainingData) -> tuple[Splitter, SplitRows]:
        split, key = self.spec.split, None
        if split.column:
            column = column_of(self.job.schema, split.column)
            key = split_key(data.cells[split.column], column.storage_type, split)
        codes = data.target.codes if self.spec.task is Task.CLASSIFICATION else None
        splitter = Splitter(split, len(data.numbers), codes, key)
        rows = splitter.rows()
        _check_weights(data, rows)
        self.report(SplitMade(len(rows.train), len(rows.test), split_sha256(data.numbers[rows.test])))
        return splitter, rows

    def prepare(self, data: TrainingData, aim: Aim, rows: SplitRows) -> _Material:
        schemas = [column_of(self.job.schema, name) for name in self.spec.features]
        inputs = choose_features(schemas, data.cells, rows.train, self.warn)
        columns = prepare_cells(data.cells, Signature(inputs, self.spec.target, data.target.output_type))
        prepared = pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})
        if rare := _rare_classes(data.target, self.spec.target):
            self.warn(rare)
        for leak in possible_leaks(inputs, prepared, data.target, rows.train):
            self.warn(leak)
        return _Material(inputs, prepared, aim)

    def cross_validate(
        self, algorithm: Algorithm, material: _Material, splitter: Splitter, rows: SplitRows
    ) -> tuple[MetricValue, ...]:
        if not self.spec.folds:
            return ()
        self.begin(TrainingStage.CROSS_VALIDATING)
        folds = []
        for number, fold in enumerate(splitter.folds(rows.train, self.spec.folds), start=1):
            pipeline = self.fit(algorithm, material, fold, Watch(self.report, number))
            scored = evaluate(pipeline, material.prepared, fold.test, material.aim, Partition.VALIDATION)
            folds.append(scored.values)
            self.report(FoldCompleted(number, self.spec.folds, scored.metrics))
        means = over_folds(folds)
        values = {mean.metric: mean.value for mean in means}
        warn_of_undefined(values, Partition.VALIDATION, pipeline, material.aim, self.warn)
        return means

    def fit(self, algorithm: Algorithm, material: _Material, rows: SplitRows, watch: Watch) -> Pipeline:
        """A pipeline fitted on the training rows; of the others the library tells losses, and learns nothing."""
        settings = algorithm.complete(self.spec.hyperparameters)
        prepared, aim = material.prepared, material.aim
        learned, held_out = prepared.iloc[rows.train], prepared.iloc[rows.test]
        with library_refusals(), self.convergence_told(watch.fold):
            estimator = build_estimator(algorithm, settings, self.spec.random_seed)
            pipeline = build_pipeline(algorithm, estimator, material.inputs, learned)
            transformed = pipeline[0].fit_transform(learned)
            fitted = fit_estimator(
                algorithm,
                estimator,
                Rows(transformed, aim.target.values[rows.train], aim.weights_to_learn(rows.train)),
                Rows(pipeline[0].transform(held_out), aim.target.values[rows.test], aim.weights_to_watch(rows.test)),
                watch,
            )
        pipeline.steps[-1] = ("estimator", fitted)
        return pipeline

    @contextmanager
    def convergence_told(self, fold: int) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", ConvergenceWarning)
            yield
        if caught:
            where = f" in fold {fold}" if fold else ""
            message = f"The solver stopped before it converged{where}; allow more iterations (max_iter), or loosen tol."
            self.warn(TrainingWarning(TrainingWarningKind.NOT_CONVERGED, "", message))

    def evaluate(self, pipeline: Pipeline, material: _Material, rows: SplitRows, partition: Partition) -> Evaluation:
        side = rows.train if partition is Partition.TRAIN else rows.test
        evaluation = evaluate(pipeline, material.prepared, side, material.aim, partition)
        warn_of_undefined(evaluation.values, partition, pipeline, material.aim, self.warn)
        return evaluation

    def fitted_model(
        self, algorithm: Algorithm, pipeline: Pipeline, data: TrainingData, material: _Material, rows: SplitRows
    ) -> FittedModel:
        signature = Signature(
            inputs=material.inputs,
            output=self.spec.target,
            output_type=data.target.output_type,
            classes=data.target.classes,
            predicts_probabilities=hasattr(pipeline, "predict_proba"),
        )
        return FittedModel(
            algorithm=algorithm,
            pipeline=pipeline,
            signature=signature,
            target=self.spec.target,
            probe=material.prepared.iloc[rows.test],
            deviation=_deviation(data.target, rows),
            input_example=input_example(data, material.inputs, rows.train),
        )

    def export(self, model: FittedModel, graph: MadeGraph) -> ModelManifest:
        manifest = export_model(model, graph, Path(self.job.output_path), self.job.max_model_bytes)
        if not manifest.parity.proved:
            message = f"There is no ONNX graph. {manifest.parity.cause}"
            self.warn(TrainingWarning(TrainingWarningKind.PARITY_NOT_PROVED, "", message))
        return manifest


def _algorithm(spec: TrainingSpec) -> Algorithm:
    found = find_algorithm(spec.task, spec.algorithm)
    if found is None:
        raise Refused(FailureReason.FIT_REFUSED, f"There is no {spec.task} algorithm called {spec.algorithm}.")
    return found


def _check_weights(data: TrainingData, rows: SplitRows) -> None:
    if data.weights is not None and not (data.weights[rows.train].any() and data.weights[rows.test].any()):
        raise Refused(
            FailureReason.IMPOSSIBLE_SPLIT,
            "All rows on one side of the split have weight 0; choose another seed, split or weight column.",
        )


def _rare_classes(target: Target, column: str) -> TrainingWarning | None:
    rare = int((np.bincount(target.codes, minlength=len(target.labels)) < _RARE_ROWS).sum())
    if not rare:
        return None
    message = (
        f"{rare} of {len(target.labels)} classes have fewer than {_RARE_ROWS} rows; what is measured for them says "
        "little."
    )
    return TrainingWarning(TrainingWarningKind.RARE_CLASS, column, message)


def _deviation(target: Target, rows: SplitRows) -> float:
    """The standard deviation of a regression's target; 0 says that there are classes."""
    return 0.0 if len(target.labels) else float(target.values[np.concatenate([rows.train, rows.test])].std())


def _where(error: Exception, longest: int) -> str:
    """Where a defect is, without the text of the exception, which may quote cells."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}\n{frames}".encode()[-longest:].decode(errors="ignore")


def _empty(folder: Path) -> None:
    """Leave nothing half-written behind."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
