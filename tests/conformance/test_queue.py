"""Who runs a training, and who takes it over: leases, by the clock of the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.errors import Stale
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.leases import Abandoned, Held, Lease
from easyml_server.domain.sessions import TrainingSession
from easyml_server.ports.store import Store
from tests.builders import TIME
from tests.conformance.test_store import at_once, events_of, with_experiments, with_project

HOUR = 3600.0
OVER = -1.0
"""A lease that ended a second ago."""


async def claim(store: Store, lease: Lease, per_project: int = 100) -> Experiment | None:
    async with store.begin() as work:
        found = await work.queue.claim(TIME, lease, per_project)
        await work.commit()
    return found


async def claimed(store: Store, seconds: float = HOUR) -> tuple[Experiment, Lease]:
    """A training that somebody runs."""
    await with_experiments(store, await with_project(store))
    lease = Lease(uuid4(), seconds)
    found = await claim(store, lease)
    assert found is not None
    return found, lease


async def take_over(store: Store, which: Abandoned, *running: UUID) -> Experiment | None:
    async with store.begin() as work:
        found = await work.queue.take_over(which, running)
        await work.commit()
    return found


async def renew(store: Store, lease: Lease, *ids: UUID) -> list[Held]:
    async with store.begin() as work:
        held = await work.queue.renew(lease, ids)
        await work.commit()
    return list(held)


async def cancel(store: Store, experiment: Experiment) -> None:
    async with store.begin() as work:
        await work.experiments.save(replace(experiment, state=TrainingState.CANCELLING))
        await work.commit()


async def test_a_lease_that_runs_is_left_alone(store: Store) -> None:
    experiment, _ = await claimed(store)
    for which in (Abandoned.UNOWNED, Abandoned.LAPSED):
        assert await take_over(store, which) is None
    async with store.read() as work:
        assert (await work.experiments.load(experiment.id)).fencing == experiment.fencing


async def test_a_lease_that_has_ended_is_taken_over_once_with_a_new_number(store: Store) -> None:
    experiment, lease = await claimed(store, OVER)
    assert await take_over(store, Abandoned.UNOWNED) is None

    async def queue_again() -> int | None:
        async with store.begin() as work:
            found = await work.queue.take_over(Abandoned.LAPSED, ())
            if found is None:
                return None
            await work.experiments.save(replace(found, state=TrainingState.QUEUED))
            await work.commit()
        return found.fencing

    found, lost = await at_once(*(queue_again() for _ in range(4)))
    assert lost == []
    assert [each for each in found if each is not None] == [experiment.fencing + 1]
    assert await renew(store, lease, experiment.id) == []


async def test_a_lease_that_is_renewed_does_not_end(store: Store) -> None:
    experiment, lease = await claimed(store, OVER)
    # Late, but nobody had taken it.
    assert await renew(store, replace(lease, seconds=HOUR), experiment.id) == [
        Held(experiment.id, experiment.fencing, cancelling=False)
    ]
    assert await take_over(store, Abandoned.LAPSED) is None


async def test_a_lease_is_renewed_by_its_owner_only(store: Store) -> None:
    experiment, _ = await claimed(store)
    assert await renew(store, Lease(uuid4()), experiment.id) == []


async def test_a_renewal_tells_what_is_to_be_cancelled(store: Store) -> None:
    experiment, lease = await claimed(store)
    await cancel(store, experiment)
    assert await renew(store, lease, experiment.id) == [Held(experiment.id, experiment.fencing, cancelling=True)]


async def test_what_was_cancelled_in_the_queue_is_taken_at_once(store: Store) -> None:
    (queued,) = await with_experiments(store, await with_project(store))
    await cancel(store, queued)
    found = await take_over(store, Abandoned.UNOWNED)
    assert found is not None
    assert (found.id, found.state) == (queued.id, TrainingState.CANCELLING)


async def test_the_only_server_takes_everything_but_what_it_runs(store: Store) -> None:
    first, _ = await claimed(store)
    second, _ = await claimed(store)
    found = await take_over(store, Abandoned.ALL, first.id)
    assert found is not None
    assert found.id == second.id
    async with store.read() as work:
        assert await work.queue.has_abandoned(Abandoned.ALL, [first.id, second.id]) is False


async def test_who_lost_a_lease_writes_nothing_also_before_it_is_claimed_again(store: Store) -> None:
    experiment, _ = await claimed(store, OVER)
    assert await take_over(store, Abandoned.LAPSED) is not None
    session = TrainingSession(experiment.id, TrainingState.RUNNING)
    for write in (
        lambda work: work.experiments.save(replace(experiment, state=TrainingState.FAILED)),
        lambda work: work.experiments.add_events(events_of(experiment, 1, 1), session, experiment.fencing),
    ):
        with pytest.raises(Stale):
            async with store.begin() as work:
                await write(work)
                await work.commit()


async def test_what_is_put_back_has_no_owner_and_counts_its_attempts(store: Store) -> None:
    lease = Lease(uuid4(), HOUR)
    await with_experiments(store, await with_project(store))
    for attempt in (1, 2):
        found = await claim(store, lease)
        assert found is not None
        assert (found.attempts, found.fencing) == (attempt, attempt)
        async with store.begin() as work:
            await work.experiments.save(replace(found, state=TrainingState.QUEUED))
            await work.commit()
        assert await renew(store, lease, found.id) == []
        assert await take_over(store, Abandoned.ALL) is None


async def test_a_project_runs_as_many_as_it_may_whoever_claims(store: Store) -> None:
    await with_experiments(store, await with_project(store), 6)
    found, lost = await at_once(*(claim(store, Lease(uuid4()), per_project=2) for _ in range(6)))
    assert lost == []
    assert len([each for each in found if each is not None]) == 2


async def test_a_group_of_events_that_comes_again_is_stored_once(store: Store) -> None:
    experiment, _ = await claimed(store)
    session = TrainingSession(experiment.id, TrainingState.RUNNING)
    # The answer to the first commit did not come; more has happened meanwhile.
    for count in (2, 3):
        async with store.begin() as work:
            await work.experiments.add_events(events_of(experiment, 1, count), session, experiment.fencing)
            await work.commit()
    async with store.read() as work:
        assert await work.experiments.list_events(experiment.id, 0, 10) == events_of(experiment, 1, 3)
        assert (await work.experiments.load(experiment.id)).last_sequence == 3


# What else servers count and do together.


async def test_an_intent_is_claimed_once_and_again_when_its_claim_has_ended(store: Store) -> None:
    minute = timedelta(minutes=1)
    async with store.begin() as work:
        await work.outbox.add("record_run", uuid4(), TIME)
        await work.outbox.add("other", uuid4(), TIME)
        await work.commit()

    async def take(time: timedelta) -> UUID | None:
        async with store.begin() as work:
            intent = await work.outbox.claim(("record_run",), TIME + time, TIME + time + minute)
            await work.commit()
        return None if intent is None else intent.subject_id

    found, lost = await at_once(*(take(timedelta()) for _ in range(4)))
    assert lost == []
    assert len([each for each in found if each is not None]) == 1
    assert await take(minute / 2) is None
    async with store.begin() as work:
        (intent,) = await work.outbox.due(("record_run",), TIME + minute, 10)
        await work.outbox.prolong(intent, TIME + 2 * minute)
        await work.commit()
    assert await take(minute) is None
    assert await take(2 * minute) == intent.subject_id
    # The only server starts: what was claimed is done again.
    async with store.begin() as work:
        await work.outbox.release(("record_run",), TIME)
        await work.commit()
    assert await take(timedelta()) == intent.subject_id


async def test_attempts_are_counted_together_and_for_a_while(store: Store) -> None:
    minute = timedelta(minutes=1)

    async def attempt(time: timedelta) -> bool:
        async with store.begin() as work:
            oldest = await work.attempts.count("account a", 3, minute, TIME + time)
            await work.commit()
        return oldest is None

    found, lost = await at_once(*(attempt(timedelta()) for _ in range(8)))
    assert lost == []
    assert sorted(found) == [False] * 5 + [True] * 3
    assert not await attempt(minute / 2)
    assert await attempt(minute)
    # A clock that was set back keeps nobody out.
    assert await attempt(-60 * minute)
    async with store.begin() as work:
        assert await work.attempts.count("account b", 1, minute, TIME) is None
        await work.attempts.forget(TIME + 2 * minute)
        assert await work.attempts.count("account a", 1, minute, TIME) is None


async def test_one_claim_waits_for_another(store: Store) -> None:
    await with_experiments(store, await with_project(store), 2)
    async with store.begin() as work:
        first = await work.queue.claim(TIME, Lease(uuid4()), 1)
        second = asyncio.create_task(claim(store, Lease(uuid4()), per_project=1))
        await asyncio.sleep(0)
        await work.commit()
    assert first is not None
    # It sees what the first took.
    assert await second is None
