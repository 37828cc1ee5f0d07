"""Event logs of running trainings: stored in groups, then shown to the watchers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from easyml_server.domain.errors import LimitReached, Unavailable
from easyml_server.domain.events import EventBody, TrainingEvent
from easyml_server.domain.experiments import Experiment
from easyml_server.domain.sessions import TrainingSession
from easyml_server.ports.store import EventGroup, Store, UnitOfWork
from easyml_server.services.events import Feed

GROUP_SECONDS = 0.02
"""How long events wait for company; a commit that runs makes the next group longer."""
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class TrainingLog:
    """The log of one training that runs here: gives sequences, stores groups, publishes them."""

    def __init__(
        self,
        store: Store,
        feed: Feed,
        experiment: Experiment,
        session: TrainingSession,
        clock: Callable[[], datetime],
        latest: datetime,
    ) -> None:
        """`latest` is the time of the newest event that is stored, by whatever clock."""
        self._store = store
        self._feed = feed
        self._experiment = experiment
        self._clock = clock
        self._latest = max(latest, experiment.start_time or latest)
        self._sequence = experiment.last_sequence
        self._pending: list[TrainingEvent] = []
        self._wanted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._stopping = False
        self._before_end: tuple[int, TrainingSession] | None = None
        self.session = session

    @property
    def pending(self) -> Sequence[TrainingEvent]:
        """What is queued, and not known to be stored."""
        return tuple(self._pending)

    @property
    def queued(self) -> int:
        """How many of them there are."""
        return len(self._pending)

    def now(self) -> datetime:
        """The time of the next event: a clock that is set back puts no event before another."""
        self._latest = max(self._latest, self._clock())
        return self._latest

    def stored_up_to(self, sequence: int) -> bool:
        """Whether all that is queued lies at or before a sequence."""
        return self._sequence <= sequence

    def end(self, bodies: Sequence[EventBody]) -> None:
        """Queue the last events, in place of those of another end that was not stored; nothing comes after them."""
        if self._before_end is not None:
            self._sequence, self.session = self._before_end
            self._pending = [event for event in self._pending if event.sequence <= self._sequence]
        self._before_end = self._sequence, self.session
        for body in bodies:
            self._add(body)

    def add(self, body: EventBody) -> None:
        """Queue an event for the next group."""
        if self._before_end is None:
            self._add(body)

    def _add(self, body: EventBody) -> None:
        now = self.now()
        self._sequence += 1
        self._pending.append(TrainingEvent(self._experiment.id, self._sequence, now, body))
        self.session = self.session.after(body, now)
        self._wanted.set()

    async def run(self) -> None:
        """Store groups as they come, until `stop`; while the database is away they gather."""
        while not self._stopping:
            await self._wanted.wait()
            await asyncio.sleep(GROUP_SECONDS)
            try:
                await self.flush()
            except (Unavailable, LimitReached) as error:
                log.warning("events_wait", experiment_id=str(self._experiment.id), error=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    def stop(self) -> None:
        """Let `run` end once the group it stores is stored: cut off in between, its events would be lost."""
        self._stopping = True
        self._wanted.set()

    async def flush(self) -> None:
        """Store what is queued now."""
        async with self._writing:
            await self._feed.groups.write(self._store, self)

    def group(self) -> EventGroup | None:
        """All that is queued now, for whoever stores it with others; None if nothing is."""
        self._wanted.clear()
        if not self._pending:
            return None
        return EventGroup(self.pending, self.session, self._experiment.fencing)

    async def store_pending(self, work: UnitOfWork) -> Sequence[TrainingEvent]:
        """Store what is queued in a unit of work; the caller commits and then publishes."""
        group = self.group()
        if group is None:
            return ()
        await work.experiments.add_events(group.events, group.session, group.fencing)
        return group.events

    def publish(self, events: Sequence[TrainingEvent]) -> None:
        """Show events that were stored and committed to the watchers; only now are they no longer queued."""
        del self._pending[: len(events)]
        self._feed.publish(events)


async def latest_event_time(work: UnitOfWork, experiment: Experiment) -> datetime:
    """When the newest event was stored, perhaps by a server with another clock; no other comes before it."""
    newest = await work.experiments.list_events(experiment.id, experiment.last_sequence - 1, 1)
    return newest[0].event_time if newest else experiment.create_time
