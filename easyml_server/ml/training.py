"""One training, from the stored table to the stored model; runs in a process of its own that can be killed."""

from __future__ import annotations

import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from easyml_server.domain.algorithms import Algorithm, Task
from easyml_server.domain.catalogue import find_algorithm
from easyml_server.domain.datasets import ColumnSchema, StorageType
from easyml_server.domain.events import FoldCompleted, LogLevel, LogLine, StageStarted, WarningRaised
from easyml_server.domain.experiments import (
    ConfusionMatrix,
    FailureReason,
    MetricValue,
    Partition,
    TrainingSpec,
    TrainingStage,
    TrainingWarning,
    TrainingWarningKind,
)
from easyml_server.domain.models import ModelManifest, Signature, SignatureColumn
from easyml_server.domain.training import (
    Outcome,
    Report,
    SplitMade,
    TrainingFailed,
    TrainingJob,
    TrainingSucceeded,
)
from easyml_server.ml.estimators import build_estimator
from easyml_server.ml.export import FittedModel, export_model
from easyml_server.ml.features import choose_features
from easyml_server.ml.frames import read_frame
from easyml_server.ml.leaks import possible_leaks
from easyml_server.ml.metrics import (
    Predictions,
    Values,
    as_metric_values,
    confusion_matrix,
    expected_metrics,
    measure,
    over_folds,
)
from easyml_server.ml.pipeline import build_pipeline
from easyml_server.ml.prepare import Cells, cells_of, prepare_cells, texts_of
from easyml_server.ml.progress import Rows, Watch, fit_estimator
from easyml_server.ml.refusal import LibraryRefusal, Refused, failure_of, is_refusal
from easyml_server.ml.splits import Splitter, SplitRows, split_key, split_sha256
from easyml_server.ml.target import Target, target_of

_EXAMPLE_ROWS: Final = 5
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
        failure = failure_of(error, job.experiment_id, job.spec.hyperparameters)
        if failure.reason is FailureReason.INTERNAL:
            run.log_defect(error)
        _empty(Path(job.output_path))
        return TrainingFailed(replace(failure, stage=run.stage))


@dataclass(frozen=True, slots=True)
class _Data:
    """Rows that have a target. `numbers` are their row numbers in the table; positions below refer to them."""

    numbers: NDArray[np.int64]
    frame: pd.DataFrame
    cells: Mapping[str, Cells]
    target: Target
    weights: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class _Table:
    """What can be learned from: the rows as the pipeline takes them, and the columns they came from."""

    inputs: tuple[SignatureColumn, ...]
    prepared: pd.DataFrame


@dataclass(slots=True)
class _Run:
    """One training as it goes through its stages."""

    job: TrainingJob
    report: Callable[[Report], None]
    stage: TrainingStage = TrainingStage.LOADING
    algorithm: Algorithm = field(init=False)

    @property
    def spec(self) -> TrainingSpec:
        """What was asked for."""
        return self.job.spec

    def train(self) -> Outcome:
        """All stages in order."""
        self.begin(TrainingStage.LOADING)
        self.algorithm = self._find_algorithm()
        data = self._load()
        self.begin(TrainingStage.PREPARING)
        splitter, rows = self._split(data)
        table = self._prepare(data, rows)
        validation: tuple[MetricValue, ...] = ()
        if self.spec.folds:
            self.begin(TrainingStage.CROSS_VALIDATING)
            validation = self._cross_validate(data, table, splitter, rows)
        self.begin(TrainingStage.FITTING)
        pipeline = self._fit(data, table, rows, Watch(self.report))
        self.begin(TrainingStage.EVALUATING)
        measured, matrices = self._evaluate(data, table, rows, pipeline)
        self.begin(TrainingStage.EXPORTING)
        manifest = self._export(data, table, rows, pipeline)
        return TrainingSucceeded((*measured, *validation), matrices, manifest)

    def begin(self, stage: TrainingStage) -> None:
        """Enter a stage."""
        self.stage = stage
        self.report(StageStarted(stage))

    def warn(self, kind: TrainingWarningKind, message: str, column: str = "") -> None:
        """Tell what was noticed."""
        self.report(WarningRaised(TrainingWarning(kind, column, message)))

    def log_defect(self, error: Exception) -> None:
        """Where a defect is, without the text of the exception, which may quote cells."""
        where = "".join(traceback.format_tb(error.__traceback__))
        text = f"{type(error).__name__}\n{where}".encode()[-self.job.log_line_bytes :].decode(errors="ignore")
        self.report(LogLine(LogLevel.ERROR, text))

    def _find_algorithm(self) -> Algorithm:
        found = find_algorithm(self.spec.task, self.spec.algorithm)
        if found is None:
            raise Refused(
                FailureReason.FIT_REFUSED, f"There is no {self.spec.task} algorithm called {self.spec.algorithm}."
            )
        if self._weighs() and not found.supports_weights:
            raise Refused(
                FailureReason.FIT_REFUSED,
                f"{found.display_name} cannot use weights of rows or classes; leave them out or use another algorithm.",
            )
        return found

    def _weighs(self) -> bool:
        objective = self.spec.objective
        return bool(objective.weight_column or objective.class_weights or objective.balance_classes)

    def _column(self, name: str) -> ColumnSchema:
        column = self.job.schema.find(name)
        if column is None:
            raise Refused(FailureReason.FIT_REFUSED, f"The table has no column {name!r}.")
        return column

    def _load(self) -> _Data:
        spec = self.spec
        names = [*spec.features, spec.target, spec.objective.weight_column, spec.split.column]
        columns = {name: self._column(name) for name in names if name}
        frame = read_frame(self.job.table_path, list(columns))
        answered = frame[spec.target].notna()
        missing = int((~answered).sum())
        if missing:
            self.warn(
                TrainingWarningKind.ROWS_WITHOUT_TARGET,
                f"{missing:,} of {len(frame):,} rows have no target and were left out.",
                spec.target,
            )
        if missing == len(frame):
            raise Refused(FailureReason.TOO_FEW_ROWS, "No row has a target; there is nothing to learn from.")
        numbers = np.flatnonzero(answered.to_numpy(dtype=bool)).astype(np.int64)
        frame = frame[answered].reset_index(drop=True) if missing else frame
        cells = {name: cells_of(frame[name], column.storage_type) for name, column in columns.items()}
        target = target_of(cells[spec.target], columns[spec.target].storage_type, spec.task)
        return _Data(numbers, frame, cells, target, self._row_weights(cells))

    def _row_weights(self, cells: Mapping[str, Cells]) -> NDArray[np.float64] | None:
        name = self.spec.objective.weight_column
        if not name:
            return None
        if self._column(name).storage_type not in (StorageType.INT64, StorageType.DOUBLE):
            raise Refused(FailureReason.FIT_REFUSED, f"The weight column {name!r} holds no numbers.")
        weights = cells[name].values.astype(np.float64)
        wrong = int((cells[name].missing | ~np.isfinite(weights) | (weights < 0)).sum())
        if wrong:
            raise Refused(
                FailureReason.FIT_REFUSED,
                f"{wrong:,} rows have no weight, or a negative or infinite one, in column {name!r}; correct them.",
            )
        return weights

    def _split(self, data: _Data) -> tuple[Splitter, SplitRows]:
        split = self.spec.split
        key = None
        if split.column:
            key = split_key(data.cells[split.column], self._column(split.column).storage_type, split)
        codes = data.target.codes if self.spec.task is Task.CLASSIFICATION else None
        splitter = Splitter(split, len(data.numbers), codes, key)
        rows = splitter.rows()
        if data.weights is not None and not (data.weights[rows.train].any() and data.weights[rows.test].any()):
            raise Refused(
                FailureReason.IMPOSSIBLE_SPLIT,
                "All rows on one side of the split have weight 0; choose another seed, split or weight column.",
            )
        self.report(SplitMade(len(rows.train), len(rows.test), split_sha256(data.numbers[rows.test])))
        return splitter, rows

    def _prepare(self, data: _Data, rows: SplitRows) -> _Table:
        schemas = [self._column(name) for name in self.spec.features]
        inputs = choose_features(schemas, data.cells, rows.train, lambda warning: self.report(WarningRaised(warning)))
        columns = prepare_cells(data.cells, Signature(inputs, self.spec.target, data.target.output_type))
        prepared = pd.DataFrame({name: pd.Series(v, dtype=v.dtype) for name, v in columns.items()})
        self._warn_of_rare_classes(data.target)
        for warning in possible_leaks(inputs, prepared, data.target, rows.train):
            self.report(WarningRaised(warning))
        return _Table(inputs, prepared)

    def _warn_of_rare_classes(self, target: Target) -> None:
        rare = int((np.bincount(target.codes, minlength=len(target.labels)) < _RARE_ROWS).sum())
        if rare:
            self.warn(
                TrainingWarningKind.RARE_CLASS,
                f"{rare} of {len(target.labels)} classes have fewer than {_RARE_ROWS} rows; "
                "what is measured for them says little.",
                self.spec.target,
            )

    def _cross_validate(
        self, data: _Data, table: _Table, splitter: Splitter, rows: SplitRows
    ) -> tuple[MetricValue, ...]:
        folds = []
        for number, fold in enumerate(splitter.folds(rows.train, self.spec.folds), start=1):
            pipeline = self._fit(data, table, fold, Watch(self.report, number))
            values = self._measure(data, self._predict(data, table, fold.test, pipeline))
            folds.append(values)
            metrics = as_metric_values(values, Partition.VALIDATION)
            self.report(FoldCompleted(number, self.spec.folds, metrics))
        means = over_folds(folds)
        self._warn_of_undefined({value.metric: value.value for value in means}, Partition.VALIDATION, pipeline)
        return means

    def _fit(self, data: _Data, table: _Table, rows: SplitRows, watch: Watch) -> Pipeline:
        settings = self.algorithm.complete(self.spec.hyperparameters)
        estimator = build_estimator(self.algorithm, settings, self.spec.random_seed)
        learned = table.prepared.iloc[rows.train]
        pipeline = build_pipeline(self.algorithm, estimator, table.inputs, learned)
        with self._convergence_told(watch.fold), _library_refusals():
            fitted = fit_estimator(
                self.algorithm,
                estimator,
                Rows(
                    pipeline[0].fit_transform(learned),
                    data.target.values[rows.train],
                    self._fit_weights(data, rows.train),
                ),
                Rows(
                    pipeline[0].transform(table.prepared.iloc[rows.test]),
                    data.target.values[rows.test],
                    None if not self._weighs() else _of_rows(data.weights, rows.test, otherwise=1.0),
                ),
                watch,
            )
        pipeline.steps[-1] = ("estimator", fitted)
        return pipeline

    def _fit_weights(self, data: _Data, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Row weights times class weights, which is what the estimators' own class weights come to."""
        if not self._weighs():
            return None
        weights = _of_rows(data.weights, rows, otherwise=1.0)
        objective = self.spec.objective
        if objective.balance_classes:
            weights = weights * compute_sample_weight("balanced", data.target.codes[rows])
        elif objective.class_weights:
            by_class = np.array([objective.class_weights.get(name, 1.0) for name in data.target.classes])
            weights = weights * by_class[data.target.codes[rows]]
        return weights

    @contextmanager
    def _convergence_told(self, fold: int) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", ConvergenceWarning)
            yield
        if caught:
            where = f" in fold {fold}" if fold else ""
            self.warn(
                TrainingWarningKind.NOT_CONVERGED,
                f"The solver stopped before it converged{where}; allow more iterations (max_iter), or loosen tol.",
            )

    def _predict(self, data: _Data, table: _Table, rows: NDArray[np.int64], pipeline: Pipeline) -> Predictions:
        asked = table.prepared.iloc[rows]
        weights = None if data.weights is None else data.weights[rows]
        with _library_refusals():
            predicted = pipeline.predict(asked)
            if self.spec.task is Task.REGRESSION:
                _check_finite(predicted)
                return Predictions(data.target.values[rows], predicted, weights)
            scores, are_probabilities = _scores(pipeline, asked)
        return Predictions(data.target.codes[rows], data.target.codes_of(predicted), weights, scores, are_probabilities)

    def _measure(self, data: _Data, predictions: Predictions) -> Values:
        return measure(predictions, len(data.target.labels), self._positive(data.target))

    def _positive(self, target: Target) -> int:
        """Position of the positive class; the last in order unless one is named."""
        name = self.spec.objective.positive_class
        if not name:
            return len(target.labels) - 1
        if name not in target.classes:
            raise Refused(
                FailureReason.UNSUITABLE_TARGET,
                f"The positive class is none of the {len(target.classes)} classes of the target; correct its spelling.",
            )
        return target.classes.index(name)

    def _evaluate(
        self, data: _Data, table: _Table, rows: SplitRows, pipeline: Pipeline
    ) -> tuple[tuple[MetricValue, ...], tuple[ConfusionMatrix, ...]]:
        measured: list[MetricValue] = []
        matrices: list[ConfusionMatrix] = []
        for partition, side in ((Partition.TRAIN, rows.train), (Partition.TEST, rows.test)):
            predictions = self._predict(data, table, side, pipeline)
            values = self._measure(data, predictions)
            self._warn_of_undefined(values, partition, pipeline)
            measured.extend(as_metric_values(values, partition))
            matrix = confusion_matrix(predictions, data.target.classes, partition)
            matrices.extend([matrix] if matrix else [])
        return tuple(measured), tuple(matrices)

    def _warn_of_undefined(self, values: Values, partition: Partition, pipeline: Pipeline) -> None:
        probabilities = hasattr(pipeline, "predict_proba")
        classes = len(pipeline.classes_) if self.spec.task is Task.CLASSIFICATION else 0
        expected = expected_metrics(self.spec.task, classes, probabilities=probabilities)
        undefined = [metric.value for metric in expected if metric not in values]
        if undefined:
            self.warn(
                TrainingWarningKind.METRIC_UNDEFINED,
                f"On the {partition} rows these metrics have no value: {', '.join(undefined)}.",
            )

    def _export(self, data: _Data, table: _Table, rows: SplitRows, pipeline: Pipeline) -> ModelManifest:
        signature = Signature(
            inputs=table.inputs,
            output=self.spec.target,
            output_type=data.target.output_type,
            classes=data.target.classes,
            predicts_probabilities=hasattr(pipeline, "predict_proba"),
        )
        regression = self.spec.task is Task.REGRESSION
        model = FittedModel(
            algorithm=self.algorithm,
            pipeline=pipeline,
            signature=signature,
            target=self.spec.target,
            probe=table.prepared.iloc[rows.test],
            deviation=float(data.target.values[rows.train].std()) if regression else 0.0,
            input_example=_example(data, table.inputs, rows.train[:_EXAMPLE_ROWS]),
        )
        manifest = export_model(model, Path(self.job.output_path), self.job.max_model_bytes)
        if not manifest.parity.proved:
            self.warn(TrainingWarningKind.PARITY_NOT_PROVED, f"There is no ONNX graph. {manifest.parity.cause}")
        return manifest


def _scores(pipeline: Pipeline, asked: pd.DataFrame) -> tuple[NDArray[np.float64], bool]:
    """Probabilities, else decision values; 32-bit probabilities are made to sum to 1 again."""
    if not hasattr(pipeline, "predict_proba"):
        return np.asarray(pipeline.decision_function(asked), dtype=np.float64), False
    probabilities = np.asarray(pipeline.predict_proba(asked), dtype=np.float64)
    _check_finite(probabilities)
    return probabilities / probabilities.sum(axis=1, keepdims=True), True


def _check_finite(predicted: NDArray[Any]) -> None:
    if not np.isfinite(predicted).all():
        raise Refused(
            FailureReason.FIT_REFUSED,
            "The fitted model predicts numbers that are not finite; use a smaller learning rate, more regularization, "
            "or smaller values in the columns.",
        )


@contextmanager
def _library_refusals() -> Iterator[None]:
    """Only here is an exception the library's word about settings or data; elsewhere it is a defect of ours."""
    try:
        yield
    except Exception as error:
        if is_refusal(error):
            raise LibraryRefusal(error) from error
        raise


def _of_rows(weights: NDArray[np.float64] | None, rows: NDArray[np.int64], *, otherwise: float) -> NDArray[np.float64]:
    return np.full(len(rows), otherwise) if weights is None else weights[rows]


def _example(
    data: _Data, inputs: tuple[SignatureColumn, ...], rows: NDArray[np.int64]
) -> tuple[Mapping[str, Any], ...]:
    columns = {column.name: _plain_values(data.cells[column.name], column.storage_type, rows) for column in inputs}
    return tuple({name: values[i] for name, values in columns.items()} for i in range(len(rows)))


def _plain_values(cells: Cells, storage_type: StorageType, rows: NDArray[np.int64]) -> list[Any]:
    """Raw values as JSON has them: times as text, and null for what is missing or infinite."""
    some = Cells(cells.values[rows], cells.missing[rows])
    is_time = storage_type is StorageType.TIMESTAMP
    values = texts_of(some, storage_type).tolist() if is_time else some.values.tolist()
    missing = some.missing.copy()
    if some.values.dtype.kind == "f":
        missing |= ~np.isfinite(some.values)
    return [None if absent else value for value, absent in zip(values, missing, strict=True)]


def _empty(folder: Path) -> None:
    """Leave nothing half-written behind."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
