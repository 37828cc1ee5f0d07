"""Where trainings run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from easyml_server.domain.training import Outcome, Report, TrainingInterrupted, TrainingJob


class Trainer(Protocol):
    """Runs trainings in workers that can be killed."""

    @property
    def slots(self) -> int:
        """How many trainings run at once just now; none while nothing can run."""
        ...

    async def train(self, job: TrainingJob, report: Callable[[Report], None]) -> Outcome | TrainingInterrupted:
        """Run one training to its end; `report` is called in the event loop, in order, for each report.

        Cancelling the awaiting task asks the worker to stop, then terminates, then kills it, and raises CancelledError
        once it is gone. A worker that dies ends in TrainingFailed with WORKER_DIED (or OUT_OF_MEMORY, TIME_LIMIT); one
        that is lost with its machine in TrainingInterrupted.
        """
        ...

    def availability(self) -> AsyncIterator[bool]:
        """Whether trainings can run, now and whenever that changes."""
        ...
