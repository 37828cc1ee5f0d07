"""A training as it happens: a live picture for people, lines for pipes, JSON Lines for scripts."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from easyml_client.cli.output import clean, complain, duration, interactive, words
from easyml_client.resources.base import plain
from easyml_client.resources.events import (
    FoldCompleted,
    Heartbeat,
    Interruption,
    IterationCompleted,
    LogLine,
    ResourceUsage,
    StageStarted,
    StateChanged,
    TrainingEvent,
    TrainingFinished,
    WarningFound,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from easyml_client.client import Training
    from easyml_client.resources.experiments import Experiment, MetricValue

_CURVES = 4
"""More lines than that in one plot cannot be told apart."""

_METRICS = 4
"""More than that do not fit in a line; `easyml experiments show` has them all."""

_AWAY = "The server is away; watching goes on as soon as it is back."

_POINTS = 300
"""More points than that do not fit between two sides of a terminal."""


Told = TrainingEvent | Heartbeat | Interruption


def watch(training: Training, *, after_sequence: int = 0, as_json: bool = False) -> TrainingFinished | None:
    """Shows a training until it ends; Ctrl-C leaves it running and says how to come back."""
    show = _show_json if as_json else _show_live if interactive() else _show_lines
    try:
        return _finish(show(training.follow(after_sequence), training.experiment))
    except KeyboardInterrupt as stopped:
        message = f"The training goes on. Come back with: easyml experiments watch {training.id}"
        raise KeyboardInterrupt(message) from stopped


def _finish(events: Iterable[Told]) -> TrainingFinished | None:
    finished = None
    for event in events:
        if isinstance(event, TrainingFinished):
            finished = event
    return finished


Events = Iterator[Told]


def _show_json(events: Events, _: Experiment) -> Events:
    for event in events:
        if not isinstance(event, (Heartbeat, Interruption)):
            print(json.dumps(plain(event), ensure_ascii=False), flush=True)
        yield event


def _show_lines(events: Events, _: Experiment) -> Events:
    away = False
    for event in events:
        if isinstance(event, Interruption) and not away:
            complain(_AWAY)
        away = isinstance(event, Interruption)
        line = line_of(event)
        if line:
            print(clean(line), flush=True)
        yield event


def _show_live(events: Events, experiment: Experiment) -> Events:
    from rich.live import Live

    picture = Picture(experiment)
    with Live(get_renderable=picture.render, refresh_per_second=4) as live:
        for event in events:
            picture.take(event)
            yield event
        live.refresh()


def line_of(event: Told) -> str | None:  # noqa: PLR0911 - one return per kind
    """An event in one line; None for what only a picture needs."""
    match event:
        case StateChanged(state="succeeded" | "failed" | "cancelled"):
            return None  # the last event says it, and more
        case StateChanged():
            return f"{_clock(event)} {event.state}"
        case StageStarted():
            return f"{_clock(event)} {event.stage}"
        case FoldCompleted():
            return f"{_clock(event)} fold {event.fold} of {event.folds}: {metrics_in_words(event.metrics)}"
        case IterationCompleted():
            values = "".join(f" {name}={value:.6g}" for name, value in event.values.items())
            return f"{_clock(event)} iteration {_of(event.iteration, event.iterations)}{values}"
        case LogLine():
            return f"{_clock(event)} {event.text}"
        case WarningFound():
            return f"{_clock(event)} note: {event.message}"
        case TrainingFinished():
            return f"{_clock(event)} {_outcome(event)}"
    return None


def _outcome(event: TrainingFinished) -> str:
    if event.failure:
        return f"{event.state}: {event.failure.message}"
    return f"{event.state} {metrics_in_words(event.metrics)}".strip()


def metrics_in_words(metrics: Iterable[MetricValue]) -> str:
    """In words: test accuracy 0.93, train accuracy 0.99; the first few, the rows that matter most before others."""
    order = {"test": 0, "validation": 1, "train": 2}
    ranked = sorted(metrics, key=lambda metric: order.get(metric.partition, 3))[:_METRICS]
    return ", ".join(f"{metric.partition} {metric.metric} {metric.value:.4g}" for metric in ranked)


def _clock(event: Any) -> str:
    moment: dt.datetime = event.event_time
    return moment.astimezone().strftime("%H:%M:%S")


def _of(number: int, total: int) -> str:
    return f"{number}/{total}" if total else str(number)


class Picture:
    """What is known of a training, drawn: where it is, its curves, the last lines."""

    def __init__(self, experiment: Experiment) -> None:
        self._name = experiment.name or experiment.id
        self._state = experiment.state
        self._stage = ""
        self._progress: float | None = None
        self._remaining: dt.timedelta | None = None
        self._queue_position = experiment.queue_position
        self._usage = ""
        self._fold = 0
        self._away = False
        self._curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._lines: deque[str] = deque(maxlen=5)

    def take(self, event: Told) -> None:
        """Notes what an event says."""
        self._away = isinstance(event, Interruption)
        match event:
            case StateChanged():
                self._state = event.state
            case StageStarted():
                self._stage, self._progress = event.stage, None
            case Interruption():
                pass  # the headline says it
            case Heartbeat():
                self._beat(event)
            case IterationCompleted():
                self._iterate(event)
            case ResourceUsage():
                self._usage = f"{event.memory_bytes / 2**20:.0f} MiB, {duration(event.cpu_seconds)} of processor time"
            case TrainingFinished():
                self._state, self._progress = event.state, 1.0 if event.state == "succeeded" else self._progress
                self._lines.append(line_of(event) or "")
            case _:
                self._lines.append(line_of(event) or "")

    def _beat(self, beat: Heartbeat) -> None:
        self._state = beat.state or self._state
        self._stage = beat.stage or self._stage
        self._progress = beat.progress if beat.progress is not None else self._progress
        self._remaining, self._queue_position = beat.estimated_remaining, beat.queue_position

    def _iterate(self, event: IterationCompleted) -> None:
        if event.fold != self._fold:
            self._fold = event.fold
            self._curves.clear()
        if event.iterations:
            self._progress = event.iteration / event.iterations
        for name, value in event.values.items():
            if math.isfinite(value):
                self._curves[name].append((event.iteration, value))

    def render(self) -> RenderableType:
        """Everything, as rich draws it."""
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        parts: list[RenderableType] = [Text(clean(self._headline()), style="bold")]
        if self._progress is not None:
            # A bar alone does not end its line.
            parts.append(Padding(ProgressBar(total=1.0, completed=self._progress, width=60), 0))
        curves = self._plot()
        if curves:
            parts.append(Text.from_ansi(curves))
        parts.extend(Text(clean(line), style="dim") for line in self._lines)
        if self._away:
            parts.append(Text(_AWAY, style="yellow"))
        return Group(*parts)

    def _headline(self) -> str:
        said = [self._name, self._state]
        if self._state == "queued" and self._queue_position:
            said.append(f"place {self._queue_position} in the queue")
        if self._state == "running" and self._stage:
            said.append(self._stage + (f", fold {self._fold}" if self._fold else ""))
        if self._remaining and self._state == "running":
            said.append(f"about {words(self._remaining)} left")
        return " · ".join([*said, self._usage] if self._usage else said)

    def _plot(self) -> str:
        """The newest curves; a point alone makes no line."""
        some = list(self._curves.items())[:_CURVES]
        curves = {name: points[:: len(points) // _POINTS + 1] for name, points in some if len(points) > 1}
        if not curves:
            return ""
        import plotext

        figure = plotext.figure
        figure.clear()
        figure.theme("simple")
        figure.plot_size(72, 16)
        figure.label("iteration", "x")
        for name, points in curves.items():
            signal = figure.signal([x for x, _ in points], [y for _, y in points])
            figure.draw(signal.lines().label(clean(name)))
        # On the left, where curves begin, a legend is in their way; on the right losses leave room above, scores below.
        values = [value for points in curves.values() for _, value in points]
        falls = next(iter(curves.values()))[-1][1] < next(iter(curves.values()))[0][1]
        steps = max(points[-1][0] for points in curves.values())
        corner = {"y": max(values), "va": "top"} if falls else {"y": min(values), "va": "bottom"}
        figure.legend(x=steps, ha="right", relative=True, **corner)
        return str(figure.build())
