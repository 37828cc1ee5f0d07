"""Readings of what the processes of one revision counted, over an hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from easyml_server.domain.counters import Counters, Histogram, ReplicaCounters, RevisionCounters

FINE: Final = timedelta(minutes=5)
"""What is older is kept in steps of COARSE, so that an hour of a process takes about 600 KiB."""
COARSE: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted in a time, which begins where it is known what had been counted before."""

    start_time: datetime
    counters: Counters


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a process had counted at a time."""

    time: datetime
    counters: Counters
    resident_bytes: int


class CountedRevision:
    """The readings of one revision: of each process that it had, one after the other."""

    def __init__(self, revision: RevisionCounters, began: datetime) -> None:
        """`began` is since when there are readings; a process that is younger was read from its beginning."""
        self.deployment_id = revision.deployment_id
        self.number = revision.number
        self._began = began
        self._processes: dict[tuple[UUID, datetime], list[_Reading]] = {}

    @property
    def readings(self) -> int:
        """How many are kept."""
        return sum(map(len, self._processes.values()))

    def add(self, replicas: Iterable[ReplicaCounters], now: datetime) -> None:
        """Note a reading."""
        for replica in replicas:
            readings = self._processes.setdefault((replica.replica_id, replica.start_time), [])
            # Only where the clock was set back: what lies in the future is not known.
            while readings and readings[-1].time >= now:
                readings.pop()
            # Two readings of one that ends may come in the wrong order.
            if readings and not replica.counters.follows(readings[-1].counters):
                continue
            readings.append(_Reading(now, replica.counters, replica.resident_bytes))
            _thin(readings, now - FINE)

    def forget(self, before: datetime) -> None:
        """Forget what is older, but for one reading from which a window of an hour can begin."""
        for process, readings in list(self._processes.items()):
            while len(readings) > 1 and readings[1].time <= before:
                del readings[0]
            if readings[-1].time <= before:
                del self._processes[process]

    def since(self, time: datetime) -> Counted | None:
        """What all its processes counted since then, or a little earlier; None if none ran.

        One process after the other begins at zero, so that no restart takes anything away. What a process counted
        after its last reading, before it was killed, is not known.
        """
        total, start = Counters(), None
        for (_, started), readings in self._processes.items():
            if readings[-1].time > time:
                before = self._before(time, started, readings)
                total += readings[-1].counters - before.counters
                start = min(start or before.start_time, before.start_time)
        return None if start is None else Counted(start, total)

    def latencies(self, time: datetime) -> Mapping[UUID, Histogram]:
        """Of each replica since then: of the process that it has now."""
        latest: dict[UUID, tuple[datetime, Histogram]] = {}
        for (replica_id, started), readings in self._processes.items():
            if readings[-1].time > time and (replica_id not in latest or latest[replica_id][0] < started):
                before = self._before(time, started, readings)
                latest[replica_id] = started, readings[-1].counters.latency - before.counters.latency
        return {replica_id: latency for replica_id, (_, latency) in latest.items()}

    def told(self, replica_id: UUID, time: datetime) -> bool:
        """Whether a replica told what it counts when it was asked then."""
        return any(each == replica_id and found[-1].time == time for (each, _), found in self._processes.items())

    def resident_bytes(self, time: datetime) -> Sequence[int]:
        """The memory of each process that was read at that time."""
        last = [readings[-1] for readings in self._processes.values()]
        return [reading.resident_bytes for reading in last if reading.time == time and reading.resident_bytes]

    def _before(self, time: datetime, started: datetime, readings: Sequence[_Reading]) -> Counted:
        """What is not to be counted: what a process had counted before."""
        earlier = [reading for reading in readings if reading.time <= time]
        if not earlier and started >= min(time, self._began):
            return Counted(started, Counters())
        known = earlier[-1] if earlier else readings[0]
        return Counted(known.time, known.counters)


def _thin(readings: list[_Reading], before: datetime) -> None:
    """Take out the last but one reading that is older, if those beside it are close enough."""
    old = [reading for reading in readings if reading.time <= before]
    match old[-3:]:
        case [one, _, next] if next.time - one.time < COARSE:
            del readings[len(old) - 2]
