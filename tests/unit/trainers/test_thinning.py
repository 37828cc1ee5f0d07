"""Which reports become events."""

from __future__ import annotations

from easyml_server.domain.events import IterationCompleted, LogLevel, LogLine, StageStarted
from easyml_server.domain.experiments import TrainingStage, TrainingWarningKind
from easyml_server.trainers.thinning import EventThinner

ITERATION = IterationCompleted(1, 10)
STAGE = StageStarted(TrainingStage.FITTING)


def test_what_is_not_repeated_is_never_left_out() -> None:
    thinner = EventThinner(per_second=1, per_run=1)
    assert all(thinner.admits(STAGE, 0.0) for _ in range(100))
    assert thinner.warning() is None


def test_a_second_holds_so_many_and_no_more() -> None:
    thinner = EventThinner(per_second=50, per_run=1000)
    assert [thinner.admits(ITERATION, 0.0) for _ in range(60)] == [True] * 50 + [False] * 10
    assert thinner.left_out == 10


def test_time_brings_new_allowance_but_never_more_than_a_second_of_it() -> None:
    thinner = EventThinner(per_second=10, per_run=1000)
    for _ in range(20):
        thinner.admits(ITERATION, 0.0)
    assert sum(thinner.admits(ITERATION, 0.5) for _ in range(20)) == 5
    assert sum(thinner.admits(ITERATION, 100.0) for _ in range(20)) == 10


def test_a_run_holds_so_many_and_no_more() -> None:
    thinner = EventThinner(per_second=10, per_run=15)
    admitted = sum(thinner.admits(LogLine(LogLevel.INFO, "x"), float(second)) for second in range(100))
    assert admitted == 15
    assert thinner.admits(STAGE, 101.0)


def test_the_warning_counts_what_was_left_out() -> None:
    thinner = EventThinner(per_second=1, per_run=10)
    for _ in range(8):
        thinner.admits(ITERATION, 0.0)
    warning = thinner.warning()
    assert warning
    assert warning.warning.kind is TrainingWarningKind.EVENTS_THINNED
    assert warning.warning.message.startswith("7 ")
