"""Random stories of projects, held against a dictionary: every engine answers as the dictionary does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, rule

from easyml_server.domain.errors import AlreadyExists, NotFound, Stale
from easyml_server.domain.pages import Order, PageRequest
from easyml_server.domain.projects import Project
from easyml_server.domain.users import Caller, Permission
from tests.builders import TIME, a_config, a_project, a_user
from tests.conformance.machines import StoryOfOne, tell
from tests.conformance.stores import EmptyStore

# Few letters, and each of them odd to one engine or the other, so that names collide and prefixes match.
letters = st.sampled_from("aB%_\\é日🐧'\"")
texts = st.text(letters, min_size=1, max_size=3)
keys = st.sampled_from(["team", 'q"', "日本", "a.b$c"])
values = st.sampled_from(["blue", "'"])
labels = st.dictionaries(keys, values, max_size=2)


class Projects(StoryOfOne):
    """Projects of one owner."""

    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[UUID, Project] = {}
        self.owner = a_user()
        self.clock = TIME

    @initialize()
    def an_owner(self) -> None:
        async def add() -> None:
            async with self.store.begin() as work:
                await work.users.add(self.owner)
                await work.commit()

        self.runner.run(add())

    @rule(target=made, name=texts, given=labels)
    def create(self, name: str, given: dict[str, str]) -> UUID:
        self.clock += timedelta(seconds=1)
        project = a_project(self.owner.id, name=name, labels=given, create_time=self.clock, update_time=self.clock)

        async def add() -> None:
            async with self.store.begin() as work:
                await work.projects.add(project, a_config(project))
                await work.commit()

        taken = any(each.name == name for each in self.model.values())
        if taken:
            with pytest.raises(AlreadyExists):
                self.runner.run(add())
        else:
            self.runner.run(add())
            self.model[project.id] = project
        return project.id

    @rule(identity=made, name=texts, given=labels, stale=st.booleans())
    def change(self, identity: UUID, name: str, given: dict[str, str], stale: bool) -> None:
        known = self.model.get(identity)
        changed = None if known is None else replace(known, name=name, labels=given, etag=uuid4().hex)

        async def save() -> None:
            async with self.store.begin() as work:
                found = await work.projects.get(identity, self.caller)
                etag = "older" if stale else found.etag
                await work.projects.save(changed or found, etag)
                await work.commit()

        taken = any(each.name == name for each in self.model.values() if each.id != identity)
        expected = NotFound if changed is None else Stale if stale else AlreadyExists if taken else None
        if expected is not None:
            with pytest.raises(expected):
                self.runner.run(save())
        else:
            self.runner.run(save())
            assert changed is not None
            self.model[identity] = changed

    @rule(identity=consumes(made))
    def delete(self, identity: UUID) -> None:
        async def remove() -> None:
            async with self.store.begin() as work:
                await work.projects.delete(identity, "")
                await work.commit()

        if self.model.pop(identity, None) is None:
            with pytest.raises(NotFound):
                self.runner.run(remove())
        else:
            self.runner.run(remove())

    @rule(
        given=st.dictionaries(keys, values, max_size=1),
        prefix=st.text(letters, max_size=1),
        size=st.integers(1, 3),
        order=st.sampled_from(Order),
    )
    def list_(self, given: dict[str, str], prefix: str, size: int, order: Order) -> None:
        request = PageRequest(size=size, order=order, name_prefix=prefix, labels=given)
        found = [project.id for page in self.runner.run(self.pages(request)) for project in page]
        wanted = [
            project
            for project in self.model.values()
            if project.name.startswith(prefix) and given.items() <= project.labels.items()
        ]
        key = (lambda each: each.name) if order is Order.BY_NAME else (lambda each: each.create_time)
        assert found == [each.id for each in sorted(wanted, key=key, reverse=order is Order.NEWEST_FIRST)]

    @invariant()
    def everything_is_as_it_was_stored(self) -> None:
        found = {project.id: project for page in self.runner.run(self.pages(PageRequest())) for project in page}
        assert found == self.model

    @property
    def caller(self) -> Caller:
        return Caller(self.owner.id, needs=Permission.OWNER)

    async def pages(self, request: PageRequest) -> list[tuple[Project, ...]]:
        found = []
        while True:
            async with self.store.read() as work:
                page = await work.projects.list(self.caller, request)
            found.append(page.items)
            if page.next is None:
                return found
            request = replace(request, after=page.next)


@pytest.mark.slow
def test_a_store_of_projects_answers_as_a_dictionary(empty_store: EmptyStore, runner: asyncio.Runner) -> None:
    tell(Projects, examples=15, empty_store=empty_store, runner=runner)
