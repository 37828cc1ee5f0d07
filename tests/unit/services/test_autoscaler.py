"""Calls in flight, from what replicas tell look after look, and whom the reconciler is told of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.counters import ReplicaLoad
from easyml_server.domain.deployments import Deployment, DeploymentConfig
from easyml_server.domain.scaling import Autoscaling
from easyml_server.services.autoscaler import Autoscaler
from tests.unit.services.builders import a_deployment

ONE, OTHER = uuid4(), uuid4()
SCALING = Autoscaling(min_replicas=0, max_replicas=9, target_requests_in_flight=1, cooldown_seconds=10)
STARTED = 1000.0


@dataclass
class Machine:
    """Replicas that tell what a test says, at a time that a test says."""

    now: float = STARTED
    told: dict[UUID, float | None] = field(default_factory=dict)
    asked: list[UUID] = field(default_factory=list)

    async def loads(self, deployment_id: UUID) -> Sequence[ReplicaLoad]:
        self.asked.append(deployment_id)
        return [ReplicaLoad(replica, seconds) for replica, seconds in self.told.items()]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def autoscaler(machine: Machine) -> Autoscaler:
    return Autoscaler(machine, lambda: machine.now)  # type: ignore[arg-type]  # all that is asked of it


def scaled(replicas: int = 1, scaling: Autoscaling | None = SCALING) -> Deployment:
    return a_deployment(uuid4(), uuid4(), config=DeploymentConfig(replicas=replicas, autoscaling=scaling))


async def second(
    machine: Machine, autoscaler: Autoscaler, grown: dict[UUID, float | None], seconds: float = 1
) -> Collection[UUID]:
    """After which replicas have so many seconds of calls more, or do not say."""
    machine.now += seconds
    for replica, by in grown.items():
        machine.told[replica] = None if by is None else (machine.told.get(replica) or 0) + by
    return await autoscaler.look()


def recommended(autoscaler: Autoscaler, deployment: Deployment) -> int:
    found = autoscaler.recommend(deployment)
    assert found is not None
    return found.replicas


async def test_what_all_replicas_had_in_flight_counts_together(machine: Machine, autoscaler: Autoscaler) -> None:
    deployment = scaled()
    assert recommended(autoscaler, deployment) == 1
    machine.told = {ONE: 500.0, OTHER: 700.0}
    assert await second(machine, autoscaler, {}) == []
    for _ in range(2):
        assert await second(machine, autoscaler, {ONE: 2.0, OTHER: 1.5}) == [deployment.id]
    await second(machine, autoscaler, {ONE: 2.0, OTHER: 1.5})
    # 3.5 in flight, at one replica each.
    assert recommended(autoscaler, deployment) == 4
    assert await second(machine, autoscaler, {ONE: 2.0, OTHER: 1.5}) == [deployment.id]
    assert recommended(autoscaler, replace(deployment, config=replace(deployment.config, replicas=4))) == 4
    assert await second(machine, autoscaler, {ONE: 2.0, OTHER: 1.5}) == []


async def test_one_that_does_not_say_is_as_busy_as_before(machine: Machine, autoscaler: Autoscaler) -> None:
    deployment = scaled()
    recommended(autoscaler, deployment)
    for _ in range(4):
        await second(machine, autoscaler, {ONE: 3.0})
    for _ in range(3):
        await second(machine, autoscaler, {ONE: None})
    assert recommended(autoscaler, deployment) == 3
    machine.told[ONE] = 3.0 * 8
    await second(machine, autoscaler, {})
    assert recommended(autoscaler, deployment) == 3


async def test_a_process_that_begins_again_has_no_calls_from_before(machine: Machine, autoscaler: Autoscaler) -> None:
    deployment = scaled()
    recommended(autoscaler, deployment)
    machine.told[ONE] = 10_000.0
    await second(machine, autoscaler, {})
    machine.told[ONE] = 1.0
    for _ in range(3):
        await second(machine, autoscaler, {})
    assert recommended(autoscaler, deployment) == 1


async def test_a_call_however_short_keeps_the_last_replica(machine: Machine, autoscaler: Autoscaler) -> None:
    deployment = scaled()
    recommended(autoscaler, deployment)
    for number in range(20):
        await second(machine, autoscaler, {ONE: 0.001 if number == 15 else 0.0})
    assert recommended(autoscaler, deployment) == 1
    for _ in range(9):
        await second(machine, autoscaler, {ONE: 0.0})
    assert recommended(autoscaler, deployment) == 0


async def test_a_call_that_waits_needs_a_replica_before_the_next_look(machine: Machine, autoscaler: Autoscaler) -> None:
    idle = scaled(0)
    recommended(autoscaler, idle)
    machine.now += 60
    assert recommended(autoscaler, idle) == 0
    with autoscaler.waiting(idle.id):
        assert recommended(autoscaler, idle) == 1
        for _ in range(4):
            await second(machine, autoscaler, {})
        assert recommended(autoscaler, scaled(1)) == 1
    machine.now += 9
    assert recommended(autoscaler, idle) == 1
    machine.now += 9
    assert recommended(autoscaler, idle) == 0


async def test_a_call_that_waits_for_one_nobody_has_looked_at_yet_counts_too(autoscaler: Autoscaler) -> None:
    idle = scaled(0)
    with autoscaler.waiting(idle.id), autoscaler.waiting(idle.id):
        assert recommended(autoscaler, idle) == 1


async def test_many_that_wait_need_more_than_one(machine: Machine, autoscaler: Autoscaler) -> None:
    idle = scaled(0)
    recommended(autoscaler, idle)
    with autoscaler.waiting(idle.id), autoscaler.waiting(idle.id), autoscaler.waiting(idle.id):
        for _ in range(3):
            await second(machine, autoscaler, {})
    assert recommended(autoscaler, idle) == 3


async def test_other_bounds_begin_with_a_cooldown_of_their_own(machine: Machine, autoscaler: Autoscaler) -> None:
    deployment = scaled(5)
    recommended(autoscaler, deployment)
    machine.now += 60
    assert recommended(autoscaler, deployment) == 0
    changed = replace(deployment.config, autoscaling=replace(SCALING, max_replicas=7))
    assert recommended(autoscaler, replace(deployment, config=changed)) == 5


async def test_only_those_are_looked_at_whose_replicas_follow_the_calls(
    machine: Machine, autoscaler: Autoscaler
) -> None:
    assert autoscaler.recommend(scaled(scaling=None)) is None
    followed = scaled()
    autoscaler.recommend(followed)
    await second(machine, autoscaler, {})
    assert machine.asked == [followed.id]
    assert autoscaler.recommend(replace(followed, stopped=True)) is None
    await second(machine, autoscaler, {})
    assert machine.asked == [followed.id]


async def test_it_is_told_when_the_bound_begins_and_ends_to_matter(machine: Machine, autoscaler: Autoscaler) -> None:
    deployment = scaled(scaling=replace(SCALING, min_replicas=1, max_replicas=1))
    assert recommended(autoscaler, deployment) == 1
    for _ in range(3):
        changed = await second(machine, autoscaler, {ONE: 9.0})
    assert changed == [deployment.id]
    found = autoscaler.recommend(deployment)
    assert found is not None
    assert found.limited
    assert await second(machine, autoscaler, {ONE: 9.0}) == []
