"""Trainings: started, watched, waited for, stopped."""

from __future__ import annotations

import datetime as dt
import functools
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from easyml.v1 import algorithm_pb2, experiment_pb2, training_event_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml_client.errors import (
    DeadlineExceeded,
    InvalidInput,
    LimitReached,
    TrainingCancelled,
    TrainingFailed,
    Unavailable,
)
from easyml_client.plans import experiments
from easyml_client.plans.references import DatasetRef, ExperimentRef, ProjectRef, dataset_id, experiment_id, project_id
from easyml_client.plans.waiting import Patience
from easyml_client.resources.events import Heartbeat, Interruption, TrainingEvent, event_of
from easyml_client.resources.experiments import Experiment, TrainingPlan
from easyml_client.steps import Emit, Opened, Plan, Stream, call, opened
from easyml_client.values import enum_number, misspelt, to_duration, to_struct

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


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
                known = ["random", "stratified", "group", "time", "column"]
                raise InvalidInput.at("split", misspelt("split", other, known))
        return split


def request(
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
) -> Plan[pb.StartTrainingRequest]:
    """What is asked of a training; `start` and `validate` take the same."""
    return pb.StartTrainingRequest(
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


def _starting(build: Callable[P, Plan[pb.StartTrainingRequest]]) -> Callable[P, Plan[Experiment]]:
    def start(*args: P.args, **kwargs: P.kwargs) -> Plan[Experiment]:
        request = yield from build(*args, **kwargs)
        return Experiment.of((yield from call(request, pb.StartTrainingResponse)).experiment)

    return _named(start, build, "start", _START)


def _validating(build: Callable[P, Plan[pb.StartTrainingRequest]]) -> Callable[P, Plan[TrainingPlan]]:
    def validate(*args: P.args, **kwargs: P.kwargs) -> Plan[TrainingPlan]:
        request = yield from build(*args, **kwargs)
        request.validate_only = True
        return TrainingPlan.of((yield from call(request, pb.StartTrainingResponse)).plan)

    return _named(validate, build, "validate", "Every check of `start`, and what it would do; nothing is started.")


def _named(function: F, like: Callable[..., Any], name: str, doc: str) -> F:
    """Takes the parameters of another function, with a name and a docstring of its own."""
    functools.update_wrapper(function, like)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


_START = """Queue a training; what is left out is told by the dataset and the algorithm.

`target` is the column to predict; `split_like` tests on the same rows as another experiment. The same `request_id`
starts it once.
"""

start = _starting(request)
validate = _validating(request)


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
    watching = _Watching(experiment_id(experiment), after_sequence)
    while (message := (yield from watching.next())) is not None:
        if isinstance(message, TrainingEvent):
            yield Emit(message)


def follow(experiment: ExperimentRef, *, after_sequence: int = 0) -> Stream[TrainingEvent | Heartbeat | Interruption]:
    """As `watch`, with what happens in between: signs of life (what runs now, how far it is), and interruptions."""
    watching = _Watching(experiment_id(experiment), after_sequence)
    while (message := (yield from watching.next())) is not None:
        yield Emit(message)


class _Watching:
    """A watch that outlives its connections."""

    def __init__(self, experiment: str, after_sequence: int, timeout: float | None = None) -> None:
        self._experiment = experiment
        self._sequence = after_sequence
        self._end = None if timeout is None else time.monotonic() + timeout
        self._patience = Patience()
        self._stream: Opened[pb.WatchTrainingResponse] | None = None
        self._broken: Unavailable | LimitReached | None = None
        self._finished = False

    def next(self) -> Plan[TrainingEvent | Heartbeat | Interruption | None]:
        """The next event, sign of life or interruption, which is told before it is waited for; None at the end."""
        while not self._finished:
            if self._broken is not None:
                yield from self._patience.wait(self._broken)
                self._broken = None
            message = yield from self._receive()
            if message is None:
                return Interruption(self._broken.message if self._broken else "")
            self._patience.restored()
            if message.HasField("heartbeat"):
                return Heartbeat.of(message.heartbeat)
            event = self._taken(message.event)
            if event is not None:
                return event
        return None

    def _taken(self, message: training_event_pb2.TrainingEvent) -> TrainingEvent | None:
        """The event, unless it came before or is of a kind we do not know."""
        if message.sequence <= self._sequence:
            return None
        self._sequence = message.sequence
        self._finished = message.WhichOneof("event") == "finished"
        return event_of(message)

    def _receive(self) -> Plan[pb.WatchTrainingResponse | None]:
        """The next message; None where the stream broke and is to be opened again."""
        try:
            stream = self._stream or (yield from self._open())
            message = yield from stream.receive()
            if message is None:
                # The last event closes the stream; one that ends without it was cut off.
                raise Unavailable("The server ended the stream of events early.")  # noqa: TRY301 - as if it had broken
        except (Unavailable, LimitReached) as error:
            self._stream, self._broken = None, error
            return None
        self._stream = stream
        return message

    def _open(self) -> Plan[Opened[pb.WatchTrainingResponse]]:
        request = pb.WatchTrainingRequest(experiment_id=self._experiment, after_sequence=self._sequence)
        left = None if self._end is None else max(self._end - time.monotonic(), 0)
        return (yield from opened(request, pb.WatchTrainingResponse, left))


def result(experiment: ExperimentRef, *, timeout: float | None = None) -> Plan[Experiment]:
    """Wait for the end, at most `timeout` seconds; the experiment, with its metrics and model version.

    Raises TrainingFailed or TrainingCancelled; DeadlineExceeded if the training is still on, which it then stays.
    """
    found = yield from experiments.get(experiment)
    if not found.ended:
        yield from _wait(found, timeout)
        found = yield from experiments.get(experiment)
    if found.state == "failed":
        raise TrainingFailed(found.id, found.failure)
    if found.state == "cancelled":
        raise TrainingCancelled(found.id)
    return found


def _wait(experiment: Experiment, timeout: float | None) -> Plan[None]:
    watching = _Watching(experiment.id, experiment.last_sequence, timeout)
    try:
        while (yield from watching.next()) is not None:
            pass
    except DeadlineExceeded as error:
        message = f"Training {experiment.id} is not done after {timeout:g} s; it goes on, and can be waited for again."
        raise DeadlineExceeded(message, call_id=error.call_id) from error


def cancel(experiment: ExperimentRef) -> Plan[Experiment]:
    """Ask a training to stop; what it reported is kept. An ended one is returned as it is."""
    request = pb.CancelTrainingRequest(experiment_id=experiment_id(experiment))
    return Experiment.of((yield from call(request, pb.CancelTrainingResponse)).experiment)
