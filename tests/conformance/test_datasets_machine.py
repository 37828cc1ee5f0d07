"""Random stories of datasets and uploads: all engines answer alike, and as two dictionaries do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, rule

from easyml_server.domain.datasets import (
    ColumnKind,
    ColumnSchema,
    Dataset,
    DatasetWarning,
    DatasetWarningKind,
    FileFormat,
    ReadOptions,
    StorageType,
    TableSchema,
    Upload,
    UploadState,
)
from easyml_server.domain.errors import AlreadyExists, InvalidInput, NotAllowed, NotFound, Stale
from easyml_server.domain.pages import Order, PageRequest
from easyml_server.domain.projects import Role
from easyml_server.domain.users import Caller, Permission
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import TIME, a_user
from tests.conformance.machines import (
    StoryOfAll,
    etags,
    filters,
    labels,
    names,
    orders,
    prefixes,
    sizes,
    tell,
    texts,
    ticks,
)
from tests.unit.services.builders import a_dataset

SECOND = timedelta(seconds=1)
UNFINISHED = (UploadState.RECEIVING, UploadState.CONVERTING)
columns = st.lists(
    st.builds(ColumnSchema, names, st.sampled_from(StorageType), st.sampled_from(ColumnKind)), max_size=2
).map(tuple)
noticed = st.lists(st.builds(DatasetWarning, st.sampled_from(DatasetWarningKind), names, texts), max_size=2).map(tuple)
bytes_ = st.sampled_from([0, 9, 2**31, 2**53])


class Datasets(StoryOfAll):
    """Datasets of one project, and the uploads of its owner."""

    made = Bundle("made")
    uploads = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[UUID, Dataset] = {}
        self.uploaded: dict[UUID, Upload] = {}
        self.clock = TIME

    @initialize()
    def a_viewer(self) -> None:
        self.viewer = a_user(id=self.an_id(), email=f"{self.an_id()}@example.org")

        async def join(work: Any) -> None:
            await work.users.add(self.viewer)
            await work.projects.set_member(self.project.id, self.viewer.id, Role.VIEWER, TIME)

        self.told(join)

    @rule(
        target=made,
        name=names,
        description=texts,
        given=labels,
        columns=columns,
        warnings=noticed,
        size=bytes_,
        kept=st.booleans(),
        passed=ticks,
    )
    def add(
        self,
        name: str,
        description: str,
        given: Mapping[str, str],
        columns: Any,
        warnings: Any,
        size: int,
        kept: bool,
        passed: timedelta,
    ) -> UUID:
        self.clock += passed
        dataset = self.a_dataset(name, description, given, columns)
        changed = {"warnings": warnings, "size_bytes": size, "stored_bytes": size // 2, "keeps_original": kept}
        dataset = replace(dataset, current=replace(dataset.current, **changed))
        if any(each.name == name for each in self.model.values()):
            refused = self.refused(lambda work: work.datasets.add(dataset), AlreadyExists)
            assert refused.metadata == {"name": name}
        else:
            self.told(lambda work: work.datasets.add(dataset))
            self.model[dataset.id] = dataset
        return dataset.id

    def a_dataset(self, name: str, description: str, given: Mapping[str, str], columns: Any) -> Dataset:
        dataset = a_dataset(self.project.id, self.owner.id, columns)
        version = replace(dataset.current, id=self.an_id(), create_time=self.clock)
        dataset = replace(dataset, id=self.an_id(), name=name, description=description, labels=given)
        version = replace(version, dataset_id=dataset.id)
        return replace(dataset, create_time=self.clock, update_time=self.clock, current=version)

    @rule(name=names)
    def add_to_a_project_that_is_gone(self, name: str) -> None:
        dataset = replace(self.a_dataset(name, "", {}, ()), project_id=self.an_id())
        self.refused(lambda work: work.datasets.add(dataset), Stale)

    @rule(identity=made, needs=st.sampled_from(Permission), whose=st.sampled_from(["owner", "viewer", "stranger"]))
    def get(self, identity: UUID, needs: Permission, whose: str) -> None:
        ids = {"owner": self.owner.id, "viewer": self.viewer.id, "stranger": self.an_id()}
        caller = Caller(ids[whose], needs=needs)
        role = {"owner": Permission.OWNER, "viewer": Permission.VIEWER, "stranger": None}[whose]
        if identity not in self.model or role is None:
            refused = self.refused(lambda work: work.datasets.get(identity, caller), NotFound)
            assert refused.resource == ("dataset", str(identity))
        elif role < needs:
            self.refused(lambda work: work.datasets.get(identity, caller), NotAllowed)
        else:
            assert self.told(lambda work: work.datasets.get(identity, caller)) == self.model[identity]

    @rule(
        identity=made,
        name=names,
        description=texts,
        given=labels,
        columns=columns,
        etag=etags,
    )
    def save(
        self, identity: UUID, name: str, description: str, given: Mapping[str, str], columns: Any, etag: str
    ) -> None:
        known = self.model.get(identity) or self.a_dataset(name, description, given, columns)
        changed = replace(
            known,
            name=name,
            description=description,
            labels=given,
            update_time=self.clock,
            etag=str(self.an_id()),
            current=replace(known.current, schema=TableSchema(columns, 7)),
        )
        etag = known.etag if etag == "its" else etag

        async def save(work: Any) -> None:
            await work.datasets.save(changed, etag)

        taken = any(each.name == name for each in self.model.values() if each.id != identity)
        if identity not in self.model:
            self.refused(save, NotFound)
        elif etag not in ("", known.etag):
            self.refused(save, Stale)
        elif taken:
            assert self.refused(save, AlreadyExists).metadata == {"name": name}
        else:
            self.told(save)
            self.model[identity] = changed

    @rule(identity=consumes(made), etag=etags)
    def delete(self, identity: UUID, etag: str) -> None:
        known = self.model.get(identity)
        etag = known.etag if known and etag == "its" else etag

        async def delete(work: Any) -> None:
            await work.datasets.delete(identity, etag)

        if known is None:
            self.refused(delete, NotFound)
        elif etag not in ("", known.etag):
            self.refused(delete, Stale)
        else:
            self.told(delete)
            del self.model[identity]
            self.refused(lambda work: work.datasets.get_version(known.current.id), NotFound)

    @rule(name=names)
    def find_by_name(self, name: str) -> None:
        expected = next((each for each in self.model.values() if each.name == name), None)
        assert self.read(lambda work: work.datasets.find_by_name(self.project.id, name)) == expected

    @rule(given=filters, prefix=prefixes, size=sizes, order=orders)
    def list_(self, given: Mapping[str, str], prefix: str, size: int, order: Order) -> None:
        request = PageRequest(size=size, order=order, name_prefix=prefix, labels=given)
        found = self.pages(request, lambda work, page: work.datasets.list(self.project.id, page))
        wanted = [
            each
            for each in self.model.values()
            if each.name.startswith(prefix) and given.items() <= each.labels.items()
        ]
        assert found == in_order(wanted, order)

    @rule(after=st.sampled_from([("yesterday", str(UUID(int=1))), (TIME.isoformat(), "no id")]), order=orders)
    def list_from_nowhere(self, after: tuple[str, str], order: Order) -> None:
        if order is Order.BY_NAME and after[0] == "yesterday":
            after = "", "no id"
        request = PageRequest(after=after, order=order)
        assert self.refused(lambda work: work.datasets.list(self.project.id, request), InvalidInput).fields

    @rule(
        target=uploads,
        known=st.none() | uploads,
        state=st.sampled_from(UploadState),
        name=names,
        given=labels,
        received=bytes_,
        failure=st.none() | st.tuples(st.just("UNREADABLE_FILE"), texts),
        late=st.booleans(),
    )
    def put_upload(
        self,
        known: UUID | None,
        state: UploadState,
        name: str,
        given: Mapping[str, str],
        received: int,
        failure: tuple[str, str] | None,
        late: bool,
    ) -> UUID:
        upload = Upload(
            id=known or self.an_id(),
            user_id=self.owner.id,
            project_id=self.project.id,
            state=state,
            name=name,
            description="",
            labels=given,
            filename=name,
            format=FileFormat.CSV,
            size_bytes=received,
            sha256="0" * 64,
            read_options=ReadOptions(delimiter=";", sheet=name),
            received_bytes=received,
            dataset_id=self.an_id() if state is UploadState.COMPLETED else None,
            create_time=self.clock,
            expire_time=self.clock + (-SECOND if late else SECOND),
            failure=failure,
        )
        self.told(lambda work: work.datasets.put_upload(upload))
        self.uploaded[upload.id] = upload
        return upload.id

    @rule(identity=uploads, by_another=st.booleans())
    def find_upload(self, identity: UUID, by_another: bool) -> None:
        user_id = self.viewer.id if by_another else self.owner.id
        expected = None if by_another else self.uploaded.get(identity)
        assert self.told(lambda work: work.datasets.find_upload(identity, user_id)) == expected

    @rule(passed=st.sampled_from([-SECOND, timedelta(), SECOND, 2 * SECOND]))
    def expire_uploads(self, passed: timedelta) -> None:
        time = self.clock + passed
        found = self.told(lambda work: expired(work, time))
        expected = [each for each in self.unfinished if each.expire_time < time]
        assert found == by_id(expected)
        for each in expected:
            del self.uploaded[each.id]

    @property
    def unfinished(self) -> list[Upload]:
        return [each for each in self.uploaded.values() if each.state in UNFINISHED]

    @invariant()
    def everything_is_as_it_was_stored(self) -> None:
        async def look(work: Any) -> Any:
            listed = (await work.datasets.list(self.project.id, PageRequest(order=Order.BY_NAME))).items
            versions = by_id(await work.datasets.list_versions(self.project.id))
            stored = await work.datasets.stored_bytes(self.project.id)
            uploads = by_id(await work.datasets.unfinished_uploads())
            counts = [await work.datasets.count_uploads(each) for each in (None, self.owner.id, self.project.id)]
            return listed, versions, stored, uploads, counts

        current = [each.current for each in self.model.values()]
        assert self.read(look) == (
            tuple(in_order(self.model.values(), Order.BY_NAME)),
            by_id(current),
            sum(each.stored_bytes + each.size_bytes * each.keeps_original for each in current),
            by_id(self.unfinished),
            [len(self.unfinished), len(self.unfinished), 0],
        )


async def expired(work: Any, time: datetime) -> list[Any]:
    return by_id(await work.datasets.expire_uploads(time))


def by_id(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=lambda each: each.id)


def in_order(items: Iterable[Any], order: Order) -> list[Any]:
    """Equal times by id."""
    key = (lambda each: (each.name, each.id)) if order is Order.BY_NAME else (lambda each: (each.create_time, each.id))
    return sorted(items, key=key, reverse=order is Order.NEWEST_FIRST)


@pytest.mark.slow
def test_datasets_answer_as_dictionaries(stores: Mapping[str, SqlStore], runner: asyncio.Runner) -> None:
    tell(Datasets, examples=6, steps=20, stores=stores, runner=runner)
