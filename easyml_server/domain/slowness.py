"""Which replicas are there and answer much later than they should: said of them, though nothing is done to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import reduce
from operator import add
from typing import Final
from uuid import UUID

from easyml_server.domain.counters import Histogram

WINDOW: Final = timedelta(seconds=30)
"""Of the calls that are compared."""
FEWEST_CALLS: Final = 20
"""Fewer say nothing, of a replica as of the others."""
TIMES: Final = 5.0
"""How much longer than with the others a call takes in the middle; histograms have steps of 2 to 2.5."""
STILL_TIMES: Final = 3.0
"""It is said on until it is less than so much, since the same calls change a little each time."""
LEAST_SECONDS: Final = 0.05
"""Less than that nobody notices."""
MISSED: Final = 3
"""Questions for its counters in a row that a replica did not answer in time."""


class Slowness(StrEnum):
    """How a replica is slow; the reason of a condition."""

    ANSWERS_LATE = "AnswersLate"
    SLOWER_THAN_OTHERS = "SlowerThanOthers"


@dataclass(frozen=True, slots=True)
class SlowReplica:
    """A replica of a revision, and how it is slow."""

    replica_id: UUID
    revision: int
    slowness: Slowness


def slower_than_others(latencies: Mapping[UUID, Histogram], before: Collection[UUID]) -> set[UUID]:
    """Of replicas of one revision with their latencies; `before` are those that were slower until now."""
    enough = {each: latency for each, latency in latencies.items() if _calls(latency) >= FEWEST_CALLS}
    return {
        each
        for each, latency in enough.items()
        if _is_slower(latency, [enough[other] for other in enough if other != each], slow=each in before)
    }


def _is_slower(latency: Histogram, others: Collection[Histogram], *, slow: bool) -> bool:
    # A replica that an older server started may have other bounds.
    together = reduce(add, (other for other in others if other.bounds == latency.bounds), Histogram())
    own, theirs = latency.quantile(0.5), together.quantile(0.5)
    if own is None or theirs is None:
        return False
    return own > theirs * (STILL_TIMES if slow else TIMES) and own - theirs > LEAST_SECONDS


def _calls(latency: Histogram) -> int:
    return latency.counts[-1] if latency.counts else 0
