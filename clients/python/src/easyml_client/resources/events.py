"""What happens in a training, one class per kind of event, for `match`."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from easyml.v1 import experiment_pb2, training_event_pb2, training_service_pb2
from easyml_client import values
from easyml_client.resources.base import Resource, plain
from easyml_client.resources.experiments import Failure, MetricValue

M = TypeVar("M", bound=Message)


class _Event(Resource[M]):
    @property
    def sequence(self) -> int:
        """1, 2, 3 … per training, no gaps: `watch(after_sequence=…)` goes on after it."""
        return int(self.__dict__["_event"].sequence)

    @property
    def event_time(self) -> dt.datetime:
        """When it happened."""
        return values.from_timestamp(self.__dict__["_event"].event_time)

    @property
    def event(self) -> str:
        """The kind as a word, such as "iteration_completed"."""
        return str(self.__dict__["_event"].WhichOneof("event"))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `sequence`, `event_time` and `event` lead."""
        head = {"sequence": self.sequence, "event_time": plain(self.event_time), "event": self.event}
        return {**head, **super().to_dict()}


class StateChanged(_Event[training_event_pb2.StateChanged]):
    """The state changed."""

    state: str


class StageStarted(_Event[training_event_pb2.StageStarted]):
    """A stage began."""

    stage: str


class FoldCompleted(_Event[training_event_pb2.FoldCompleted]):
    """A fold was fitted and scored; the first is 1."""

    fold: int
    folds: int
    metrics: tuple[MetricValue, ...]


class IterationCompleted(_Event[training_event_pb2.IterationCompleted]):
    """The library reported an iteration; `iterations` is 0 where it does not know, `fold` 0 in the final fit."""

    iteration: int
    iterations: int
    values: Mapping[str, float]
    fold: int


class LogLine(_Event[training_event_pb2.LogLine]):
    """A line of text."""

    level: str | None
    text: str


class ResourceUsage(_Event[training_event_pb2.ResourceUsage]):
    """What the worker uses."""

    memory_bytes: int
    cpu_seconds: float


class WarningFound(_Event[experiment_pb2.TrainingWarning]):
    """Something was noticed."""

    kind: str | None
    column: str | None
    message: str


class TrainingFinished(_Event[training_event_pb2.TrainingFinished]):
    """The training ended; the last event."""

    state: str
    metrics: tuple[MetricValue, ...]
    model_version_id: str | None
    failure: Failure | None


class Heartbeat(Resource[training_service_pb2.TrainingHeartbeat]):
    """A sign of life while nothing happens; `progress` is between 0 and 1, None where it cannot be known."""

    heartbeat_time: dt.datetime
    state: str | None
    stage: str | None
    progress: float | None
    estimated_remaining: dt.timedelta | None
    queue_position: int


@dataclasses.dataclass(frozen=True)
class Interruption:
    """The connection broke; the watch goes on by itself once the server is there again."""

    message: str


TrainingEvent = (
    StateChanged
    | StageStarted
    | FoldCompleted
    | IterationCompleted
    | LogLine
    | ResourceUsage
    | WarningFound
    | TrainingFinished
)

_KINDS: Mapping[str, type[_Event[Any]]] = {
    "state_changed": StateChanged,
    "stage_started": StageStarted,
    "fold_completed": FoldCompleted,
    "iteration_completed": IterationCompleted,
    "log_line": LogLine,
    "resource_usage": ResourceUsage,
    "warning": WarningFound,
    "finished": TrainingFinished,
}


def event_of(message: training_event_pb2.TrainingEvent) -> TrainingEvent | None:
    """The event of its own class; None for a kind that a later server knows and we do not."""
    kind = message.WhichOneof("event")
    if kind is None or kind not in _KINDS:
        return None
    event = _KINDS[kind].of(getattr(message, kind))
    event.__dict__["_event"] = message
    return event  # type: ignore[return-value]  # the table holds the members of the union
