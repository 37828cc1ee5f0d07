"""Feeds of running trainings, and those who watch them.

Every event is stored before anybody sees it (`services.logs`). A watcher at the head is served from memory; one that
lags reads the log and slows nobody. What another server stored comes into memory by one read for all watchers
(`services.following`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from uuid import UUID

from easyml_server.domain.errors import Reason, Unavailable
from easyml_server.domain.events import Finished, TrainingEvent
from easyml_server.domain.experiments import Experiment
from easyml_server.domain.sessions import TrainingSession
from easyml_server.ports.signals import Alone, Signals, Topic
from easyml_server.ports.store import Store, UnitOfWork
from easyml_server.services.groups import GroupWriter

REMEMBERED_EVENTS = 1_000
PAGE_EVENTS = 100
"""What a watcher takes at once, and holds until it is sent: a watcher that does not read holds no more than this."""
HEARTBEAT_SECONDS = 10.0
DRAIN_RETRY_SECONDS = 2.0


@dataclass(slots=True)
class StoredEvent:
    """An event that is in the log; `wire` is its serialized form once somebody needed it."""

    event: TrainingEvent
    wire: bytes | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life of a quiet stream."""

    time: datetime
    session: TrainingSession
    queue_position: int
    estimated_remaining: float | None


@dataclass(slots=True)
class Feed:
    """The newest events of one training, for the watchers at its head."""

    recent: deque[StoredEvent] = field(default_factory=lambda: deque(maxlen=REMEMBERED_EVENTS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    users: int = 0
    read: int = 0
    """The newest sequence that a watcher read in the log."""
    announce: Callable[[], None] = lambda: None
    """Tells other servers that there is something new."""
    groups: GroupWriter = field(default_factory=GroupWriter)
    """Stores what is to be shown; the feeds of a server share it."""

    @property
    def head(self) -> int:
        """The newest sequence that is known here; 0 if none is."""
        return self.recent[-1].event.sequence if self.recent else self.read

    def publish(self, events: Sequence[TrainingEvent]) -> None:
        """Show events that were stored by this server."""
        self.show(events)
        self.announce()

    def show(self, events: Sequence[TrainingEvent]) -> None:
        """Show stored events to the watchers: each once, also if it comes from here and from the log."""
        new = [StoredEvent(event) for event in events if not self.recent or event.sequence > self.head]
        if new and self.recent and new[0].event.sequence > self.head + 1:
            # What lies in between is in the log, where watchers find it.
            self.recent.clear()
        self.recent.extend(new)
        self.wake()

    def wake(self) -> None:
        """Wake everybody who waits now; who comes later waits for the next time."""
        self.changed.set()
        self.changed = asyncio.Event()

    def since(self, sequence: int) -> list[StoredEvent] | None:
        """The next events after `sequence`; None when memory does not reach back that far."""
        if not self.recent or self.recent[0].event.sequence > sequence + 1:
            return None
        start = max(0, sequence + 1 - self.recent[0].event.sequence)
        return list(islice(self.recent, start, start + PAGE_EVENTS))


class EventHub:
    """The feeds of all trainings that run or are watched here."""

    def __init__(self, signals: Signals | None = None) -> None:
        self._signals = signals or Alone()
        self._feeds: dict[UUID, Feed] = {}
        self._groups = GroupWriter()
        self.draining = False

    @contextmanager
    def use(self, experiment_id: UUID) -> Iterator[Feed]:
        """The feed of a training, kept while somebody uses it."""
        announce = partial(self._signals.send, Topic.EVENTS, experiment_id)
        feed = self._feeds.setdefault(experiment_id, Feed(announce=announce, groups=self._groups))
        feed.users += 1
        try:
            yield feed
        finally:
            feed.users -= 1
            if not feed.users:
                self._feeds.pop(experiment_id, None)

    def find(self, experiment_id: UUID) -> Feed | None:
        """The feed of a training, if somebody uses it."""
        return self._feeds.get(experiment_id)

    @property
    def used(self) -> Mapping[UUID, Feed]:
        """The feeds that somebody uses."""
        return dict(self._feeds)

    def drain(self) -> None:
        """End all watches; clients come back to the next server."""
        self.draining = True
        for feed in self._feeds.values():
            feed.wake()


class Watcher:
    """Follows one training from a sequence on."""

    def __init__(self, store: Store, hub: EventHub, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock

    async def watch(
        self, experiment: Experiment, after: int, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> AsyncIterator[StoredEvent | Heartbeat]:
        """Every event after `after`, oldest first, to the last; heartbeats while it is quiet."""
        last = after
        if experiment.state.terminal and last >= experiment.last_sequence:
            return
        with self._hub.use(experiment.id) as feed:
            while True:
                # Taken before looking, so that what is published in between is not missed.
                changed = feed.changed
                events = await self._next(feed, experiment.id, last)
                for stored in events:
                    yield stored
                    last = stored.event.sequence
                    if isinstance(stored.event.body, Finished):
                        return
                if events:
                    continue
                if self._hub.draining:
                    raise Unavailable(
                        "The server is shutting down; watch again in a moment, from the last sequence you saw.",
                        Reason.SERVER_DRAINING,
                        retry_after=DRAIN_RETRY_SECONDS,
                    )
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await changed.wait()
                except TimeoutError:
                    yield await self._heartbeat(experiment.id)

    async def _next(self, feed: Feed, experiment_id: UUID, last: int) -> Sequence[StoredEvent]:
        recent = feed.since(last)
        if recent is not None:
            return recent
        async with self._store.read() as work:
            events = await work.experiments.list_events(experiment_id, last, PAGE_EVENTS)
        feed.read = max(feed.read, events[-1].sequence if events else last)
        return [StoredEvent(event) for event in events]

    async def _heartbeat(self, experiment_id: UUID) -> Heartbeat:
        now = self._clock()
        async with self._store.read() as work:
            experiment = await work.experiments.load(experiment_id)
            session = await _session(work, experiment)
        remaining = None
        if session.progress and experiment.start_time is not None:
            elapsed = max(0.0, (now - experiment.start_time).total_seconds())
            remaining = elapsed * (1 - session.progress) / session.progress
        return Heartbeat(now, session, experiment.queue_position, remaining)


async def _session(work: UnitOfWork, experiment: Experiment) -> TrainingSession:
    """A sign of life is not withheld because documents are away just now; it tells no progress then."""
    with suppress(Unavailable):
        found = await work.experiments.find_session(experiment.id)
        if found is not None:
            return found
    return TrainingSession.of(experiment)
