"""Events of 200 trainings into PostgreSQL. Budget: 10,000 a second without the queue growing.

Stored the way the server does it: a log for each training, groups, sessions to MongoDB by the outbox, signals to other
servers, all in one process. Events come at a steady rate, whatever becomes of them. The rate is raised while what is
stored keeps pace, or lowered until it does; the highest that held is the figure. It is looked at after some seconds,
when groups have their size.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from uuid import uuid4

from benchmarks.full.places import places
from benchmarks.report import Figure, Measured, Say
from easyml_server.domain.events import IterationCompleted
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.limits import PoolLimits
from easyml_server.domain.sessions import TrainingSession
from easyml_server.repositories.documents.opening import open_mongodb, prepare_mongodb
from easyml_server.repositories.sql.opening import open_server
from easyml_server.repositories.sql.signals import PostgresSignals
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.documents import DocumentDispatcher
from easyml_server.services.events import EventHub, TrainingLog
from tests.builders import a_config, a_project, a_user
from tests.unit.services.builders import a_dataset, a_spec, an_experiment

TRAININGS = 200
WANTED = 10_000
HIGHER, LOWER = (15_000, 20_000), (6_000, 3_000, 1_000)
WARM_UP_SECONDS, SECONDS, TICK_SECONDS = 12.0, 6.0, 0.01
KEEPS_PACE = 0.97
"""Of what comes, so much is stored meanwhile; the rest is where a group just begins or ends."""


@dataclass(frozen=True)
class Held:
    """What became of a rate."""

    rate: float
    stored: float
    queued: int
    largest: int

    @property
    def kept_pace(self) -> bool:
        return self.stored >= KEEPS_PACE * self.rate


def measure(say: Say) -> Measured:
    with places() as found:
        held = asyncio.run(find_limit(found.database(), found.documents(), say))
    first, best = held[0], max((each for each in held if each.kept_pace), key=lambda each: each.rate, default=held[-1])
    reached = best.rate if best.kept_pace else best.stored
    return Measured(
        [
            Figure(
                f"events a second of {TRAININGS} trainings that are stored as they come", reached, "", at_least=WANTED
            )
        ],
        {
            f"stored_of_{WANTED}_a_second": first.stored,
            "seconds_until_stored": best.queued / best.rate,
            "queued_then": best.queued,
            "queued_at_most": best.largest,
        },
    )


async def find_limit(url: str, mongodb_url: str, say: Say) -> Sequence[Held]:
    """Rates that were tried."""
    held: list[Held] = []
    async with storing(url, mongodb_url) as (store, hub):
        for rate in (WANTED, *HIGHER):
            held.append(await at_rate(store, hub, rate, say))
            if not held[-1].kept_pace:
                break
        for rate in LOWER if not held[0].kept_pace else ():
            held.append(await at_rate(store, hub, rate, say))
            if held[-1].kept_pace:
                break
    return held


@asynccontextmanager
async def storing(url: str, mongodb_url: str) -> AsyncIterator[tuple[SqlStore, EventHub]]:
    """What of a server stores events."""
    async with AsyncExitStack() as stack:
        store = await open_server(url, PoolLimits(), migrate=True)
        stack.push_async_callback(store.close)
        identity = await store.identity()
        await prepare_mongodb(mongodb_url, identity)
        documents = await open_mongodb(mongodb_url, identity, 5.0, known=False)
        stack.push_async_callback(documents.close)
        dispatcher = DocumentDispatcher(store, documents)
        store.keep_documents_on(documents, dispatcher.wake)
        signals = PostgresSignals(url)
        background = [
            asyncio.create_task(dispatcher.run()),
            asyncio.create_task(signals.run(lambda *_: None, lambda: None)),
        ]
        try:
            yield store, EventHub(signals)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


async def at_rate(store: SqlStore, hub: EventHub, rate: int, say: Say) -> Held:
    """New trainings whose events come so fast."""
    experiments = await running(store)
    async with AsyncExitStack() as stack:
        logs = [
            TrainingLog(store, stack.enter_context(hub.use(each.id)), each, TrainingSession.of(each), now, now())
            for each in experiments
        ]
        writers = [asyncio.create_task(log.run()) for log in logs]
        try:
            held = await offered(logs, rate)
        finally:
            for log in logs:
                log.stop()
            await asyncio.gather(*writers)
    say(f"{rate:,} a second: {held.stored:,.0f} stored, {held.queued:,} queued, {held.largest:,} at most")
    return held


async def offered(logs: Sequence[TrainingLog], rate: int) -> Held:
    """One event after the other to one training after the other; counted after a while."""
    started = time.perf_counter()
    come, counted = 0, (0, 0, 0.0)
    largest = queued = 0
    turns = cycle(logs)
    while (passed := time.perf_counter() - started) < WARM_UP_SECONDS + SECONDS:
        for _ in range(int(passed * rate) - come):
            next(turns).add(IterationCompleted(come // len(logs) + 1, 1_000_000, {"train_loss": 1 / (come + 1)}))
            come += 1
        queued = sum(len(log.pending) for log in logs)
        if passed < WARM_UP_SECONDS:
            counted = (come, queued, passed)
        else:
            largest = max(largest, queued)
        await asyncio.sleep(TICK_SECONDS)
    seconds = passed - counted[2]
    stored = (come - queued) - (counted[0] - counted[1])
    return Held((come - counted[0]) / seconds, stored / seconds, queued, largest)


async def running(store: SqlStore) -> Sequence[Experiment]:
    """Trainings that run, as far as the database knows."""
    user = a_user(email=f"{uuid4()}@example.org")
    project = a_project(user.id)
    dataset = a_dataset(project.id, user.id)
    spec = a_spec(dataset_id=dataset.id, dataset_version_id=dataset.current.id)
    experiments = [an_experiment(project.id, user.id, spec=spec, state=TrainingState.RUNNING) for _ in range(TRAININGS)]
    async with store.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        await work.datasets.add(dataset)
        for each in experiments:
            await work.experiments.add(each)
        await work.commit()
    return experiments


def now() -> datetime:
    return datetime.now(UTC)
