"""Random stories of models, versions and aliases: all engines answer alike, and as a dictionary does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, invariant, rule

from easyml_server.domain.errors import NotFound, Stale
from easyml_server.domain.models import AliasHistoryEntry, Model, ModelAlias, ModelVersion
from easyml_server.domain.pages import Order, PageRequest
from easyml_server.domain.users import Caller
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import TIME
from tests.conformance.machines import (
    StoryOfAll,
    etags,
    filters,
    labels,
    names,
    orders,
    prefixes,
    rarely,
    sizes,
    tell,
    texts,
    ticks,
)
from tests.unit.services.builders import a_version

SECOND = timedelta(seconds=1)
few_names = st.sampled_from(["a", "a", "a", "b"]) | names
aliases = st.sampled_from(["a", "a", "a", "a-b", "a_b"])
numbers = st.sampled_from([0, -0.0, 1, 0.1, 1e16, 1e300, 5e-324, True, None, "1", 2**53 + 1])
hyperparameters = st.dictionaries(names, numbers | st.lists(numbers, max_size=2), max_size=2)


@dataclass
class Line:
    """What is known of a model."""

    id: UUID
    name: str
    create_time: datetime
    update_time: datetime
    latest: int = 0
    versions: dict[UUID, ModelVersion] = field(default_factory=dict)
    history: list[AliasHistoryEntry] = field(default_factory=list)

    @property
    def current(self) -> dict[str, AliasHistoryEntry]:
        return {each.alias: each for each in self.history if each.end_time is None}

    def aliases_of(self, version_id: UUID) -> tuple[str, ...]:
        return tuple(sorted(alias for alias, each in self.current.items() if each.model_version_id == version_id))

    def version(self, version_id: UUID) -> ModelVersion:
        return replace(self.versions[version_id], aliases=self.aliases_of(version_id))

    def end(self, entry: AliasHistoryEntry, time: datetime) -> None:
        self.history[self.history.index(entry)] = replace(entry, end_time=time)

    def as_model(self, project_id: UUID) -> Model:
        aliases = tuple(
            ModelAlias(alias, each.model_version_id, each.version) for alias, each in sorted(self.current.items())
        )
        return Model(self.id, project_id, self.name, self.latest, self.create_time, self.update_time, aliases)


class Models(StoryOfAll):
    """Models of one project."""

    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, Line] = {}
        self.clock = TIME

    def line_of(self, version_id: UUID) -> Line | None:
        return next((line for line in self.lines.values() if version_id in line.versions), None)

    @rule(
        target=made,
        name=few_names,
        description=texts,
        given=labels,
        values=hyperparameters,
        passed=ticks,
    )
    def add(
        self, name: str, description: str, given: Mapping[str, str], values: Mapping[str, Any], passed: timedelta
    ) -> UUID:
        self.clock += passed
        version = a_version(
            self.project,
            id=self.an_id(),
            model_name=name,
            description=description,
            labels=given,
            hyperparameters=values,
            create_time=self.clock,
            update_time=self.clock,
            etag=str(self.an_id()),
        )
        stored = self.told(lambda work: work.models.add_version(version))
        line = self.lines.setdefault(name, Line(stored.model_id, name, self.clock, self.clock))
        line.latest += 1
        line.update_time = self.clock
        assert stored == replace(version, model_id=line.id, version=line.latest)
        line.versions[version.id] = stored
        return version.id

    @rule(name=names)
    def add_to_a_project_that_is_gone(self, name: str) -> None:
        version = a_version(replace(self.project, id=self.an_id()), id=self.an_id(), model_name=name)
        self.refused(lambda work: work.models.add_version(version), Stale)

    @rule(identity=made, stranger=rarely)
    def get(self, identity: UUID, stranger: bool) -> None:
        caller = Caller(self.an_id()) if stranger else self.caller
        line = self.line_of(identity)

        async def load(work: Any) -> Any:
            return await work.models.load_version(identity)

        if line is None:
            self.refused(load, NotFound)
        else:
            assert self.told(load) == line.version(identity)
        if line is None or stranger:
            for method in ("get_version", "project_of_version"):
                refused = self.refused(lambda work: getattr(work.models, method)(identity, caller), NotFound)  # noqa: B023
                assert refused.resource == ("model version", str(identity))
        else:
            assert self.told(lambda work: work.models.get_version(identity, caller)) == line.version(identity)
            assert self.told(lambda work: work.models.project_of_version(identity, caller)) == self.project.id

    @rule(name=few_names, number=st.integers(0, 4), alias=aliases | st.just(""))
    def find(self, name: str, number: int, alias: str) -> None:
        line = self.lines.get(name)
        wanted = [] if line is None else sorted(line.versions.values(), key=lambda each: each.version)
        if number:
            wanted = [each for each in wanted if each.version == number]
        if alias and line is not None:
            wanted = [each for each in wanted if alias in line.aliases_of(each.id)]
        expected = line.version(wanted[-1].id) if line and wanted else None
        project_id = self.project.id
        found = self.read(lambda work: work.models.find_version(project_id, name, version=number, alias=alias))
        assert found == expected
        if line is None:
            assert self.refused(lambda work: work.models.get_model(project_id, name), NotFound).resource == (
                "model",
                name,
            )

    @rule(identity=made, description=texts, given=labels, etag=etags)
    def save(self, identity: UUID, description: str, given: Mapping[str, str], etag: str) -> None:
        line = self.line_of(identity)
        known = a_version(self.project, id=identity) if line is None else line.versions[identity]
        etag = known.etag if etag == "its" else etag
        changed = replace(known, description=description, labels=given, update_time=self.clock, etag=str(self.an_id()))

        async def save(work: Any) -> None:
            await work.models.save_version(changed, etag)

        if line is None:
            self.refused(save, NotFound)
        elif etag not in ("", known.etag):
            self.refused(save, Stale)
        else:
            self.told(save)
            line.versions[identity] = changed

    @rule(identity=consumes(made), etag=etags, passed=ticks)
    def delete(self, identity: UUID, etag: str, passed: timedelta) -> None:
        self.clock += passed
        line = self.line_of(identity)
        known = a_version(self.project, id=identity) if line is None else line.versions[identity]
        etag = known.etag if etag == "its" else etag
        time = self.clock

        async def delete(work: Any) -> Any:
            return await work.models.delete_version(known, etag, time)

        if line is None:
            self.refused(delete, NotFound)
        elif etag not in ("", known.etag):
            self.refused(delete, Stale)
        else:
            assert self.told(delete) == (len(line.versions) == 1)
            for entry in line.current.values():
                if entry.model_version_id == identity:
                    line.end(entry, time)
            del line.versions[identity]
            if not line.versions:
                del self.lines[line.name]
                self.refused(lambda work: work.models.load_model(line.id), NotFound)

    @rule(identity=made, alias=aliases, passed=ticks)
    def set_alias(self, identity: UUID, alias: str, passed: timedelta) -> None:
        line = self.line_of(identity)
        if line is None:
            return
        self.clock += passed
        version, time = line.versions[identity], self.clock
        self.told(lambda work: work.models.set_alias(version, alias, self.owner.id, time))
        current = line.current.get(alias)
        if current is not None and current.model_version_id == identity:
            return
        if current is not None:
            line.end(current, time)
        (entry,) = [each for each in self.history_of(line, alias) if each.end_time is None]
        assert (entry.model_id, entry.model_version_id, entry.version) == (line.id, identity, version.version)
        assert (entry.alias, entry.set_by, entry.start_time) == (alias, self.owner.id, time)
        line.history.append(entry)

    def history_of(self, line: Line, alias: str = "", at: datetime | None = None, size: int = 50) -> list[Any]:
        return self.pages(
            PageRequest(size=size), lambda work, page: work.models.list_alias_history(line.id, page, alias, at)
        )

    @rule(name=st.sampled_from(["a", "b"]), alias=aliases, passed=ticks)
    def delete_alias(self, name: str, alias: str, passed: timedelta) -> None:
        self.clock += passed
        line, time = self.lines.get(name), self.clock
        model_id = self.an_id() if line is None else line.id

        async def delete(work: Any) -> None:
            await work.models.delete_alias(model_id, alias, time)

        if line is None or alias not in line.current:
            assert self.refused(delete, NotFound).resource == ("alias", alias)
        else:
            self.told(delete)
            line.end(line.current[alias], time)

    @rule(name=st.sampled_from(["a", "b"]), alias=aliases | st.just(""), back=st.none() | st.integers(0, 3), size=sizes)
    def list_history(self, name: str, alias: str, back: int | None, size: int) -> None:
        line = self.lines.get(name)
        if line is None:
            return
        at = None if back is None else self.clock - back * timedelta(microseconds=1)
        wanted = [
            each
            for each in line.history
            if alias in ("", each.alias)
            and (at is None or (each.start_time <= at and (each.end_time is None or each.end_time > at)))
        ]
        found = self.history_of(line, alias, at, size)
        assert found == sorted(wanted, key=lambda each: (each.start_time, each.id), reverse=True)

    @rule(
        given=filters,
        name=st.just("") | names,
        alias=st.just("") | aliases,
        size=sizes,
        order=st.sampled_from([Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
    )
    def list_versions(self, given: Mapping[str, str], name: str, alias: str, size: int, order: Order) -> None:
        found = self.pages(
            PageRequest(size=size, order=order, labels=given),
            lambda work, page: work.models.list_versions(self.project.id, page, name, alias),
        )
        wanted = [
            line.version(each.id)
            for line in self.lines.values()
            for each in line.versions.values()
            if name in ("", line.name)
            and (not alias or alias in line.aliases_of(each.id))
            and given.items() <= each.labels.items()
        ]
        assert found == in_order(wanted, order)

    @rule(prefix=prefixes, size=sizes, order=orders)
    def list_(self, prefix: str, size: int, order: Order) -> None:
        """Models are in the order of time, whatever is asked for."""
        request = PageRequest(size=size, order=order, name_prefix=prefix)
        found = self.pages(request, lambda work, page: work.models.list(self.project.id, page))
        wanted = [line.as_model(self.project.id) for name, line in self.lines.items() if name.startswith(prefix)]
        assert found == in_order(wanted, order)

    @invariant()
    def everything_is_as_it_was_stored(self) -> None:
        async def look(work: Any) -> Any:
            models = (await work.models.list(self.project.id, PageRequest())).items
            loaded = [await work.models.load_model(each.id) for each in models]
            recorded = [
                [(each.id, each.version, each.description, each.run_id, each.awaits_run) for each in found]
                for found in [await work.models.recorded_versions(model.id) for model in models]
            ]
            history = [(await work.models.list_alias_history(each.id, PageRequest())).items for each in models]
            ids = sorted(await work.models.ids_of_project(self.project.id))
            return loaded, recorded, history, ids, await work.models.count_of_project(self.project.id)

        lines = in_order(self.lines.values(), Order.NEWEST_FIRST)
        versions = [line.version(each) for line in lines for each in line.versions]
        assert self.read(look) == (
            [line.as_model(self.project.id) for line in lines],
            [
                [(each.id, each.version, each.description, None, False) for each in line.versions.values()]
                for line in lines
            ],
            [tuple(sorted(line.history, key=lambda each: (each.start_time, each.id), reverse=True)) for line in lines],
            sorted(line.id for line in lines),
            (len(lines), len(versions)),
        )
        # Short pages, whose ends lie between equal times.
        page = PageRequest(size=2, order=Order.OLDEST_FIRST)
        found = self.pages(page, lambda work, page: work.models.list_versions(self.project.id, page))
        assert found == in_order(versions, Order.OLDEST_FIRST)


def in_order(items: Iterable[Any], order: Order) -> list[Any]:
    """By time; equal times by id."""
    return sorted(items, key=lambda each: (each.create_time, each.id), reverse=order is Order.NEWEST_FIRST)


@pytest.mark.slow
def test_models_answer_as_a_dictionary(stores: Mapping[str, SqlStore], runner: asyncio.Runner) -> None:
    tell(Models, examples=6, steps=20, stores=stores, runner=runner)
