"""Random stories of servers that claim, renew, lose and take over trainings, held against a dictionary."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, multiple, rule

from easyml_server.domain.errors import Stale
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.leases import Abandoned, Held, Lease
from tests.builders import TIME
from tests.conformance.machines import StoryOfOne, tell
from tests.conformance.stores import EmptyStore
from tests.conformance.test_queue import HOUR, OVER
from tests.conformance.test_store import with_experiments, with_project

PER_PROJECT = 2
OWNERS = [UUID(int=number) for number in range(3)]
owners = st.sampled_from(OWNERS)
lengths = st.sampled_from([HOUR, OVER])


@dataclass
class Known:
    """What a row must say."""

    state: TrainingState
    fencing: int = 0
    owner: UUID | None = None
    lapsed: bool = False


class Queue(StoryOfOne):
    """Trainings of one project, and three servers; leases last an hour, or have ended already."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[UUID, Known] = {}

    @initialize(count=st.integers(1, 4))
    def some_trainings(self, count: int) -> None:
        async def add() -> list[Experiment]:
            return await with_experiments(self.store, await with_project(self.store), count)

        for experiment in self.runner.run(add()):
            self.model[experiment.id] = Known(TrainingState.QUEUED)

    @rule(target=runs, owner=owners, seconds=lengths)
    def claim(self, owner: UUID, seconds: float) -> Any:
        async def take() -> Experiment | None:
            async with self.store.begin() as work:
                found = await work.queue.claim(TIME, Lease(owner, seconds), PER_PROJECT)
                await work.commit()
            return found

        found = self.runner.run(take())
        queued = [identity for identity, known in self.model.items() if known.state is TrainingState.QUEUED]
        taken = [known for known in self.model.values() if known.owner is not None]
        if not queued or len(taken) >= PER_PROJECT:
            assert found is None
            return multiple()
        # In the order in which they were asked for, which is the order of the dictionary.
        assert found is not None
        assert found.id == queued[0]
        known = self.model[found.id]
        self.model[found.id] = Known(TrainingState.RUNNING, known.fencing + 1, owner, lapsed=seconds < 0)
        return found

    @rule(owner=owners, seconds=lengths)
    def renew(self, owner: UUID, seconds: float) -> None:
        async def ask() -> list[Held]:
            async with self.store.begin() as work:
                held = await work.queue.renew(Lease(owner, seconds), self.model)
                await work.commit()
            return list(held)

        own = {identity: known for identity, known in self.model.items() if known.owner == owner}
        expected = {
            Held(identity, known.fencing, known.state is TrainingState.CANCELLING) for identity, known in own.items()
        }
        assert set(self.runner.run(ask())) == expected
        for known in own.values():
            known.lapsed = seconds < 0

    @rule(which=st.sampled_from(Abandoned), spared=st.booleans())
    def take_over(self, which: Abandoned, spared: bool) -> None:
        """And at once say what becomes of it, as the server does."""
        spare = next(iter(self.model)) if spared else None

        async def take() -> Experiment | None:
            async with self.store.begin() as work:
                found = await work.queue.take_over(which, [] if spare is None else [spare])
                if found is not None:
                    cancelled = found.state is TrainingState.CANCELLING
                    state = TrainingState.CANCELLED if cancelled else TrainingState.QUEUED
                    await work.experiments.save(replace(found, state=state))
                await work.commit()
            return found

        found = self.runner.run(take())
        possible = {identity for identity, known in self.model.items() if left(known, which) and identity != spare}
        assert (found is None) == (not possible)
        if found is not None:
            assert found.id in possible
            known = self.model[found.id]
            cancelled = known.state is TrainingState.CANCELLING
            after = TrainingState.CANCELLED if cancelled else TrainingState.QUEUED
            self.model[found.id] = Known(after, known.fencing + 1)

    @rule(run=runs, state=st.sampled_from([TrainingState.SUCCEEDED, TrainingState.FAILED, TrainingState.QUEUED]))
    def write_down(self, run: Experiment, state: TrainingState) -> None:
        """Whoever claimed it, however long ago, comes with its outcome."""

        async def save() -> None:
            async with self.store.begin() as work:
                await work.experiments.save(replace(run, state=state))
                await work.commit()

        known = self.model[run.id]
        if known.fencing != run.fencing:
            with pytest.raises(Stale):
                self.runner.run(save())
        else:
            self.runner.run(save())
            self.model[run.id] = Known(state, known.fencing)

    @rule(number=st.integers(0, 3))
    def cancel(self, number: int) -> None:
        identity = list(self.model)[number % len(self.model)]
        known = self.model[identity]
        if known.state.terminal:
            return

        async def save() -> None:
            async with self.store.begin() as work:
                found = await work.experiments.load(identity)
                await work.experiments.save(replace(found, state=TrainingState.CANCELLING))
                await work.commit()

        self.runner.run(save())
        known.state = TrainingState.CANCELLING

    @invariant()
    def every_row_is_as_it_must_be(self) -> None:
        async def load() -> list[Experiment]:
            async with self.store.read() as work:
                return [await work.experiments.load(identity) for identity in self.model]

        for found in self.runner.run(load()):
            known = self.model[found.id]
            assert (found.state, found.fencing) == (known.state, known.fencing)


def left(known: Known, which: Abandoned) -> bool:
    if known.state not in (TrainingState.RUNNING, TrainingState.CANCELLING):
        return False
    return which is Abandoned.ALL or known.owner is None or (which is Abandoned.LAPSED and known.lapsed)


@pytest.mark.slow
def test_a_queue_answers_as_a_dictionary(empty_store: EmptyStore, runner: asyncio.Runner) -> None:
    tell(Queue, examples=20, steps=25, empty_store=empty_store, runner=runner)
