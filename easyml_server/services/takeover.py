"""Takes up what other servers, or this one before it died, left behind: queued again, or ended."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from time import monotonic
from uuid import UUID

import structlog

from easyml_server.domain.experiments import Experiment, Failure, FailureKind, FailureReason, TrainingState
from easyml_server.domain.leases import Abandoned, Lease
from easyml_server.domain.sessions import TrainingSession
from easyml_server.ports.store import Store
from easyml_server.services.events import EventHub
from easyml_server.services.logs import TrainingLog, latest_event_time
from easyml_server.services.outcomes import MAX_ATTEMPTS, Ending, as_new, cut_off_events, ended
from easyml_server.services.recorder import RECORD_RUN

log = structlog.get_logger(__name__)


class Takeover:
    """Takes trainings over, each by one server.

    While the database is away nobody can renew, and all leases end. So leases count as lapsed only for a server that
    has been in touch with the database for as long as a lease lasts: by then, whoever lives has renewed.
    """

    def __init__(
        self,
        store: Store,
        hub: EventHub,
        clock: Callable[[], datetime],
        lease: Lease,
        recorded: Callable[[], None],
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._lease = lease
        self._recorded = recorded
        self._seconds = seconds
        self._in_touch_since: float | None = None

    def lost_touch(self) -> None:
        """The database did not answer."""
        self._in_touch_since = None

    async def take_lapsed(self, running: Collection[UUID]) -> bool:
        """What nobody renewed, if that can be told yet; none of `running`, which are at work here."""
        # Asked in any case: only an answer tells that the database is there.
        found = await self._are_there(Abandoned.LAPSED, running)
        now = self._seconds()
        if self._in_touch_since is None:
            self._in_touch_since = now
        if not found or now - self._in_touch_since < self._lease.seconds:
            return False
        return await self.take(Abandoned.LAPSED, running)

    async def take(self, which: Abandoned, running: Collection[UUID]) -> bool:
        """Take over all of a kind; whether there were any."""
        found = False
        while await self._are_there(which, running) and await self._take_one(which, running):
            found = True
        return found

    async def _are_there(self, which: Abandoned, running: Collection[UUID]) -> bool:
        """Mostly there are none, and nobody needs to wait for a look."""
        async with self._store.read() as work:
            return await work.queue.has_abandoned(which, running)

    async def _take_one(self, which: Abandoned, running: Collection[UUID]) -> bool:
        async with self._store.begin() as work:
            experiment = await work.queue.take_over(which, running)
            if experiment is None:
                return False
            session = TrainingSession.of(experiment)
            latest = await latest_event_time(work, experiment)
            ending = self._ending(experiment, max(latest, self._clock()))
            with self._hub.use(experiment.id) as feed:
                training_log = TrainingLog(self._store, feed, experiment, session, self._clock, latest)
                training_log.end(ending.last_events)
                events = await training_log.store_pending(work)
                await work.experiments.save(ending.experiment)
                if ending.experiment.state.terminal:
                    await work.outbox.add(RECORD_RUN, experiment.id, self._clock())
                await work.commit()
                training_log.publish(events)
        if ending.experiment.state.terminal:
            self._recorded()
        log.info("training_taken_up", experiment_id=str(experiment.id), state=ending.experiment.state.value)
        return True

    def _ending(self, experiment: Experiment, now: datetime) -> Ending:
        if experiment.state is TrainingState.CANCELLING:
            return ended(experiment, TrainingState.CANCELLED, now)
        if experiment.attempts >= MAX_ATTEMPTS:
            return ended(experiment, TrainingState.FAILED, now, _stopped_too_often())
        return Ending(as_new(experiment, now), cut_off_events())


def _stopped_too_often() -> Failure:
    return Failure(
        FailureKind.SYSTEM,
        FailureReason.SERVER_STOPPED,
        f"The server was stopped {MAX_ATTEMPTS} times while this ran; start it again when the server runs steadily.",
    )
