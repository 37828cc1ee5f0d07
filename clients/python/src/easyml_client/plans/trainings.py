"""Trainings: started, watched, waited for, stopped."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easyml.v1 import algorithm_pb2, experiment_pb2
from easyml.v1 import training_service_pb2 as pb

from easyml_client.errors import DeadlineExceeded, InvalidInput, LimitReached, TrainingCancelled, TrainingFailed
from easyml_client.errors import Unavailable
from easyml_client.plans import experiments
from easyml_client.plans.references import DatasetRef, ExperimentRef, ProjectRef, dataset_id, experiment_id, project_id
from easyml_client.plans.waiting import Patience
from easyml_client.resources.events import Heartbeat, TrainingEvent, event_of
from easyml_client.resources.experiments import Experiment, TrainingPlan
from easyml_client.steps import Emit, Opened, Plan, Stream, call, opened
from easyml_client.values import enum_number, to_duration, to_struct


@dataclass(frozen=True)
class Split:
    """Which rows a model is tested on: `Split("stratified")`, `Split("group", column="customer")`.

    `kind` is "random", "stratified", "group", "time" or "column"; the last tests on the rows whose column has one of
    `test_values`.
    """

    kind: str
    column: str = ""
    test_values: Sequence[str] = ()
    test_size: float | None = None
    seed: int | None = None

    def to_proto(self) -> experiment_pb2.Split:
        """As the contract has it."""
        split = experiment_pb2.Split(test_size=self.test_size, seed=self.seed)
        match self.kind:
            case "random":
                split.random.SetInParent()
            case "stratified":
                split.stratified.SetInParent()
            case "group":
                split.group.column = self.column
                split.group.SetInParent()
            case "time":
                split.time.column = self.column
                split.time.SetInParent()
            case "column":
                split.column.column = self.column
                split.column.test_values.extend(self.test_values)
            case other:
                known = "random, stratified, group, time, column"
                raise InvalidInput.at("split", f"A split is one of {known}; {other!r} is not.")
        return split


def start(
    project: ProjectRef,
    *,
    dataset: DatasetRef,
    algorithm: str,
    target: str = "",
    features: Sequence[str] = (),
    task: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    test_size: float | None = None,
    split: Split | str | None = None,
    split_like: ExperimentRef | None = None,
    cross_validation: int | None = None,
    metric: str | None = None,
    positive_class: str = "",
    class_weights: Mapping[str, float] | None = None,
    balance_classes: bool = False,
    weight_column: str = "",
    seed: int | None = None,
    model_name: str = "",
    max_duration: dt.timedelta | float | None = None,
    dataset_version_id: str = "",
    name: str = "",
    labels: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> Plan[Experiment]:
    """Queue a training; what is left out is told by the dataset and the algorithm.

    `target` is the column to predict. `split_like` tests on the same rows as another experiment. The same `request_id`
    starts it once.
    """
    request = pb.StartTrainingRequest(
        request_id=request_id or str(uuid.uuid4()),
        project_id=(yield from project_id(project)),
        name=name,
        labels=labels or {},
        spec=_spec(
            dataset_id=(yield from dataset_id(dataset, project)),
            algorithm=algorithm,
            target=target,
            features=features,
            task=task,
            hyperparameters=hyperparameters,
            test_size=test_size,
            split=split,
            split_like=split_like,
            cross_validation=cross_validation,
            objective=_objective(metric, positive_class, class_weights or {}, balance_classes, weight_column),
            seed=seed,
            model_name=model_name,
            max_duration=max_duration,
            dataset_version_id=dataset_version_id,
        ),
    )
    return Experiment.of((yield from call(request, pb.StartTrainingResponse)).experiment)


def validate(
    project: ProjectRef,
    *,
    dataset: DatasetRef,
    algorithm: str,
    target: str = "",
    features: Sequence[str] = (),
    task: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    test_size: float | None = None,
    split: Split | str | None = None,
    split_like: ExperimentRef | None = None,
    cross_validation: int | None = None,
    metric: str | None = None,
    positive_class: str = "",
    class_weights: Mapping[str, float] | None = None,
    balance_classes: bool = False,
    weight_column: str = "",
    seed: int | None = None,
    model_name: str = "",
    max_duration: dt.timedelta | float | None = None,
    dataset_version_id: str = "",
) -> Plan[TrainingPlan]:
    """Every check of `start`, and what it would do; nothing is started."""
    spec = _spec(
        dataset_id=(yield from dataset_id(dataset, project)),
        algorithm=algorithm,
        target=target,
        features=features,
        task=task,
        hyperparameters=hyperparameters,
        test_size=test_size,
        split=split,
        split_like=split_like,
        cross_validation=cross_validation,
        objective=_objective(metric, positive_class, class_weights or {}, balance_classes, weight_column),
        seed=seed,
        model_name=model_name,
        max_duration=max_duration,
        dataset_version_id=dataset_version_id,
    )
    of_project = yield from project_id(project)
    request = pb.StartTrainingRequest(project_id=of_project, spec=spec, validate_only=True)
    return TrainingPlan.of((yield from call(request, pb.StartTrainingResponse)).plan)


def _spec(
    *,
    dataset_id: str,
    algorithm: str,
    target: str,
    features: Sequence[str],
    task: str | None,
    hyperparameters: Mapping[str, Any] | None,
    test_size: float | None,
    split: Split | str | None,
    split_like: ExperimentRef | None,
    cross_validation: int | None,
    objective: experiment_pb2.Objective,
    seed: int | None,
    model_name: str,
    max_duration: dt.timedelta | float | None,
    dataset_version_id: str,
) -> experiment_pb2.TrainingSpec:
    spec = experiment_pb2.TrainingSpec(
        dataset_id=dataset_id,
        dataset_version_id=dataset_version_id,
        target=target,
        features=features,
        task=enum_number("task", algorithm_pb2.Task, task),
        algorithm=algorithm,
        hyperparameters=to_struct(hyperparameters or {}),
        cross_validation=None if cross_validation is None else experiment_pb2.CrossValidation(folds=cross_validation),
        objective=objective,
        random_seed=seed,
        model_name=model_name,
        max_duration=None if max_duration is None else to_duration(max_duration),
    )
    _set_split(spec, split, split_like, test_size)
    return spec


def _set_split(
    spec: experiment_pb2.TrainingSpec,
    split: Split | str | None,
    split_like: ExperimentRef | None,
    test_size: float | None,
) -> None:
    """A test size given beside a split belongs to the split; the contract has it there."""
    if split is not None and split_like is not None:
        raise InvalidInput.at("split", "Give split or split_like, not both: the other experiment has a split already.")
    if split_like is not None:
        spec.split_experiment_id = experiment_id(split_like)
    if split is not None:
        spec.split.CopyFrom((Split(split) if isinstance(split, str) else split).to_proto())
        if test_size is not None:
            spec.split.test_size = test_size
    elif test_size is not None:
        spec.test_size = test_size


def _objective(
    metric: str | None, positive_class: str, class_weights: Mapping[str, float], balance: bool, weight_column: str
) -> experiment_pb2.Objective:
    return experiment_pb2.Objective(
        metric=enum_number("metric", algorithm_pb2.Metric, metric),
        positive_class=positive_class,
        class_weights=class_weights,
        balance_classes=balance,
        weight_column=weight_column,
    )


def watch(experiment: ExperimentRef, *, after_sequence: int = 0) -> Stream[TrainingEvent]:
    """The events of a training, from the first or after a sequence, until it ends.

    A broken connection is taken up again after the last event that came: there is neither gap nor repeat.
    """
    for step in _events(experiment, after_sequence, None):
        raise AssertionError(step)
    yield from ()


def result(experiment: ExperimentRef, *, timeout: float | None = None) -> Plan[Experiment]:
    """Wait for the end, at most `timeout` seconds; the experiment, with its metrics and model version.

    Raises TrainingFailed or TrainingCancelled; DeadlineExceeded if it still runs, and goes on.
    """
    raise NotImplementedError
    yield


def cancel(experiment: ExperimentRef) -> Plan[Experiment]:
    """Ask a training to stop; what it reported is kept. An ended one is returned as it is."""
    request = pb.CancelTrainingRequest(experiment_id=experiment_id(experiment))
    return Experiment.of((yield from call(request, pb.CancelTrainingResponse)).experiment)
