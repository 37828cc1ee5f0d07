"""When a lease counts as lapsed: not at once after the database was away, when nobody could renew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.errors import Unavailable
from easyml_server.domain.events import Finished
from easyml_server.domain.experiments import FailureReason, TrainingState
from easyml_server.domain.leases import Abandoned, Lease
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.events import EventHub
from easyml_server.services.recorder import RECORD_RUN
from easyml_server.services.takeover import MAX_ATTEMPTS, Takeover
from tests.builders import TIME
from tests.conformance.test_queue import OVER, claim, claimed

LEASE_SECONDS = 10.0


class Watch:
    """A watch that somebody sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def a_takeover(store: SqlStore, watch: Watch) -> Takeover:
    return Takeover(store, EventHub(), lambda: TIME, Lease(uuid4(), LEASE_SECONDS), lambda: None, watch)


async def recorded(store: SqlStore) -> list[UUID]:
    """The trainings that are to be recorded in MLflow."""
    async with store.read() as work:
        return [intent.subject_id for intent in await work.outbox.due([RECORD_RUN], TIME, 10)]


async def test_a_server_must_have_been_in_touch_for_as_long_as_a_lease(store: SqlStore) -> None:
    await claimed(store, OVER)
    watch = Watch()
    takeover = a_takeover(store, watch)
    assert not await takeover.take_lapsed(())
    watch.seconds += LEASE_SECONDS - 1
    assert not await takeover.take_lapsed(())
    takeover.lost_touch()
    watch.seconds += LEASE_SECONDS
    assert not await takeover.take_lapsed(())
    watch.seconds += LEASE_SECONDS
    assert await takeover.take_lapsed(())
    assert not await takeover.take_lapsed(())


class Away:
    """A database that does not answer."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        raise Unavailable("It is away.")
        yield


async def test_a_database_that_does_not_answer_is_not_in_touch(store: SqlStore) -> None:
    await claimed(store, OVER)
    watch = Watch()
    takeover = a_takeover(store, watch)
    takeover._store = Away()  # type: ignore[assignment]
    for _ in range(3):
        with pytest.raises(Unavailable):
            await takeover.take_lapsed(())
        watch.seconds += LEASE_SECONDS
    takeover._store = store
    # Whoever lives has had no time yet to renew.
    assert not await takeover.take_lapsed(())


async def test_it_is_tried_so_often_and_then_has_failed(store: SqlStore) -> None:
    experiment, _ = await claimed(store, OVER)
    takeover = a_takeover(store, Watch())
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert await takeover.take(Abandoned.LAPSED, ())
        async with store.read() as work:
            found = await work.experiments.load(experiment.id)
            last = (await work.experiments.list_events(experiment.id, found.last_sequence - 1, 1))[0]
        assert found.attempts == attempt
        if attempt < MAX_ATTEMPTS:
            assert found.state is TrainingState.QUEUED
            assert await recorded(store) == []
            assert await claim(store, Lease(uuid4(), OVER)) is not None
    assert found.state is TrainingState.FAILED
    assert isinstance(last.body, Finished)
    assert last.body.failure is not None
    assert last.body.failure.reason is FailureReason.SERVER_STOPPED
    assert await recorded(store) == [experiment.id]


async def test_what_was_being_cancelled_is_cancelled(store: SqlStore) -> None:
    experiment, _ = await claimed(store, OVER)
    async with store.begin() as work:
        await work.experiments.save(replace(experiment, state=TrainingState.CANCELLING))
        await work.commit()
    assert await a_takeover(store, Watch()).take(Abandoned.LAPSED, ())
    async with store.read() as work:
        assert (await work.experiments.load(experiment.id)).state is TrainingState.CANCELLED
    assert await recorded(store) == [experiment.id]
