"""What replicas count of their calls, and what follows from two readings: how many, how fast, at what cost.

Counters only grow while their process lives, and begin at zero with the next one; so they say nothing alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

ERRORS: Final = frozenset(
    {"Unknown", "DeadlineExceeded", "ResourceExhausted", "Aborted", "Internal", "Unavailable", "DataLoss"}
)
"""Codes by which a replica did not answer. A refusal is an answer, and who went away was not failed."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie at or below each bound; the last bound is infinite, so its count is of all."""

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    def __add__(self, other: Histogram) -> Histogram:
        """Of both together; they must have the same bounds, unless one is empty."""
        if not self.bounds or not other.bounds:
            return self if self.bounds else other
        self._check(other)
        return Histogram(self.bounds, tuple(map(sum, zip(self.counts, other.counts, strict=True))))

    def __sub__(self, earlier: Histogram) -> Histogram:
        """What came since an earlier reading."""
        if not earlier.bounds:
            return self
        self._check(earlier)
        return Histogram(self.bounds, tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True)))

    def quantile(self, share: float) -> float | None:
        """The value that so large a share lies at or below, as Prometheus' histogram_quantile has it.

        Within a bucket values are taken to lie evenly; beyond the last finite bound it is that bound. None if empty.
        """
        if not self.counts or not self.counts[-1]:
            return None
        rank = share * self.counts[-1]
        bucket = next(number for number, count in enumerate(self.counts) if count >= rank)
        if bucket == len(self.bounds) - 1:
            return self.bounds[bucket - 1] if bucket else None
        lower, below = (self.bounds[bucket - 1], self.counts[bucket - 1]) if bucket else (0.0, 0)
        inside = self.counts[bucket] - below
        return lower + (self.bounds[bucket] - lower) * ((rank - below) / inside if inside else 0.0)

    def _check(self, other: Histogram) -> None:
        if self.bounds != other.bounds:
            raise ValueError("histograms of other bounds cannot be compared")


@dataclass(frozen=True, slots=True)
class Counters:
    """Calls by their code, latencies of those that have one question, and what the model and the process did.

    `answered` requests were answered by `runs` of the model over `rows` rows; a call of a stream has many requests.
    """

    calls: Mapping[str, int] = field(default_factory=dict)
    latency: Histogram = Histogram()
    answered: int = 0
    runs: int = 0
    rows: int = 0
    cpu_seconds: float = 0.0

    @property
    def requests(self) -> int:
        """Calls that ended."""
        return sum(self.calls.values())

    @property
    def errors(self) -> int:
        """Calls that were not answered."""
        return sum(count for code, count in self.calls.items() if code in ERRORS)

    def follows(self, earlier: Counters) -> bool:
        """Whether it can be a later reading of the same process: nothing became less."""
        now = (self.requests, self.answered, self.runs, self.rows, self.cpu_seconds)
        then = (earlier.requests, earlier.answered, earlier.runs, earlier.rows, earlier.cpu_seconds)
        return all(one >= other for one, other in zip(now, then, strict=True))

    def __add__(self, other: Counters) -> Counters:
        """Of both together."""
        codes = self.calls.keys() | other.calls.keys()
        return Counters(
            {code: self.calls.get(code, 0) + other.calls.get(code, 0) for code in codes},
            self.latency + other.latency,
            self.answered + other.answered,
            self.runs + other.runs,
            self.rows + other.rows,
            self.cpu_seconds + other.cpu_seconds,
        )

    def __sub__(self, earlier: Counters) -> Counters:
        """What came since an earlier reading of the same process."""
        return Counters(
            {code: count - earlier.calls.get(code, 0) for code, count in self.calls.items()},
            self.latency - earlier.latency,
            self.answered - earlier.answered,
            self.runs - earlier.runs,
            self.rows - earlier.rows,
            self.cpu_seconds - earlier.cpu_seconds,
        )


@dataclass(frozen=True, slots=True)
class ReplicaCounters:
    """What a replica has counted since its process began, and the memory that it has; none once it was told to end."""

    replica_id: UUID
    start_time: datetime
    counters: Counters
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """The seconds of all calls that ask a model since a replica's process began, those in flight up to now.

    Their growth by time is how many are in flight. None if it did not say.
    """

    replica_id: UUID
    call_seconds: float | None


@dataclass(frozen=True, slots=True)
class RevisionCounters:
    """What the replicas of a revision counted, of those that could be asked."""

    revision_id: UUID
    deployment_id: UUID
    number: int
    replicas: Sequence[ReplicaCounters]
