"""Who looks after a deployment, and what becomes of it when a server was away for longer than its lease."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.errors import Stale, Unavailable
from easyml_server.domain.leases import Lease
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.tenure import Leased
from tests.conformance.test_deployment_leases import at_work
from tests.conformance.test_queue import HOUR, OVER
from tests.unit.services.test_takeover import LEASE_SECONDS, Watch


def a_server(store: Any, seconds: float = HOUR, watch: Watch | None = None) -> Leased:
    return Leased(store, Lease(uuid4(), seconds), watch or Watch())


async def is_refused(store: SqlStore, server: Leased, deployment_id: UUID) -> bool:
    async with store.begin() as work:
        try:
            await server.check(work, deployment_id)
        except Stale:
            return True
    return False


async def taken_over(store: SqlStore, deployment_id: UUID) -> Leased:
    """By another server, from one whose lease has ended."""
    watch = Watch()
    other = a_server(store, LEASE_SECONDS, watch)
    assert await other.take_up() == []
    watch.seconds += LEASE_SECONDS
    assert await other.take_up() == [deployment_id]
    return other


async def test_one_of_two_servers_takes_it(store: SqlStore) -> None:
    deployment_id, first, second = await at_work(store), a_server(store), a_server(store)
    assert await first.take(deployment_id)
    assert await first.take(deployment_id)
    assert not await second.take(deployment_id)
    assert (first.holds(deployment_id), second.holds(deployment_id)) == (True, False)
    assert not await is_refused(store, first, deployment_id)
    assert await is_refused(store, second, deployment_id)


async def test_what_nobody_holds_is_taken_up_at_once(store: SqlStore) -> None:
    deployment_id, server = await at_work(store), a_server(store)
    assert await server.take_up() == [deployment_id]
    assert await server.take_up() == []


async def test_a_server_that_was_paused_changes_nothing_and_learns_that_it_lost(store: SqlStore) -> None:
    deployment_id, paused = await at_work(store), a_server(store, OVER)
    await paused.take(deployment_id)
    other = await taken_over(store, deployment_id)
    assert paused.holds(deployment_id), "it has not heard yet"
    assert await is_refused(store, paused, deployment_id)
    assert not paused.holds(deployment_id)
    assert not await is_refused(store, other, deployment_id)


async def test_a_renewal_tells_what_was_lost_and_keeps_the_rest(store: SqlStore) -> None:
    lost, paused = await at_work(store), a_server(store, OVER)
    await paused.take(lost)
    await taken_over(store, lost)
    kept = await at_work(store)
    await paused.take(kept)
    assert await paused.renew() == {lost}
    assert (paused.holds(lost), paused.holds(kept)) == (False, True)
    assert await paused.renew() == set()


async def test_what_was_let_go_is_another_s_to_take(store: SqlStore) -> None:
    deployment_id, first, second = await at_work(store), a_server(store), a_server(store)
    await first.take(deployment_id)
    await first.let_go(deployment_id)
    assert first.holds(deployment_id), "it is at work"
    await first.let_all_go()
    assert await second.take(deployment_id)
    assert not await first.take(deployment_id)


async def test_an_outage_begins_the_time_in_touch_anew(store: SqlStore) -> None:
    deployment_id = await at_work(store)
    await a_server(store, OVER).take(deployment_id)
    watch, away = Watch(), Away(store)
    server = a_server(away, LEASE_SECONDS, watch)
    assert await server.take_up() == []
    away.there = False
    watch.seconds += LEASE_SECONDS
    with pytest.raises(Unavailable):
        await server.take_up()
    away.there = True
    assert await server.take_up() == [], "whoever lives could not renew meanwhile"
    watch.seconds += LEASE_SECONDS
    assert await server.take_up() == [deployment_id]


class Away:
    """A store that can be out of reach."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.there = True

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        """As the store does."""
        if not self.there:
            raise Unavailable("away", retry_after=1.0)
        async with self.store.read() as work:
            yield work

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        """As the store does."""
        async with self.store.begin() as work:
            yield work
