"""Progress is what can be counted, and nothing else."""

from __future__ import annotations

from uuid import uuid4

from easyml_server.domain.events import FoldCompleted, IterationCompleted, LogLevel, LogLine, StageStarted, StateChanged
from easyml_server.domain.experiments import TrainingStage, TrainingState
from easyml_server.domain.sessions import TrainingSession
from tests.builders import TIME


def a_session(**changes: object) -> TrainingSession:
    return TrainingSession(uuid4(), TrainingState.RUNNING, **changes)  # type: ignore[arg-type]  # named fields


def test_progress_is_unknown_where_the_library_tells_nothing() -> None:
    assert a_session(stage=TrainingStage.FITTING).progress is None
    assert a_session(stage=TrainingStage.EXPORTING, folds=5, fold=5).progress is None


def test_iterations_count_within_one_fit() -> None:
    session = a_session(stage=TrainingStage.FITTING).after(IterationCompleted(30, 120, {"loss": 0.5}), TIME)
    assert session.progress == 0.25
    assert session.values == {"loss": 0.5}


def test_folds_and_the_final_fit_count_alike() -> None:
    session = a_session(stage=TrainingStage.CROSS_VALIDATING, folds=4)
    session = session.after(FoldCompleted(2, 4, ()), TIME)
    assert session.progress == 2 / 5
    session = session.after(IterationCompleted(5, 10, fold=3), TIME)
    assert session.progress == 2.5 / 5
    session = session.after(StageStarted(TrainingStage.FITTING), TIME)
    assert session.progress == 4 / 5


def test_states_are_taken_over_and_other_events_change_nothing() -> None:
    session = a_session()
    assert session.after(StateChanged(TrainingState.CANCELLING), TIME).state is TrainingState.CANCELLING
    assert session.after(LogLine(LogLevel.INFO, "text"), TIME) is session
