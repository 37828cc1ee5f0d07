"""Random stories that are told to stores: to one, or to several that must answer alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count
from random import Random
from typing import Any, ClassVar
from unittest.mock import patch
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from easyml_server.domain.errors import EasyMLError
from easyml_server.domain.pages import Order, PageRequest
from easyml_server.domain.projects import Project
from easyml_server.domain.users import Caller, Permission
from easyml_server.ports.store import UnitOfWork
from easyml_server.repositories.sql import models, queue
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import a_config, a_project, a_user
from tests.conformance.stores import EmptyStore

Call = Callable[[Any], Awaitable[Any]]
"""What is done in a unit of work."""
EVERYTHING = [Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink]

# Few letters, and each of them odd to one engine or the other, so that names collide and prefixes match.
letters = st.sampled_from("aAbB%_\\é日🐧'\" \N{COMBINING ACUTE ACCENT}-")
names = st.text(letters, min_size=1, max_size=3) | st.sampled_from(["🐧" * 99, "a ", " a", "a", "A"])
texts = st.text(letters, max_size=3) | st.just("🐧" * 99)
prefixes = st.text(letters, max_size=2) | st.just("🐧" * 98)
label_names = st.sampled_from(["team", "Team", 'q"', "日本", "a.b$c", "$", "a ", "%", "🐧" * 63])
label_values = st.sampled_from(["blue", "", "'", "null", "1", "🐧" * 99])
labels = st.dictionaries(label_names, label_values, max_size=2)
filters = st.dictionaries(label_names, label_values, max_size=1)
sizes = st.integers(1, 3)
etags = st.sampled_from(["its", "its", "", "another"])
rarely = st.sampled_from([False, False, False, True])
ticks = st.sampled_from([timedelta(), timedelta(), timedelta(microseconds=1), timedelta(seconds=1)])
orders = st.sampled_from(Order)


class Story(RuleBasedStateMachine):
    """What a story needs, and leaves when it ends."""

    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.stack = AsyncExitStack()

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())


class StoryOfOne(Story):
    """Told to a store of its own."""

    empty_store: EmptyStore

    def __init__(self) -> None:
        super().__init__()
        self.store: SqlStore = self.runner.run(self.stack.enter_async_context(self.empty_store()))


@dataclass(frozen=True)
class Refused:
    """An error, by all that callers are told of it."""

    kind: type[EasyMLError]
    message: str
    reason: str
    metadata: Mapping[str, str]
    fields: tuple[str, ...]
    resource: tuple[str, str] | None
    retry_after: float | None


class StoryOfAll(Story):
    """Told to stores of all engines alike, whose answers are compared: a project of its own, with its owner."""

    stores: Mapping[str, SqlStore]
    numbers: ClassVar = count(1)

    def __init__(self) -> None:
        super().__init__()
        self.number = next(self.numbers)
        self.random = Random(0)
        self.owner = a_user(id=self.an_id(), email=f"{self.an_id()}@example.org")
        self.project: Project = a_project(self.owner.id, id=self.an_id(), name=str(self.an_id()))

        async def begin(work: Any) -> None:
            await work.users.add(self.owner)
            await work.projects.add(self.project, a_config(self.project))

        self.told(begin)

    def teardown(self) -> None:
        async def end(work: UnitOfWork) -> None:
            await work.projects.delete(self.project.id, "")

        self.asked(end)
        super().teardown()

    def an_id(self, random: Random | None = None) -> UUID:
        """By chance, but in the same order whenever this story is told; no other story has it."""
        return UUID(int=self.number << 96 | (random or self.random).getrandbits(96))

    def asked(self, call: Call, *, writes: bool = True) -> Any:
        """What all stores answer: a value, or how they refuse."""
        seed = self.random.random()
        answers = {
            name: self.runner.run(self._answer(store, call, seed, writes)) for name, store in self.stores.items()
        }
        first, *others = answers.values()
        assert all(each == first for each in others), answers
        return first

    def told(self, call: Call, *, writes: bool = True) -> Any:
        """What all stores answer, none of which refuses."""
        answer = self.asked(call, writes=writes)
        assert not isinstance(answer, Refused), answer
        return answer

    def read(self, call: Call) -> Any:
        """What is there, by a unit of work that only reads."""
        return self.told(call, writes=False)

    def refused(self, call: Call, kind: type[EasyMLError]) -> Refused:
        """All stores refuse, with an error of this kind."""
        answer = self.asked(call)
        assert isinstance(answer, Refused), answer
        assert answer.kind is kind, answer
        return answer

    def pages(self, page: PageRequest, call: Callable[[Any, PageRequest], Awaitable[Any]]) -> list[Any]:
        """All items of a list, page by page: each as long as was asked for, but the last."""
        found: list[Any] = []
        while True:
            request = page
            answer = self.read(lambda work: call(work, request))  # noqa: B023 (called at once)
            found += answer.items
            if answer.next is None:
                assert len(answer.items) <= page.size
                return found
            assert len(answer.items) == page.size
            page = replace(page, after=answer.next)

    @property
    def caller(self) -> Caller:
        """The owner."""
        return Caller(self.owner.id, needs=Permission.OWNER)

    async def _answer(self, store: SqlStore, call: Call, seed: float, writes: bool) -> Any:
        random = Random(seed)
        # Ids that repositories give by chance are the same for all stores, and so is their order.
        an_id = partial(self.an_id, random)
        with patch.object(models, "uuid4", an_id), patch.object(queue, "uuid4", an_id):
            try:
                async with store.begin() if writes else store.read() as work:
                    found = await call(work)
                    if writes:
                        await work.commit()
            except EasyMLError as error:
                return Refused(
                    type(error),
                    error.message,
                    error.reason,
                    error.metadata,
                    tuple(each.field for each in error.violations),
                    error.resource,
                    error.retry_after,
                )
        return found


def tell(
    kind: type[Story], *, examples: int, steps: int = 15, phases: Collection[Phase] = tuple(EVERYTHING), **given: Any
) -> None:
    """Tell stories of a kind, which is given what it needs."""
    # Set on a class of its own: hypothesis makes the machine without arguments.
    attributes = {name: staticmethod(value) if callable(value) else value for name, value in given.items()}
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
        phases=list(phases),
    )
    run_state_machine_as_test(type(kind.__name__, (kind,), attributes), settings=options)
