"""Trainings whose place was lost, as that of a Dask worker: queued again with a note, but not for ever."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from uuid import UUID

import pytest

from easyml_server.domain.events import Finished, LogLine, StateChanged
from easyml_server.domain.experiments import FailureReason, TrainingState
from easyml_server.domain.training import Outcome, Report, SplitMade, TrainingInterrupted, TrainingJob
from easyml_server.services.outcomes import MAX_ATTEMPTS
from easyml_server.services.recorder import RECORD_RUN
from tests.unit.services.test_outcomes import HOUR, OneTraining, SlowToEnd, Told, World, told, world

__all__ = ["told", "world"]  # the fixtures

QUEUED, RUNNING = TrainingState.QUEUED, TrainingState.RUNNING
CANCELLING, CANCELLED = TrainingState.CANCELLING, TrainingState.CANCELLED
CAUSE = "The Dask worker tcp://10.0.0.7:1 that ran this was lost"


class OnLostWorkers(OneTraining):
    """A trainer that loses its first workers in the middle of a training."""

    def __init__(self, lost: int, happens: Callable[[], None] = lambda: None) -> None:
        super().__init__(happens)
        self._lost = lost
        self._tries = count()
        self.folders: list[str] = []

    async def train(self, job: TrainingJob, report: Callable[[Report], None]) -> Outcome | TrainingInterrupted:
        """See Trainer.train."""
        self.folders.append(job.output_path)
        if next(self._tries) >= self._lost:
            return await super().train(job, report)
        report(SplitMade(8, 2, "ab"))
        self._happens()
        return TrainingInterrupted(CAUSE)


async def test_it_is_tried_again_in_another_folder_and_the_watch_says_why(world: World) -> None:
    experiment_id = await world.queue()
    trainer = OnLostWorkers(MAX_ATTEMPTS - 1)
    async with world.running(lambda: None, trainer):
        events = await world.watch(experiment_id)
    states = [event.body.state for event in events if isinstance(event.body, StateChanged)]
    assert states == [*[RUNNING, QUEUED] * (MAX_ATTEMPTS - 1), RUNNING, TrainingState.SUCCEEDED]
    lines = [event.body.text for event in events if isinstance(event.body, LogLine)]
    assert lines == [f"{CAUSE}; the training is queued again and starts from the beginning."] * (MAX_ATTEMPTS - 1)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(set(trainer.folders)) == MAX_ATTEMPTS
    assert not list(world.artifacts.work.iterdir()), "folders of lost tries stay behind"


async def test_it_fails_when_that_happened_too_often(world: World) -> None:
    experiment_id = await world.queue()
    async with world.running(lambda: None, OnLostWorkers(MAX_ATTEMPTS)):
        events = await world.watch(experiment_id)
    finished = events[-1].body
    assert isinstance(finished, Finished)
    assert finished.failure is not None
    assert finished.failure.reason is FailureReason.WORKER_DIED
    assert finished.failure.message.startswith(f"{CAUSE}, and it was tried {MAX_ATTEMPTS} times")
    assert (await world.load(experiment_id)).state is TrainingState.FAILED


async def test_one_that_was_cancelled_meanwhile_is_not_tried_again(world: World) -> None:
    experiment_id = await world.queue()

    def cancel() -> None:
        dispatcher.cancel(experiment_id)

    trainer = OnLostWorkers(1, cancel)
    async with world.running(lambda: None, trainer) as dispatcher:
        await world.watch(experiment_id)
    assert (await world.load(experiment_id)).state is TrainingState.CANCELLED
    assert len(trainer.folders) == 1


async def test_a_clock_that_is_set_back_between_tries_puts_nothing_out_of_order(world: World) -> None:
    experiment_id = await world.queue()
    asked = world.clock.time
    world.clock.time -= HOUR

    def set_back() -> None:
        world.clock.time -= HOUR

    async with world.running(lambda: None, OnLostWorkers(1, set_back)):
        events = await world.watch(experiment_id)
    times = [event.event_time for event in events]
    assert times == sorted(times)
    experiment = await world.load(experiment_id)
    assert experiment.state is TrainingState.SUCCEEDED
    assert experiment.start_time is not None
    assert experiment.end_time is not None
    assert asked <= experiment.start_time <= experiment.end_time
    assert asked <= times[0]


# Cancelled at another server, of which this one has not heard yet.


def cancel_elsewhere(world: World) -> None:
    """What another server stores; nobody tells the dispatcher."""
    with closing(sqlite3.connect(world.database, isolation_level=None)) as other:
        other.execute("UPDATE ml_experiments SET state = 'cancelling', etag = 'cancelled'")


async def check_cancelled(world: World, experiment_id: UUID) -> None:
    """It ended as any training that was cancelled does."""
    events = await world.watch(experiment_id)
    states = [event.body.state for event in events if isinstance(event.body, StateChanged)]
    assert states == [RUNNING, CANCELLING, CANCELLED]
    assert [event.body.state for event in events if isinstance(event.body, Finished)] == [CANCELLED]
    assert not [event for event in events if isinstance(event.body, LogLine)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    experiment = await world.load(experiment_id)
    assert (experiment.state, experiment.last_sequence) == (CANCELLED, len(events))
    assert experiment.start_time is not None
    assert experiment.end_time is not None
    async with world.store.read() as work:
        session = await work.experiments.find_session(experiment_id)
        intents = await work.outbox.due((RECORD_RUN,), world.clock(), 10)
    assert session is not None
    assert session.state is CANCELLED
    assert [intent.subject_id for intent in intents] == [experiment_id]


@pytest.mark.parametrize("lost", [1, MAX_ATTEMPTS])
async def test_a_cancel_that_was_not_heard_of_is_not_lost_with_the_place(world: World, lost: int) -> None:
    experiment_id = await world.queue()
    with closing(sqlite3.connect(world.database, isolation_level=None)) as other:
        other.execute("UPDATE ml_experiments SET attempts = ?", (lost - 1,))
    trainer = OnLostWorkers(1, lambda: cancel_elsewhere(world))
    async with world.running(lambda: None, trainer):
        await check_cancelled(world, experiment_id)
    assert len(trainer.folders) == 1


async def test_a_cancel_that_was_not_heard_of_is_not_lost_when_the_server_stops(world: World) -> None:
    experiment_id = await world.queue()
    trainer = SlowToEnd()
    async with world.running(lambda: None, trainer) as dispatcher:
        await trainer.begun.wait()
        cancel_elsewhere(world)
        stopping = asyncio.create_task(dispatcher.stop())
        await trainer.asked.wait()
        trainer.end.set()
        await stopping
    await check_cancelled(world, experiment_id)


async def test_a_cancel_that_comes_while_a_training_cannot_be_put_back_is_not_lost(world: World, told: Told) -> None:
    experiment_id = await world.queue()
    others: list[sqlite3.Connection] = []
    async with world.running(lambda: None, OnLostWorkers(1, lambda: others.append(world.locked()))):
        await told.of("outcome_waits")
        others[0].execute("UPDATE ml_experiments SET state = 'cancelling', etag = 'cancelled'")
        others[0].execute("COMMIT")
        others[0].close()
        await check_cancelled(world, experiment_id)
