"""What MongoDB does with writes that come twice, late, from two servers at once, or of an older shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pymongo
import pytest

from easyml_server.domain.errors import Unavailable
from easyml_server.ports.documents import WHOLE_PROJECT, PendingDocument
from easyml_server.repositories.documents.document import Document, Upgrade
from easyml_server.repositories.documents.mongo import MongoDocuments, open_client
from easyml_server.repositories.documents.preparing import CannotOpenError, check, prepare
from easyml_server.repositories.documents.schemas import INDEXES
from easyml_server.services.documents import DocumentDispatcher
from tests.conformance.documents import Bench, a_session_document, benches
from tests.conformance.stores import EmptyStore
from tests.marks import limits
from tests.mongodb import MongoServer
from tests.proxy import proxy

WAIT_SECONDS = 5.0
COLLECTION = "model_sessions"


@pytest.fixture
def rows(sqlite_rows: EmptyStore) -> EmptyStore:
    return sqlite_rows


@pytest.fixture
async def bench(rows: EmptyStore, mongo: MongoServer) -> AsyncIterator[Bench]:
    async with benches(rows, mongo)() as bench:
        yield bench


@pytest.fixture
async def server(bench: Bench) -> MongoDocuments:
    assert bench.server is not None
    return bench.server


def a_write(revision: int, value: float | None, document_id: UUID, project_id: UUID | None = None) -> PendingDocument:
    """Of a session; without a value it is a deletion."""
    body = None if value is None else a_session_document(document_id, {"n": value}).body()
    return PendingDocument(revision, COLLECTION, document_id, project_id or uuid4(), body)


async def value_of(server: MongoDocuments, document_id: UUID) -> Any:
    found = (await server.find_many(COLLECTION, [document_id])).get(document_id)
    return None if found is None else (found.revision, found.body["values"]["n"])


async def test_a_write_that_comes_twice_changes_nothing(server: MongoDocuments) -> None:
    write = a_write(5, 1.0, uuid4())
    for _ in range(2):
        applied = await server.apply([write])
        assert (list(applied.done), list(applied.overtaken)) == ([write], [])
    assert await value_of(server, write.document_id) == (5, 1.0)


async def test_an_older_write_does_not_replace_a_newer_one(server: MongoDocuments) -> None:
    newer, older = a_write(7, 2.0, identity := uuid4()), a_write(6, 1.0, identity)
    await server.apply([newer])
    assert (await server.apply([older])).overtaken == [(older, 7)]
    assert await value_of(server, identity) == (7, 2.0)


async def test_a_late_write_does_not_bring_back_what_was_deleted(server: MongoDocuments) -> None:
    project_id, alone, with_its_project = uuid4(), uuid4(), uuid4()
    await server.apply([a_write(1, 1.0, with_its_project, project_id)])
    gone = PendingDocument(9, WHOLE_PROJECT, project_id, project_id, None)
    await server.apply([a_write(8, None, alone), gone])
    late = [a_write(2, 1.0, alone), a_write(3, 1.0, with_its_project, project_id)]
    assert {revision for _, revision in (await server.apply(late)).overtaken} == {8, 9}
    assert await value_of(server, alone) is None
    assert await value_of(server, with_its_project) is None


async def test_what_was_deleted_is_forgotten_in_the_end(bench: Bench, server: MongoDocuments) -> None:
    await server.apply([write := a_write(1, None, uuid4())])
    stored = await server._database[COLLECTION].find_one({"_id": write.document_id})
    assert stored is not None
    assert (stored["expire_time"] - datetime.now(UTC)).total_seconds() > 80_000
    expiring = (await server._database[COLLECTION].index_information())["ix_expire_time"]
    assert expiring["expireAfterSeconds"] == 0


async def test_of_many_servers_that_apply_at_once_the_newest_write_wins(server: MongoDocuments) -> None:
    identities = [uuid4() for _ in range(3)]
    writes = [a_write(revision, float(revision), identity) for revision in range(1, 9) for identity in identities]
    await asyncio.gather(*(server.apply([write]) for write in reversed(writes)))
    assert [await value_of(server, identity) for identity in identities] == [(8, 8.0)] * 3


async def test_two_dispatchers_leave_nothing_and_lose_nothing(bench: Bench, server: MongoDocuments) -> None:
    both = [DocumentDispatcher(bench.store, server) for _ in range(2)]
    identities = [uuid4() for _ in range(4)]
    for number in range(5):
        for identity in identities:
            await bench.put(a_session_document(identity, {"n": float(number)}), bench.projects[0])
        await asyncio.gather(*(dispatcher.work_off() for dispatcher in both))
    async with bench.store.read() as work:
        assert await work.pending.count() == 0
    assert [(await value_of(server, identity))[1] for identity in identities] == [4.0] * 4


@pytest.mark.parametrize(
    "refused",
    [
        {"schema_version": 1, "no": "session"},
        {"no": "version"},
        {"schema_version": 99},
        {"schema_version": 1, "large": "x" * (17 << 20)},
    ],
    ids=["wrong shape", "no version", "newer", "too large"],
)
async def test_what_mongodb_refuses_holds_nobody_up(
    bench: Bench, server: MongoDocuments, refused: Mapping[str, Any]
) -> None:
    good, bad = uuid4(), uuid4()
    await bench.put(a_session_document(good, {"n": 1.0}), bench.projects[0])
    async with bench.store.begin() as work:
        await work.pending.put(COLLECTION, bad, bench.projects[0], refused)
        await work.commit()
    await bench.apply()
    assert await value_of(server, good) is not None
    assert await server.find_many(COLLECTION, [bad]) == {}
    async with bench.store.read() as work:
        assert [each.document_id for each in await work.pending.page(0)] == [bad]


async def test_after_a_restore_from_a_backup_new_writes_win(bench: Bench, server: MongoDocuments) -> None:
    # MongoDB has seen revisions that the restored database will give again.
    identity = uuid4()
    await server.apply([a_write(1_000, 1.0, identity, bench.projects[0])])
    await bench.put(a_session_document(identity, {"n": 2.0}), bench.projects[0])
    await bench.apply()
    await bench.apply()
    revision, value = await value_of(server, identity)
    assert (revision > 1_000, value) == (True, 2.0)
    await bench.put(a_session_document(other := uuid4(), {"n": 3.0}), bench.projects[0])
    await bench.apply()
    assert (await value_of(server, other))[0] > revision


@limits("MONGODB_WAIT_SECONDS")
async def test_a_call_waits_for_mongodb_and_no_longer_than_it_may(mongo: MongoServer) -> None:
    identity, name = uuid4(), mongo.new_name()
    with proxy(*mongo.address) as line:
        url = mongo.through(line).database_url(name)
        patient, hasty = (MongoDocuments(open_client(url, seconds), identity) for seconds in (30.0, 0.3))
        try:
            assert await hasty.find_many(COLLECTION, [uuid4()]) == {}
            line.stall()
            waiting = asyncio.create_task(patient.find_many(COLLECTION, [uuid4()]))
            with pytest.raises(Unavailable) as refused:
                await hasty.find_many(COLLECTION, [uuid4()])
            assert refused.value.retry_after
            assert refused.value.metadata == {"part": "documents"}
            assert not waiting.done()
            line.up()
            assert await waiting == {}
        finally:
            await patient.close()
            await hasty.close()
            mongo.drop(name)


async def test_while_it_is_away_nobody_waits_for_it(bench: Bench, server: MongoDocuments) -> None:
    bench.down()
    with pytest.raises(Unavailable):
        await server.find_many(COLLECTION, [uuid4()])
    # Asked once; since then nothing but the probe asks.
    server._client.close()
    with pytest.raises(Unavailable):
        await server.find_many(COLLECTION, [uuid4()])


# Shapes.


class Noted(Document):
    """As it was."""

    collection = "notes"

    text: str


class Titled(Document):
    """As it is: the text has got a title."""

    collection = "notes"
    upgrades: ClassVar[tuple[Upgrade, ...]] = (lambda body: {**body, "title": body["text"].partition(".")[0]},)

    text: str
    title: str


@asynccontextmanager
async def shaped(mongo: MongoServer, kind: type[Document], name: str, layout: int) -> AsyncIterator[MongoDocuments]:
    """A release that knows documents of this kind."""
    server = MongoDocuments(open_client(mongo.database_url(name), WAIT_SECONDS), UUID(int=1), [kind])
    await prepare(server._database, UUID(int=1), [kind], layout)
    try:
        yield server
    finally:
        await server.close()


@pytest.fixture
async def notes(mongo: MongoServer) -> AsyncIterator[str]:
    """The name of a database with two notes of the older shape."""
    name = mongo.new_name()
    async with shaped(mongo, Noted, name, 1) as server:
        writes = [
            PendingDocument(
                number, "notes", UUID(int=number), UUID(int=9), Noted(id=UUID(int=number), text="A. b").body()
            )
            for number in (1, 2)
        ]
        assert (await server.apply(writes)).done == writes
    yield name
    mongo.drop(name)


async def test_a_document_of_an_older_shape_is_upgraded_when_it_is_read(mongo: MongoServer, notes: str) -> None:
    server = MongoDocuments(open_client(mongo.database_url(notes), WAIT_SECONDS), UUID(int=1), [Titled])
    found = (await server.find_many("notes", [UUID(int=1)])).get(UUID(int=1))
    await server.close()
    assert found is not None
    assert found.body["schema_version"] == 1
    read = Titled.from_body(found.body)
    assert (read.title, read.body()["schema_version"]) == ("A", 2)


async def test_a_migration_of_documents_goes_on_where_it_was_cut_off(mongo: MongoServer, notes: str) -> None:
    with mongo.client() as client:
        # One was upgraded before the cut, and written since.
        done = {"id": str(UUID(int=1)), "schema_version": 2, "text": "A. b", "title": "written since"}
        client[notes]["notes"].update_one(
            {"_id": UUID(int=1)}, {"$set": {"body": done, "revision": 50}}, bypass_document_validation=True
        )
    async with shaped(mongo, Titled, notes, 2):
        pass
    with mongo.client() as client:
        found = {each["_id"].int: each["body"]["title"] for each in client[notes]["notes"].find()}
        marker = client[notes]["easyml_store"].find_one()
    assert found == {1: "written since", 2: "A"}
    assert marker is not None
    assert marker["layout"] == 2


async def test_a_write_of_an_older_server_is_upgraded_when_it_is_applied(mongo: MongoServer, notes: str) -> None:
    async with shaped(mongo, Titled, notes, 2) as server:
        late = PendingDocument(60, "notes", UUID(int=2), UUID(int=9), Noted(id=UUID(int=2), text="C. d").body())
        assert (await server.apply([late])).done == [late]
        found = (await server.find_many("notes", [UUID(int=2)])).get(UUID(int=2))
    assert found is not None
    assert found.body["title"] == "C"


def test_a_document_of_a_newer_shape_is_for_a_newer_server() -> None:
    body = Titled(id=UUID(int=1), text="A", title="A").body()
    with pytest.raises(Unavailable, match="newer EasyML"):
        Noted.from_body(body)


async def test_a_database_of_an_older_layout_waits_for_migrate_and_a_newer_is_refused(
    mongo: MongoServer, notes: str
) -> None:
    client = open_client(mongo.database_url(notes), WAIT_SECONDS)
    database = client.get_default_database()
    with pytest.raises(CannotOpenError, match="easyml-server migrate"):
        await check(database, UUID(int=1), 2)
    await check(database, UUID(int=1), 1)
    await prepare(database, UUID(int=1), [Titled], 2)
    for look in (check(database, UUID(int=1), 1), prepare(database, UUID(int=1), [Noted], 1)):
        with pytest.raises(CannotOpenError, match="newer EasyML"):
            await look
    client.close()


async def test_of_many_that_prepare_at_once_none_is_refused(mongo: MongoServer) -> None:
    url = mongo.database_url(name := mongo.new_name())
    clients = [open_client(url, WAIT_SECONDS) for _ in range(6)]
    try:
        await asyncio.gather(*(prepare(client.get_default_database(), UUID(int=1)) for client in clients))
        await check(clients[0].get_default_database(), UUID(int=1))
    finally:
        for client in clients:
            client.close()
    with mongo.client() as client:
        names = set(client[name][COLLECTION].index_information())
        with pytest.raises(pymongo.errors.WriteError):
            client[name][COLLECTION].insert_one(_without_body(uuid4()))
    mongo.drop(name)
    assert names == {"_id_", *(index.name for index in INDEXES)}


def _without_body(identity: UUID) -> Mapping[str, Any]:
    return {"_id": identity, "project_id": identity, "revision": 1, "body": {"schema_version": 1}}
