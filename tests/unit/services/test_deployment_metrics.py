"""Counters over time: windows, restarts, and what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.counters import Counters, Histogram, ReplicaCounters, RevisionCounters
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.traffic import CallCounts
from easyml_server.services import deployment_metrics
from easyml_server.services.deployment_metrics import DeploymentMetrics
from tests.builders import TIME

DEPLOYMENT, REVISION, REPLICA = uuid4(), uuid4(), uuid4()
BOUNDS = (0.1, 1.0, inf)


def counters(calls: int, errors: int = 0, slow: int = 0) -> Counters:
    quick = calls - slow
    histogram = Histogram(BOUNDS, (quick, calls, calls))
    return Counters({"OK": calls - errors, "Internal": errors}, histogram, answered=calls, runs=calls, rows=2 * calls)


@dataclass
class Machine:
    """Replicas that tell what a test says, at a time that a test says."""

    now: datetime = TIME
    told: dict[UUID, list[ReplicaCounters]] = field(default_factory=dict)

    async def counters(self) -> Sequence[RevisionCounters]:
        return [
            RevisionCounters(each, DEPLOYMENT, number, replicas)
            for number, (each, replicas) in enumerate(self.told.items(), 1)
        ]

    def tells(self, started: datetime, said: Counters, replica: UUID = REPLICA, revision: UUID = REVISION) -> None:
        others = [each for each in self.told.get(revision, []) if each.replica_id != replica]
        self.told[revision] = [*others, ReplicaCounters(replica, started, said, 1 << 20)]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def metrics(machine: Machine) -> DeploymentMetrics:
    return DeploymentMetrics(None, machine, lambda: machine.now)  # type: ignore[arg-type]  # all that is asked of it


async def after(machine: Machine, metrics: DeploymentMetrics, seconds: float) -> None:
    machine.now += timedelta(seconds=seconds)
    await metrics.collect()


def since(metrics: DeploymentMetrics, seconds: float) -> tuple[int, int]:
    counts = metrics.since(REVISION, TIME + timedelta(seconds=seconds))
    return counts.requests, counts.errors


async def test_calls_since_a_time_are_those_after_the_last_reading_before_it(
    machine: Machine, metrics: DeploymentMetrics
) -> None:
    assert metrics.since(REVISION, TIME) == CallCounts()
    for calls, errors in ((10, 0), (30, 1), (60, 4)):
        machine.tells(TIME, counters(calls, errors, slow=calls // 2))
        await after(machine, metrics, 10)
    assert since(metrics, 0) == (60, 4)
    assert since(metrics, 10) == (50, 4)
    assert since(metrics, 25) == (30, 3)
    assert since(metrics, 30) == (0, 0)
    assert metrics.since(REVISION, TIME).latency_p99 == pytest.approx(0.982)


async def test_a_process_that_was_there_before_has_calls_of_which_nobody_knows_when(
    machine: Machine, metrics: DeploymentMetrics
) -> None:
    machine.tells(TIME - timedelta(hours=1), counters(1000, 500))
    await after(machine, metrics, 1)
    assert since(metrics, -10) == (0, 0)
    machine.tells(TIME - timedelta(hours=1), counters(1010, 501))
    await after(machine, metrics, 1)
    assert since(metrics, -10) == (10, 1)


async def test_a_replica_that_starts_again_takes_nothing_away(machine: Machine, metrics: DeploymentMetrics) -> None:
    machine.tells(TIME, counters(100, 5))
    await after(machine, metrics, 10)
    again = machine.now
    for calls in (3, 200):
        machine.tells(again, counters(calls, 1))
        await after(machine, metrics, 10)
        assert since(metrics, 0) == (100 + calls, 6)
    assert since(metrics, 20) == (197, 0)


async def test_replicas_are_counted_together_and_one_that_is_silent_keeps_what_it_had(
    machine: Machine, metrics: DeploymentMetrics
) -> None:
    machine.tells(TIME, counters(10))
    machine.tells(TIME, counters(20), replica=uuid4())
    await after(machine, metrics, 10)
    assert since(metrics, 0) == (30, 0)
    machine.told[REVISION].pop()
    await after(machine, metrics, 10)
    assert since(metrics, 0) == (30, 0)
    assert since(metrics, 10) == (0, 0)


async def test_an_hour_is_kept_in_few_readings_and_then_forgotten(machine: Machine, metrics: DeploymentMetrics) -> None:
    for reading in range(1, 1500):
        machine.tells(TIME, counters(reading))
        await after(machine, metrics, 3)
    (revision,) = metrics._revisions.values()
    assert 200 < revision.readings < 260
    calls, _ = since(metrics, 1499 * 3 - 3600)
    assert calls == pytest.approx(1200, abs=11)
    del machine.told[REVISION]
    await after(machine, metrics, 3599)
    assert len(metrics.window(DEPLOYMENT, timedelta(hours=1)).revisions) == 1
    await after(machine, metrics, 1)
    assert metrics._revisions == {}


async def test_a_clock_that_is_set_back_makes_no_negative_numbers(machine: Machine, metrics: DeploymentMetrics) -> None:
    machine.tells(TIME, counters(50))
    await after(machine, metrics, 100)
    machine.tells(TIME, counters(80))
    await after(machine, metrics, -60)
    assert since(metrics, 0) == (80, 0)
    assert since(metrics, 50) == (0, 0)


async def test_a_reading_that_comes_after_a_later_one_takes_nothing_away(
    machine: Machine, metrics: DeploymentMetrics
) -> None:
    for calls in (10, 30, 29, 40):
        machine.tells(TIME, counters(calls))
        await after(machine, metrics, 10)
    assert [since(metrics, time)[0] for time in (0, 10, 20, 30)] == [40, 30, 10, 10]


async def test_a_window_says_what_it_covers_and_what_each_revision_did(
    machine: Machine, metrics: DeploymentMetrics
) -> None:
    empty = metrics.window(DEPLOYMENT, timedelta(minutes=5))
    assert (empty.seconds, empty.revisions) == (0, [])
    newer = uuid4()
    for reading in range(1, 11):
        machine.tells(TIME, counters(10 * reading))
        if reading > 6:
            machine.tells(TIME + timedelta(seconds=60), counters(reading - 6, errors=1), revision=newer)
        await after(machine, metrics, 10)
    machine.told[REVISION].clear()
    await after(machine, metrics, 10)

    half = metrics.window(DEPLOYMENT, timedelta(seconds=55))
    assert (half.end_time, half.seconds) == (machine.now, 60)
    assert [(each.counters.requests, each.counters.errors, len(each.resident_bytes)) for each in half.revisions] == [
        (4, 1, 1),
        (50, 0, 0),
    ]
    whole = metrics.window(DEPLOYMENT, timedelta(hours=1))
    assert (whole.start_time, whole.seconds) == (TIME, 110)
    assert [each.counters.requests for each in whole.revisions] == [4, 100]
    last = metrics.window(DEPLOYMENT, timedelta(seconds=1))
    assert (last.seconds, [each.counters.requests for each in last.revisions]) == (10, [0])
    assert metrics.window(uuid4(), timedelta(hours=1)).revisions == []


async def test_readings_go_on_whatever_comes_of_the_news(
    machine: Machine, metrics: DeploymentMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_metrics, "COLLECT_SECONDS", 0)
    machine.tells(TIME, counters(10))
    machine.now += timedelta(seconds=10)
    read = asyncio.Queue[int]()

    def collected() -> None:
        read.put_nowait(metrics.since(REVISION, TIME).requests)
        raise Unavailable("The cluster has not answered yet.", retry_after=1)

    running = asyncio.create_task(metrics.run(collected))
    async with asyncio.timeout(60):
        assert [await read.get() for _ in range(2)] == [10, 10]
    running.cancel()
    await asyncio.wait([running])
