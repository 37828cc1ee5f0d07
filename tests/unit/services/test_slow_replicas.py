"""Replicas that are slow and alive are found by what they tell, and by not telling it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from uuid import UUID

import pytest

from easyml_server.domain.counters import Counters, Histogram, ReplicaCounters, RevisionCounters
from easyml_server.domain.deployments import Replica, ReplicaState
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.slowness import MISSED, WINDOW, Slowness, SlowReplica
from easyml_server.services.deployment_metrics import DeploymentMetrics
from easyml_server.services.slow_replicas import SlowReplicas
from tests.builders import TIME

DEPLOYMENT, REVISION, A, B = (UUID(int=number) for number in range(1, 5))
APPLIED = {DEPLOYMENT: {1: REVISION}}
BOUNDS = (0.01, 0.1, 1.0, inf)
READING = timedelta(seconds=3)
CALLS = 30
"""Of a reading."""


@dataclass
class Machine:
    """Two replicas, which are what a test says and tell what it says."""

    now: datetime = TIME
    metrics: str = "127.0.0.1:9"
    states: dict[UUID, ReplicaState] = field(default_factory=lambda: dict.fromkeys((A, B), ReplicaState.READY))
    silent: set[UUID] = field(default_factory=set)
    known: bool = True
    counted: dict[UUID, Histogram] = field(default_factory=lambda: dict.fromkeys((A, B), Histogram(BOUNDS, (0,) * 4)))

    def replicas(self, _revision_id: UUID) -> Sequence[Replica]:
        if not self.known:
            raise Unavailable("The cluster has not answered yet.", retry_after=1)
        return [Replica(each, 1, state, metrics_endpoint=self.metrics) for each, state in self.states.items()]

    async def counters(self) -> Sequence[RevisionCounters]:
        told = [
            ReplicaCounters(each, TIME, Counters({"OK": latency.counts[-1]}, latency), 1)
            for each, latency in self.counted.items()
            if each not in self.silent
        ]
        return [RevisionCounters(REVISION, DEPLOYMENT, 1, told)]


class Looking:
    """Reads counters and looks, as the server does every few seconds."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.metrics = DeploymentMetrics(None, self.machine, lambda: self.machine.now)  # type: ignore[arg-type]  # all that is asked of it
        self.slow = SlowReplicas(self.machine, self.metrics)  # type: ignore[arg-type]  # all that is asked of it

    async def look(self, **took: float) -> bool:
        """After a reading in which calls of these replicas took so long; whether something else is to be said."""
        machine = self.machine
        for name, seconds in took.items():
            more = Histogram(BOUNDS, tuple(CALLS if seconds <= bound else 0 for bound in BOUNDS))
            replica = {"a": A, "b": B}[name]
            machine.counted[replica] = machine.counted[replica] + more
        machine.now += READING
        await self.metrics.collect()
        return self.slow.look(APPLIED) == {DEPLOYMENT}

    @property
    def found(self) -> Sequence[SlowReplica]:
        return self.slow.of(DEPLOYMENT)


@pytest.fixture
def looking() -> Looking:
    return Looking()


async def test_a_replica_slower_than_the_other_is_found_and_is_well_once_its_slow_calls_are_over(
    looking: Looking,
) -> None:
    assert not await looking.look()
    assert await looking.look(a=0.01, b=1.0)
    assert looking.found == (SlowReplica(B, 1, Slowness.SLOWER_THAN_OTHERS),)
    assert not await looking.look(a=0.01, b=1.0)
    changed = [await looking.look(a=0.01, b=0.01) for _ in range(WINDOW // READING + 1)]
    assert changed.count(True) == 1
    assert looking.found == ()


async def test_a_replica_that_does_not_say_in_time_what_it_counts_is_found_at_the_third_time(looking: Looking) -> None:
    await looking.look()
    looking.machine.silent.add(A)
    assert [await looking.look() for _ in range(MISSED)] == [False, False, True]
    assert looking.found == (SlowReplica(A, 1, Slowness.ANSWERS_LATE),)
    looking.machine.silent.clear()
    assert await looking.look()
    assert looking.found == ()


async def test_one_that_has_just_become_ready_was_not_asked_yet(looking: Looking) -> None:
    looking.machine.states[B] = ReplicaState.STARTING
    looking.machine.silent.add(B)
    for _ in range(MISSED + 1):
        assert not await looking.look()
    looking.machine.states[B] = ReplicaState.READY
    assert not await looking.look()
    looking.machine.silent.clear()
    assert not await looking.look()


async def test_one_that_ended_is_not_slow(looking: Looking) -> None:
    await looking.look()
    looking.machine.silent.add(A)
    assert [await looking.look() for _ in range(MISSED)] == [False, False, True]
    looking.machine.states[A] = ReplicaState.BACKING_OFF
    assert await looking.look()
    assert looking.found == ()


async def test_one_that_tells_nowhere_what_it_counts_is_not_late(looking: Looking) -> None:
    looking.machine.metrics = ""
    looking.machine.silent |= {A, B}
    assert not any([await looking.look() for _ in range(MISSED + 2)])


async def test_what_was_known_is_said_on_while_nothing_is_known_of_replicas(looking: Looking) -> None:
    assert not await looking.look()
    assert await looking.look(a=0.01, b=1.0)
    looking.machine.known = False
    assert not await looking.look(a=0.01, b=1.0)
    assert looking.found == (SlowReplica(B, 1, Slowness.SLOWER_THAN_OTHERS),)
