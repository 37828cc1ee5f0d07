"""Looks how many calls of autoscaled deployments are in flight, and says how many replicas they need.

Replicas tell the seconds of all their calls, so that none is missed between two looks, however short it was. What is
known is kept in memory: a server that starts takes no replica away before it has looked for a whole cooldown.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog

from easyml_server.domain.counters import ReplicaLoad
from easyml_server.domain.deployments import Deployment
from easyml_server.domain.scaling import LOOK_SECONDS, Autoscaling, Demand, Recommendation
from easyml_server.ports.deployer import Deployer

log = structlog.get_logger(__name__)


class Autoscaler:
    """Follows the calls of those deployments that the reconciler asks about."""

    def __init__(self, deployer: Deployer, clock: Callable[[], float] = time.monotonic) -> None:
        self._deployer = deployer
        self._clock = clock
        self._followed: dict[UUID, _Followed] = {}
        self._waiting: Counter[UUID] = Counter()
        self._any = asyncio.Event()

    def recommend(self, deployment: Deployment) -> Recommendation | None:
        """How many replicas it needs; None if that is a fixed number."""
        scaling = deployment.config.autoscaling
        if scaling is None or deployment.stopped:
            self.forget(deployment.id)
            return None
        followed = self._followed.get(deployment.id)
        if followed is None or followed.demand.scaling != scaling:
            followed = self._followed[deployment.id] = _Followed(scaling, self._clock())
            self._any.set()
        if self._waiting[deployment.id]:
            followed.demand.called(self._clock())
        followed.wanted = deployment.config.replicas
        followed.told = followed.demand.recommend(followed.wanted, self._clock())
        return followed.told

    def forget(self, deployment_id: UUID) -> None:
        """It is followed no more."""
        self._followed.pop(deployment_id, None)
        if not self._followed:
            self._any.clear()

    @contextmanager
    def waiting(self, deployment_id: UUID) -> Iterator[None]:
        """A call waits for the first replica in this block."""
        self._waiting[deployment_id] += 1
        if followed := self._followed.get(deployment_id):
            followed.demand.called(self._clock())
        try:
            yield
        finally:
            self._waiting[deployment_id] -= 1
            if not self._waiting[deployment_id]:
                del self._waiting[deployment_id]

    async def run(self, wake: Callable[[UUID], None]) -> None:
        """Until cancelled; tells of each deployment that needs another number."""
        while True:
            await self._any.wait()
            try:
                for deployment_id in await self.look():
                    wake(deployment_id)
            except Exception:  # a defect in one look must not end all
                log.exception("autoscaling_waits")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> Collection[UUID]:
        """Look at all now; those that need another number, or for which the bound begins or ends to matter."""
        looked_at = dict(self._followed)
        told = await asyncio.gather(*map(self._deployer.loads, looked_at))
        now = self._clock()
        changed = []
        for (deployment_id, followed), loads in zip(looked_at.items(), told, strict=True):
            followed.looked(loads, self._waiting[deployment_id], now)
            found = followed.demand.recommend(followed.wanted, now)
            limited = followed.told is not None and followed.told.limited
            if (found.replicas, found.limited) != (followed.wanted, limited):
                changed.append(deployment_id)
        return changed


@dataclass(frozen=True, slots=True)
class _Reading:
    """The seconds that a replica told at a time, and its calls in flight on average before that."""

    call_seconds: float
    time: float
    in_flight: float = 0.0

    def after(self, call_seconds: float, time: float) -> _Reading:
        """The next; a process that began meanwhile has begun at zero."""
        if call_seconds < self.call_seconds or time <= self.time:
            return _Reading(call_seconds, time)
        return _Reading(call_seconds, time, (call_seconds - self.call_seconds) / (time - self.time))


class _Followed:
    """One deployment, the replicas that were wanted and what was told when the reconciler last asked."""

    def __init__(self, scaling: Autoscaling, now: float) -> None:
        self.demand = Demand(scaling, now)
        self.wanted = 0
        self.told: Recommendation | None = None
        self._readings: dict[UUID, _Reading] = {}

    def looked(self, loads: Sequence[ReplicaLoad], waiting: int, now: float) -> None:
        """What replicas said, and how many calls wait for one; who did not say is as busy as before."""
        readings = {}
        for load in loads:
            before = self._readings.get(load.replica_id)
            if load.call_seconds is None:
                if before is not None:
                    readings[load.replica_id] = before
            elif before is None:
                readings[load.replica_id] = _Reading(load.call_seconds, now)
            else:
                readings[load.replica_id] = before.after(load.call_seconds, now)
        self._readings = readings
        self.demand.looked(waiting + sum(reading.in_flight for reading in readings.values()), now)
