"""What replicas counted in the last hour, read every few seconds: for people, and to judge canaries by.

It is kept in memory: a server that starts knows what its replicas have counted until then, but not since when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from easyml_server.domain.counters import Counters, Histogram
from easyml_server.domain.errors import EasyMLError
from easyml_server.domain.traffic import CallCounts
from easyml_server.domain.users import Caller
from easyml_server.ports.deployer import Deployer
from easyml_server.ports.store import Store
from easyml_server.services.counted_calls import CountedRevision
from easyml_server.services.counters_elsewhere import CountersElsewhere

COLLECT_SECONDS: Final = 3.0
KEPT: Final = timedelta(hours=1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RevisionMetrics:
    """What a revision did in a window, and the memory of each of its replicas that told at the end of it."""

    number: int
    counters: Counters
    resident_bytes: Sequence[int]


@dataclass(frozen=True, slots=True)
class MetricsWindow:
    """What each revision that ran did, newest first, in the time that is really covered."""

    start_time: datetime
    end_time: datetime
    revisions: Sequence[RevisionMetrics]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end_time - self.start_time).total_seconds()


class DeploymentMetrics:
    """Reads the counters of all replicas, keeps them for an hour, and says what follows from them."""

    def __init__(
        self,
        store: Store,
        deployer: Deployer,
        clock: Callable[[], datetime],
        elsewhere: CountersElsewhere | None = None,
    ) -> None:
        """`elsewhere` is for one of several servers."""
        self._store = store
        self._deployer = deployer
        self._elsewhere = elsewhere
        self._clock = clock
        self._began = self._read_at = clock()
        self._revisions: dict[UUID, CountedRevision] = {}

    async def run(self, collected: Callable[[], None]) -> None:
        """Until cancelled; tells each time that there is news."""
        while True:
            try:
                await self.collect()
                collected()
            except EasyMLError as error:
                log.warning("counters_wait", error=error.message)
            except Exception:  # a defect in one reading must not end all
                log.exception("counters_wait")
            await asyncio.sleep(COLLECT_SECONDS)

    async def collect(self) -> None:
        """Read the counters now."""
        told = [*await self._deployer.counters()]
        if self._elsewhere is not None:
            here = {replica.replica_id for revision in told for replica in revision.replicas}
            told += await self._elsewhere.read(here)
        now = self._read_at = self._clock()
        for revision in told:
            if revision.revision_id not in self._revisions:
                self._revisions[revision.revision_id] = CountedRevision(revision, self._began)
            self._revisions[revision.revision_id].add(revision.replicas, now)
        for revision_id, counted in list(self._revisions.items()):
            counted.forget(now - KEPT)
            if not counted.readings:
                del self._revisions[revision_id]

    def since(self, revision_id: UUID, time: datetime) -> CallCounts:
        """The calls that a revision answered since then, to the accuracy of a reading."""
        revision = self._revisions.get(revision_id)
        counted = revision and revision.since(time)
        if not counted:
            return CallCounts()
        counters = counted.counters
        return CallCounts(counters.requests, counters.errors, counters.latency.quantile(0.99))

    def latencies(self, revision_id: UUID, window: timedelta) -> Mapping[UUID, Histogram]:
        """Of the replicas of a revision, by their ids, up to the last reading."""
        revision = self._revisions.get(revision_id)
        return {} if revision is None else revision.latencies(self._read_at - window)

    def told(self, revision_id: UUID, replica_id: UUID) -> bool:
        """Whether a replica answered the last time that counters were read."""
        revision = self._revisions.get(revision_id)
        return revision is not None and revision.told(replica_id, self._read_at)

    async def get(self, caller: Caller, deployment_id: UUID, window: timedelta) -> MetricsWindow:
        """What the revisions of a deployment did in the last while."""
        async with self._store.read() as work:
            await work.deployments.get(deployment_id, caller)
        return self.window(deployment_id, window)

    def window(self, deployment_id: UUID, window: timedelta) -> MetricsWindow:
        """The same, for whoever may know. It ends with the last reading, and begins with one."""
        end = self._read_at
        ran = [
            (revision, counted)
            for revision in self._revisions.values()
            if revision.deployment_id == deployment_id and (counted := revision.since(end - window))
        ]
        return MetricsWindow(
            start_time=min((counted.start_time for _, counted in ran), default=end),
            end_time=end,
            revisions=[
                RevisionMetrics(revision.number, counted.counters, revision.resident_bytes(end))
                for revision, counted in sorted(ran, key=lambda each: each[0].number, reverse=True)
            ],
        )
