"""Trainings whose place was lost, as that of a Dask worker: queued again with a note, but not for ever."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from easyml_server.domain.events import Finished, LogLine, StateChanged
from easyml_server.domain.experiments import FailureReason, TrainingState
from easyml_server.domain.training import Outcome, Report, SplitMade, TrainingInterrupted, TrainingJob
from easyml_server.services.outcomes import MAX_ATTEMPTS
from tests.unit.services.test_outcomes import OneTraining, World, world

__all__ = ["world"]  # the fixture

QUEUED, RUNNING = TrainingState.QUEUED, TrainingState.RUNNING
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
