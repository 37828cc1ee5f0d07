"""Leases of deployments, on both engines: one server has it, until its lease ends or it lets go."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from easyml_server.domain.deployments import DeploymentState
from easyml_server.domain.leases import HeldDeployment, Lease
from easyml_server.ports.store import Store
from tests.conformance.test_queue import HOUR, OVER
from tests.conformance.test_store import with_deployment, with_project

ADDRESS = "127.0.0.1:50051"


def a_lease(seconds: float = HOUR) -> Lease:
    return Lease(uuid4(), seconds)


async def at_work(store: Store) -> UUID:
    """A deployment that nobody holds yet."""
    deployment, _ = await with_deployment(store, await with_project(store))
    return deployment.id


async def take(store: Store, deployment_id: UUID, lease: Lease, *, lapsed: bool = False) -> int | None:
    async with store.begin() as work:
        taken = await work.deployment_leases.take(deployment_id, lease, ADDRESS, lapsed=lapsed)
        await work.commit()
    return taken


async def holds(store: Store, deployment_id: UUID, lease: Lease, fencing: int) -> bool:
    async with store.begin() as work:
        return await work.deployment_leases.holds(lease, HeldDeployment(deployment_id, fencing))


async def waiting(store: Store, *, lapsed: bool) -> list[UUID]:
    async with store.read() as work:
        return list(await work.deployment_leases.waiting(lapsed=lapsed))


async def set_state(store: Store, deployment_id: UUID, state: DeploymentState) -> None:
    async with store.begin() as work:
        deployment = await work.deployments.load(deployment_id)
        await work.deployments.save(replace(deployment, state=state), "")
        await work.commit()


async def test_what_nobody_holds_is_taken_by_one(store: Store) -> None:
    deployment_id, first, second = await at_work(store), a_lease(), a_lease()
    assert await waiting(store, lapsed=False) == [deployment_id]
    assert await take(store, deployment_id, first) == 1
    assert await waiting(store, lapsed=True) == []
    for lapsed in (False, True):
        assert await take(store, deployment_id, second, lapsed=lapsed) is None
    assert await holds(store, deployment_id, first, 1)
    assert not await holds(store, deployment_id, second, 1)
    async with store.read() as work:
        assert await work.deployment_leases.address(deployment_id) == ADDRESS
        assert await work.deployment_leases.address(uuid4()) == ""


async def test_a_lease_that_ended_is_taken_by_whoever_may_and_the_number_grows(store: Store) -> None:
    deployment_id, first, second = await at_work(store), a_lease(OVER), a_lease()
    await take(store, deployment_id, first)
    assert await waiting(store, lapsed=False) == []
    assert await waiting(store, lapsed=True) == [deployment_id]
    assert await take(store, deployment_id, second) is None
    assert await holds(store, deployment_id, first, 1), "late, but nobody took it"
    assert await take(store, deployment_id, second, lapsed=True) == 2
    assert not await holds(store, deployment_id, first, 1)
    assert await holds(store, deployment_id, second, 2)
    async with store.begin() as work:
        assert await work.deployment_leases.renew(first, [deployment_id]) == []


async def test_a_lease_is_renewed_however_late_as_long_as_nobody_took_it(store: Store) -> None:
    deployment_id, lease = await at_work(store), a_lease(OVER)
    await take(store, deployment_id, lease)
    async with store.begin() as work:
        renewed = await work.deployment_leases.renew(replace(lease, seconds=HOUR), [deployment_id, uuid4()])
        await work.commit()
    assert renewed == [HeldDeployment(deployment_id, 1)]
    assert await waiting(store, lapsed=True) == []


async def test_only_what_is_stopped_is_let_go(store: Store) -> None:
    deployment_id, lease = await at_work(store), a_lease()
    await take(store, deployment_id, lease)

    async def let_go() -> bool:
        async with store.begin() as work:
            released = await work.deployment_leases.release(lease, deployment_id)
            await work.commit()
        return released

    assert not await let_go()
    assert await holds(store, deployment_id, lease, 1)
    await set_state(store, deployment_id, DeploymentState.STOPPED)
    assert await let_go()
    assert not await holds(store, deployment_id, lease, 1)
    assert await take(store, deployment_id, lease) is None, "it is stopped"
    await set_state(store, deployment_id, DeploymentState.PROGRESSING)
    assert await take(store, deployment_id, lease) == 2


async def test_a_server_that_stops_holds_nothing_any_more(store: Store) -> None:
    deployment_id, lease, other = await at_work(store), a_lease(), a_lease()
    another_id = await at_work(store)
    await take(store, deployment_id, lease)
    await take(store, another_id, other)
    async with store.begin() as work:
        await work.deployment_leases.release_all(lease)
        await work.commit()
    assert await waiting(store, lapsed=True) == [deployment_id]


async def test_what_was_deleted_is_nobody_s(store: Store) -> None:
    deployment_id, lease = await at_work(store), a_lease()
    await take(store, deployment_id, lease)
    async with store.begin() as work:
        await work.deployments.delete(deployment_id, "")
        await work.commit()
    assert not await holds(store, deployment_id, lease, 1)
    assert await take(store, deployment_id, a_lease(), lapsed=True) is None
