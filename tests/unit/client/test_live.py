from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from easyml.v1 import experiment_pb2, training_event_pb2, training_service_pb2
from easyml_client.cli.live import Picture, line_of
from easyml_client.cli.output import clean, duration, size, words
from easyml_client.resources.events import Heartbeat, event_of
from easyml_client.resources.experiments import Experiment


def an_event(sequence: int = 1, **payload: Any) -> Any:
    return event_of(training_event_pb2.TrainingEvent(sequence=sequence, **payload))


def iteration(number: int, fold: int = 0, **values: float) -> Any:
    event = training_event_pb2.IterationCompleted(iteration=number, iterations=10, values=values, fold=fold)
    return an_event(number, iteration_completed=event)


def drawn(picture: Picture) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=True)
    console.print(picture.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def picture() -> Picture:
    return Picture(Experiment.of(experiment_pb2.Experiment(name="forest", state=1, queue_position=3)))


def test_a_training_that_waits_shows_its_place(picture: Picture) -> None:
    assert drawn(picture).strip() == "forest · queued · place 3 in the queue"


def test_a_training_that_runs_shows_its_stage_and_what_is_left(picture: Picture) -> None:
    beat = training_service_pb2.TrainingHeartbeat(state=2, stage=4, progress=0.5)
    beat.estimated_remaining.seconds = 80
    picture.take(Heartbeat.of(beat))
    shown = drawn(picture)
    assert "forest · running · fitting · about 1 min 20 s left" in shown
    assert "━" in shown


def test_a_curve_is_drawn_from_the_second_point_on(picture: Picture) -> None:
    picture.take(iteration(1, train_loss=1.0))
    assert "train_loss" not in drawn(picture)
    picture.take(iteration(2, train_loss=0.5))
    assert "train_loss" in drawn(picture)


def test_a_new_fold_begins_a_new_curve(picture: Picture) -> None:
    for number in (1, 2):
        picture.take(iteration(number, fold=1, train_loss=1.0))
    picture.take(iteration(1, fold=2, train_loss=1.0))
    assert "train_loss" not in drawn(picture)


def test_what_a_training_says_is_text(picture: Picture) -> None:
    picture.take(an_event(log_line=training_event_pb2.LogLine(text="[red]\x1b[31mhello\x07")))
    assert "[red]\\u001b[31mhello\\u0007" in drawn(picture)


def test_the_end_is_shown(picture: Picture) -> None:
    failure = experiment_pb2.Failure(message="There are 3 rows.")
    picture.take(an_event(finished=training_event_pb2.TrainingFinished(state=5, failure=failure)))
    shown = drawn(picture)
    assert "forest · failed" in shown
    assert "failed: There are 3 rows." in shown


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({"state_changed": training_event_pb2.StateChanged(state=2)}, "running"),
        ({"stage_started": training_event_pb2.StageStarted(stage=3)}, "cross_validating"),
        (
            {
                "fold_completed": training_event_pb2.FoldCompleted(
                    fold=2, folds=5, metrics=[experiment_pb2.MetricValue(metric=1, partition=2, value=0.9)]
                )
            },
            "fold 2 of 5: validation accuracy 0.9",
        ),
        ({"warning": experiment_pb2.TrainingWarning(message="Column id looks like an id.")}, "note: Column id"),
    ],
)
def test_each_event_is_a_line(payload: dict[str, Any], line: str) -> None:
    assert line in (line_of(an_event(**payload)) or "")


def test_what_only_a_picture_needs_is_no_line() -> None:
    assert line_of(an_event(resource_usage=training_event_pb2.ResourceUsage())) is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_a_length_of_time_is_said(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**40, "5.0 TiB")])
def test_a_number_of_bytes_is_said(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, ""), (True, "yes"), (0.1 + 0.2, "0.3"), ({"b": 1, "a": None}, "a=none, b=1"), (("x", 2), "x, 2")],
)
def test_values_are_said_in_words(value: Any, said: str) -> None:
    assert words(value) == said


@pytest.mark.parametrize(
    ("text", "shown"), [("zürich 東京 🙂", "zürich 東京 🙂"), ("a\tb\nc", "a b c"), ("\u202e\x9b", "\\u202e\\u009b")]
)
def test_text_cannot_do_anything(text: str, shown: str) -> None:
    assert clean(text) == shown
