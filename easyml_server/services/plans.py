"""What a training will do: the request with everything filled in that was left open, checked against the data."""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from easyml_server.domain.algorithms import Algorithm, Task
from easyml_server.domain.catalogue import ALGORITHMS, find_algorithm
from easyml_server.domain.datasets import (
    ColumnKind,
    ColumnRole,
    ColumnSchema,
    Dataset,
    DatasetVersion,
    StorageType,
    TableSchema,
)
from easyml_server.domain.errors import InvalidInput, NotFound, Reason
from easyml_server.domain.experiments import (
    DEFAULT_METRIC,
    Direction,
    Experiment,
    Metric,
    Objective,
    Split,
    SplitKind,
    TrainingSpec,
)
from easyml_server.domain.limits import Limits
from easyml_server.domain.spelling import way_out
from easyml_server.domain.users import Caller
from easyml_server.ports.store import UnitOfWork

SEED_BITS = 32
FIELD = "spec"
WORKER_FLOOR_BYTES = 350 << 20
"""Resident memory of a worker before it reads anything (measured)."""
BYTES_PER_CELL = 8
COPIES = 6
"""Copies of the table in a training: as read, prepared, split, encoded, and the library's own."""


@dataclass(frozen=True, slots=True)
class RequestedSplit:
    """A split as asked for; None is filled in."""

    kind: SplitKind | None = None
    column: str = ""
    test_values: tuple[str, ...] = ()
    test_size: float | None = None
    seed: int | None = None
    experiment_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class RequestedObjective:
    """An objective as asked for; None is filled in."""

    metric: Metric | None = None
    direction: Direction | None = None
    positive_class: str = ""
    class_weights: Mapping[str, float] = field(default_factory=dict)
    balance_classes: bool = False
    weight_column: str = ""


@dataclass(frozen=True, slots=True)
class RequestedTraining:
    """A training as asked for; what is None or empty is filled in."""

    project_id: UUID
    name: str
    labels: Mapping[str, str]
    dataset_id: UUID
    dataset_version_id: UUID | None
    target: str
    features: tuple[str, ...]
    task: Task | None
    algorithm: str
    hyperparameters: Mapping[str, Any]
    split: RequestedSplit
    objective: RequestedObjective
    folds: int
    random_seed: int | None
    model_name: str
    max_seconds: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The training that will run, and estimates; `seconds` is None without an earlier one to go by."""

    spec: TrainingSpec
    rows: int
    memory_bytes: int
    seconds: float | None
    dataset_name: str
    dataset_sha256: str


async def plan(work: UnitOfWork, caller: Caller, request: RequestedTraining, limits: Limits) -> Plan:
    """Fill in and check everything that can be checked without reading the table."""
    dataset = await _dataset(work, caller, request)
    schema = dataset.current.schema
    target = _target(schema, request.target)
    task = request.task or _told_task(target)
    _check_target(target, task, schema)
    algorithm = _algorithm(task, request.algorithm, "" if request.task else target.name)
    config = await work.projects.get_config(request.project_id)
    defaults = _defaults(algorithm, config.default_hyperparameters.get(algorithm.name, {}))
    hyperparameters = _hyperparameters(algorithm, {**defaults, **request.hyperparameters})
    seed = secrets.randbits(SEED_BITS) if request.random_seed is None else request.random_seed
    split = await _split(work, caller, request, dataset.current, task)
    objective = _objective(request.objective, task, schema, target, algorithm)
    spec = TrainingSpec(
        dataset_id=dataset.id,
        dataset_version_id=dataset.current.id,
        target=target.name,
        features=_features(schema, request.features, target.name, split, objective),
        task=task,
        algorithm=algorithm.name,
        hyperparameters=hyperparameters,
        split=split,
        objective=objective,
        random_seed=seed,
        model_name=(request.model_name or f"{dataset.name}-{target.name}")[:255],
        max_seconds=min(request.max_seconds or limits.training_seconds, limits.training_seconds),
        folds=request.folds,
        split_experiment_id=request.split.experiment_id,
    )
    earlier = await work.experiments.durations(algorithm.name, request.project_id)
    seconds = _estimated_seconds(earlier, schema.row_count)
    return _planned(spec, schema.row_count, seconds, dataset.name, dataset.current.sha256)


def _planned(spec: TrainingSpec, rows: int, seconds: float | None, name: str, sha256: str) -> Plan:
    cells = rows * (len(spec.features) + 1)
    return Plan(spec, rows, WORKER_FLOOR_BYTES + COPIES * BYTES_PER_CELL * cells, seconds, name, sha256)


async def replan(work: UnitOfWork, experiment: Experiment) -> Plan:
    """The plan of a training that was started before, for the same request again."""
    rows = experiment.train_rows + experiment.test_rows
    try:
        version = await work.datasets.get_version(experiment.spec.dataset_version_id)
        rows = version.schema.row_count
    except NotFound:
        pass  # deleted meanwhile; the rows that were used say as much
    return _planned(experiment.spec, rows, None, experiment.dataset_name, experiment.dataset_sha256)


async def _dataset(work: UnitOfWork, caller: Caller, request: RequestedTraining) -> Dataset:
    dataset = await work.datasets.get(request.dataset_id, caller)
    if dataset.project_id != request.project_id:
        raise NotFound.of("dataset", request.dataset_id)
    if request.dataset_version_id not in (None, dataset.current.id):
        raise NotFound.of("dataset version", request.dataset_version_id)
    return dataset


def _target(schema: TableSchema, name: str) -> ColumnSchema:
    if name:
        return _column(schema, name, "target")
    column = schema.with_role(ColumnRole.TARGET)
    if column is None:
        raise InvalidInput.at(f"{FIELD}.target", "Name the column to predict, or give one the role TARGET.")
    return column


def _told_task(target: ColumnSchema) -> Task:
    numeric = target.kind is ColumnKind.NUMERIC
    return Task.REGRESSION if numeric else Task.CLASSIFICATION


def _check_target(target: ColumnSchema, task: Task, schema: TableSchema) -> None:
    filled = schema.row_count - target.null_count
    problem = ""
    if filled == 0:
        problem = "holds no value in any row"
    elif target.storage_type is StorageType.TIMESTAMP:
        problem = "is a point in time, which neither task predicts"
    elif task is Task.REGRESSION and target.storage_type in (StorageType.STRING, StorageType.BOOL):
        problem = f"is stored as {target.storage_type.value}, and regression needs numbers; use classification"
    elif task is Task.CLASSIFICATION and target.distinct_count < 2:  # noqa: PLR2004 (two classes at least)
        problem = "holds one value only, and classification needs at least two classes"
    elif (
        task is Task.CLASSIFICATION and target.storage_type is StorageType.DOUBLE and target.distinct_count * 2 > filled
    ):
        problem = "holds a different number in most rows; use regression"
    if problem:
        raise InvalidInput.at(
            f"{FIELD}.target",
            f"Column {target.name!r} {problem}.",
            Reason.UNSUITABLE_TARGET,
            {"column": target.name},
        )


def _algorithm(task: Task, name: str, told_by: str) -> Algorithm:
    """The algorithm of a task; `told_by` is the target, where nobody but its kind said which task it is."""
    algorithm = find_algorithm(task, name)
    if algorithm is None:
        known = [each.name for each in ALGORITHMS if each.task is task]
        because = f", which the target {told_by!r} calls for unless you name another task" if told_by else ""
        raise InvalidInput.at(
            f"{FIELD}.algorithm",
            f"There is no algorithm {name!r} for {task.value}{because}; {way_out(name, known)}",
            Reason.UNKNOWN_ALGORITHM,
            {"algorithm": name},
        )
    return algorithm


def _defaults(algorithm: Algorithm, configured: Mapping[str, Any]) -> dict[str, Any]:
    """The project's defaults that this algorithm has: one name can mean two algorithms, one per task."""
    known = {parameter.name for parameter in algorithm.hyperparameters}
    return {name: value for name, value in configured.items() if name in known}


def _hyperparameters(algorithm: Algorithm, values: Mapping[str, Any]) -> dict[str, Any]:
    violations = list(algorithm.violations(values, f"{FIELD}.hyperparameters"))
    if violations:
        raise InvalidInput(violations[0].description, Reason.INVALID_HYPERPARAMETER, violations=violations)
    return algorithm.complete(values)


async def _split(
    work: UnitOfWork, caller: Caller, request: RequestedTraining, version: DatasetVersion, task: Task
) -> Split:
    asked = request.split
    if asked.experiment_id is not None:
        other = await work.experiments.get(asked.experiment_id, caller)
        if other.spec.dataset_version_id != (request.dataset_version_id or other.spec.dataset_version_id) or (
            other.spec.dataset_id != request.dataset_id
        ):
            raise InvalidInput.at(
                f"{FIELD}.split_experiment_id",
                "That experiment is on another dataset version, so its rows are not these.",
            )
        return other.spec.split
    kind = asked.kind or (SplitKind.STRATIFIED if task is Task.CLASSIFICATION else SplitKind.RANDOM)
    if kind is SplitKind.STRATIFIED and task is Task.REGRESSION:
        raise InvalidInput.at(f"{FIELD}.split.stratified", "A number has no classes to stratify by; use random.")
    if kind is SplitKind.COLUMN and asked.test_size is not None:
        raise InvalidInput.at(
            f"{FIELD}.split.test_size", "A split by column takes its size from the values; leave test_size out."
        )
    return Split(
        kind=kind,
        test_size=0.2 if asked.test_size is None else asked.test_size,
        seed=split_seed(version) if asked.seed is None else asked.seed,
        column=_split_column(version.schema, kind, asked.column),
        test_values=asked.test_values,
    )


def split_seed(version: DatasetVersion) -> int:
    """The seed of a split that names none: of the file's bytes, so that trainings on it are tested on the same rows."""
    return int(version.sha256[: SEED_BITS // 4], 16)


def _split_column(schema: TableSchema, kind: SplitKind, name: str) -> str:
    roles = {SplitKind.GROUP: ColumnRole.GROUP, SplitKind.TIME: ColumnRole.TIME}
    if kind is SplitKind.COLUMN:
        return _column(schema, name, "split.column.column").name
    if kind not in roles:
        return ""
    if name:
        return _column(schema, name, f"split.{kind.value}.column").name
    column = schema.with_role(roles[kind])
    if column is None:
        raise InvalidInput.at(
            f"{FIELD}.split.{kind.value}.column",
            f"Name the column to split by, or give one the role {roles[kind].name}.",
        )
    return column.name


def _objective(
    asked: RequestedObjective, task: Task, schema: TableSchema, target: ColumnSchema, algorithm: Algorithm
) -> Objective:
    metric = asked.metric or DEFAULT_METRIC[task]
    where = f"{FIELD}.objective"
    if metric.task is not task:
        known = ", ".join(each.value for each in Metric if each.task is task)
        raise InvalidInput.at(
            f"{where}.metric", f"{metric.value} does not measure {task.value}; choose one of {known}."
        )
    if asked.direction not in (None, metric.direction):
        raise InvalidInput.at(f"{where}.direction", f"{metric.value} is to {metric.direction.value}.")
    if task is Task.REGRESSION and (asked.positive_class or asked.class_weights or asked.balance_classes):
        raise InvalidInput.at(where, "A regression has no classes; leave positive class and class weights out.")
    if asked.class_weights and asked.balance_classes:
        raise InvalidInput.at(f"{where}.class_weights", "Give class weights, or balance the classes, not both.")
    two_classes = {Metric.PRECISION, Metric.RECALL, Metric.F1}
    if target.distinct_count > 2 and (metric in two_classes or asked.positive_class):  # noqa: PLR2004 (two classes)
        raise InvalidInput.at(
            where, "A positive class needs a target of two classes; use the macro or weighted form of the metric."
        )
    weight = _weight_column(schema, asked.weight_column)
    weighted = bool(weight or asked.class_weights or asked.balance_classes)
    if weighted and not algorithm.supports_weights:
        raise InvalidInput.at(
            where, f"{algorithm.name} cannot use weights; leave them out or choose another algorithm."
        )
    return Objective(
        metric=metric,
        positive_class=asked.positive_class,
        class_weights=asked.class_weights,
        balance_classes=asked.balance_classes,
        weight_column=weight,
    )


def _weight_column(schema: TableSchema, name: str) -> str:
    column = _column(schema, name, "objective.weight_column") if name else schema.with_role(ColumnRole.WEIGHT)
    if column is None:
        return ""
    if column.storage_type not in (StorageType.INT64, StorageType.DOUBLE) or column.null_count:
        raise InvalidInput.at(
            f"{FIELD}.objective.weight_column",
            f"Column {column.name!r} needs a number in every row to be a weight.",
            Reason.WRONG_COLUMN_TYPE,
            {"column": column.name, "expected": "double"},
        )
    return column.name


def _features(
    schema: TableSchema, asked: Sequence[str], target: str, split: Split, objective: Objective
) -> tuple[str, ...]:
    taken = {target: "the target", split.column: "used by the split", objective.weight_column: "the weight"}
    for index, name in enumerate(asked):
        where = f"features[{index}]"
        _column(schema, name, where)
        if name in taken:
            raise InvalidInput.at(f"{FIELD}.{where}", f"Column {name!r} is {taken[name]}, so it cannot be a feature.")
        if name in asked[:index]:
            raise InvalidInput.at(f"{FIELD}.{where}", f"Column {name!r} is named twice.")
    chosen = tuple(asked) or tuple(
        column.name for column in schema.columns if column.role is ColumnRole.FEATURE and column.name not in taken
    )
    if not chosen:
        raise InvalidInput.at(
            f"{FIELD}.features", "No column is left to learn from; name some, or give some the role FEATURE."
        )
    return chosen


def _column(schema: TableSchema, name: str, field_name: str) -> ColumnSchema:
    column = schema.find(name)
    if column is None:
        raise InvalidInput.at(
            f"{FIELD}.{field_name}",
            f"The dataset has no column {name!r}; {way_out(name, (each.name for each in schema.columns))}",
            Reason.UNKNOWN_COLUMN,
            {"column": name},
        )
    return column


def _estimated_seconds(earlier: Sequence[tuple[int, float]], rows: int) -> float | None:
    """Time per row of the median earlier training; at least the shortest of them, which has the fixed costs."""
    if not earlier:
        return None
    per_row = statistics.median(seconds / max(count, 1) for count, seconds in earlier)
    return max(min(seconds for _, seconds in earlier), per_row * rows)
