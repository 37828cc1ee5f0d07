"""What can be wrong with MongoDB when a server starts, each said in one line; and the way there from a laptop."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import bson
import pytest

from tests.builders import a_project_of
from tests.integration.documents import (
    SERVING,
    config_of,
    health_of,
    stored,
    trained,
    wait_until_applied,
    waiting,
)
from tests.integration.test_belongings import told
from tests.integration.test_postgresql import refused_by
from tests.mongodb import MongoServer, local_server
from tests.postgresql import postgresql
from tests.servers import Client, environment, log_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PASSWORD = "p@ss:w/rd?secret#%"
OP_QUERY, OP_REPLY, OP_MSG = 2004, 1, 2013


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:secret@h/d", ["EASYML_MONGODB_URL", "mongodb://"]),
        ("no url", ["EASYML_MONGODB_URL", "mongodb://"]),
        ("mongodb://u:p@secret@h/d", ["percent-encoded"]),
        ("mongodb://u:sec/ret@h/d", ["percent-encoded"]),
        ("mongodb://u:secret@h:port/d", ["percent-encoded"]),
        ("mongodb://u:secret@127.0.0.1:1", ["names no database"]),
        ("mongodb://u:secret@127.0.0.1:1/d?colour=blue", ["option", "colour"]),
        ("mongodb://u:secret@127.0.0.1:1/d", ["cannot be reached", "127.0.0.1:1"]),
        ("mongodb://u:secret@no-such-host.invalid/d", ["cannot be reached"]),
        ("mongodb://u:secret@127.0.0.1:1/d?maxPoolSize=many", ["option", "maxpoolsize"]),
        ("mongodb+srv://u:secret@no-such-host.invalid/d", ["cannot be used"]),
    ],
)
def test_a_url_that_will_not_do_is_one_line(tmp_path: Path, url: str, words: list[str]) -> None:
    said = refused_by(tmp_path / "data", MONGODB_URL=url)
    for word in words:
        assert word in said
    assert "ret@" not in said


def test_a_migration_of_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    url = "mongodb://u:secret@127.0.0.1:1/d"
    assert "cannot be reached" in refused_by(tmp_path / "data", MONGODB_URL=url, MIGRATE_AT_START="true")


def test_a_database_that_nobody_prepared_is_one_line_with_the_command(tmp_path: Path, url: str) -> None:
    said = refused_by(tmp_path / "data", MONGODB_URL=url)
    assert "not prepared" in said
    assert "easyml-server migrate" in said


def test_a_database_of_others_is_left_alone(tmp_path: Path, mongo: MongoServer, url: str) -> None:
    with mongo.client() as client:
        client[name_in(url)]["orders"].insert_one({"total": 1})
    said = refused_by(tmp_path / "data", MONGODB_URL=url, MIGRATE_AT_START="true")
    assert "something else (orders)" in said
    with mongo.client() as client:
        assert client[name_in(url)].list_collection_names() == ["orders"]


def test_documents_of_another_database_are_refused(tmp_path: Path, url: str) -> None:
    migrated(tmp_path / "one", MONGODB_URL=url)
    said = refused_by(tmp_path / "two", MONGODB_URL=url, MIGRATE_AT_START="true")
    assert "belong to another EasyML database" in said


def test_documents_of_a_newer_release_are_refused(tmp_path: Path, mongo: MongoServer, url: str) -> None:
    migrated(tmp_path / "data", MONGODB_URL=url)
    with mongo.client() as client:
        client[name_in(url)]["easyml_store"].update_one({}, {"$set": {"layout": 99}})
    assert "newer EasyML (layout 99)" in refused_by(tmp_path / "data", MONGODB_URL=url)


def test_a_server_that_forgets_its_mongodb_is_refused(tmp_path: Path, url: str) -> None:
    migrated(tmp_path / "data", MONGODB_URL=url)
    assert "documents of this database are in MongoDB" in refused_by(tmp_path / "data")
    found = told_by_doctor(tmp_path / "data")
    assert not found["ok"]
    assert "name it in EASYML_MONGODB_URL" in found["sentence"]


def test_a_mongodb_without_the_documents_is_refused_until_somebody_says_they_are_lost(
    tmp_path: Path, mongo: MongoServer, url: str
) -> None:
    data = tmp_path / "data"
    migrated(data, MONGODB_URL=url)
    other = mongo.database_url(mongo.new_name())
    said = refused_by(data, MONGODB_URL=other, MIGRATE_AT_START="true")
    assert "is empty, and the documents are in another one" in said
    found = told_by_doctor(data, MONGODB_URL=other)
    assert not found["ok"]
    assert found["sentence"] in said
    with mongo.client() as client:
        assert name_in(other) not in client.list_database_names()
        # As the sentence says.
        identity = UUID(re.findall(r"UUID\('(.*)'\)", said)[0])
        client[name_in(other)]["easyml_store"].insert_one({"_id": "easyml", "identity": identity, "layout": 0})
    migrated(data, MONGODB_URL=other)
    assert told_by_doctor(data, MONGODB_URL=other)["ok"]


def test_an_old_mongodb_is_one_line(tmp_path: Path) -> None:
    with old_mongodb() as port:
        url = f"mongodb://127.0.0.1:{port}/easyml"
        assert "MongoDB 4.4 or newer" in refused_by(tmp_path / "data", MONGODB_URL=url, MIGRATE_AT_START="true")


# Users.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A MongoDB that asks who is there; its users are made while it does not yet."""
    storage = tmp_path_factory.mktemp("guarded")
    open_server = local_server(storage).start()
    with open_server.client() as client:
        for user, role in (("writer", "readWrite"), ("reader", "read")):
            roles = [
                {"role": role, "db": "easyml"},
                *([{"role": "dbAdmin", "db": "easyml"}] if user == "writer" else []),
            ]
            client["admin"].command("createUser", user, pwd=PASSWORD, roles=roles)
    open_server.stop()
    # The driver of the tests is no user, and cannot ask whether it is up: the port can.
    closed = local_server(storage, "--auth")
    closed.start()
    yield closed
    closed.stop()


def url_for(server: MongoServer, user: str, password: str) -> str:
    host, port = server.address
    return f"mongodb://{user}:{quote(password, safe='')}@{host}:{port}/easyml?authSource=admin"


def test_users_of_mongodb(tmp_path: Path, guarded: MongoServer) -> None:
    data = tmp_path / "data"
    wrong = refused_by(data, MONGODB_URL=url_for(guarded, "writer", "secret"), MIGRATE_AT_START="true")
    assert "refuses the user or the password" in wrong
    log_of(data).unlink()
    powerless = refused_by(data, MONGODB_URL=url_for(guarded, "reader", PASSWORD), MIGRATE_AT_START="true")
    assert "grant readWrite and dbAdmin" in powerless
    log_of(data).unlink()
    # A password of reserved characters, percent-encoded as the sentence says.
    good = url_for(guarded, "writer", PASSWORD)
    with (
        serving(data, MONGODB_URL=good, MIGRATE_AT_START="true", LOG_LEVEL="debug") as server,
        Client(server.address, server.key) as client,
    ):
        project_id = a_project_of(client)
        wait_until_applied(server.data)
        assert client.projects.GetProjectConfig(config_of(project_id)).config.project_id == project_id
    said = log_of(data).read_text()
    assert PASSWORD not in said
    assert quote(PASSWORD, safe="") not in said
    log_of(data).unlink()
    # One who may read only is told at the start, not by the first document.
    assert "grant readWrite" in refused_by(data, MONGODB_URL=url_for(guarded, "reader", PASSWORD))


# From a laptop to MongoDB.


def test_documents_of_a_laptop_move_to_mongodb(tmp_path: Path, mongo: MongoServer, url: str) -> None:
    data = tmp_path / "data"
    with serving(data) as server, Client(server.address, server.key) as client:
        project_id, experiment_id, _ = trained(client)
        before = client.projects.GetProjectConfig(config_of(project_id)).config
    assert migrated(data, MONGODB_URL=url) == "The database was migrated.\n"
    assert migrated(data, MONGODB_URL=url) == "The database is up to date.\n"
    assert waiting(data) > 0
    with serving(data, MONGODB_URL=url) as server, Client(server.address, server.key) as client:
        assert client.projects.GetProjectConfig(config_of(project_id)).config == before
        wait_until_applied(data)
        assert client.projects.GetProjectConfig(config_of(project_id)).config == before
        assert health_of(client, "documents") == SERVING
    assert stored(mongo, url, "model_sessions", experiment_id)["state"] == "succeeded"


def test_postgresql_and_mongodb_together(tmp_path: Path, mongo: MongoServer, url: str) -> None:
    with postgresql(tmp_path / "postgresql") as postgres:
        database = postgres.database_url(asyncio.run(postgres.create_database()))
        both = {"DATABASE_URL": database, "MONGODB_URL": url}
        assert migrated(tmp_path / "data", **both) == "The database was migrated.\n"
        with serving(tmp_path / "data", **both) as server, Client(server.address, server.key) as client:
            project_id, experiment_id, _ = trained(client)
            assert client.projects.GetProjectConfig(config_of(project_id)).config.project_id == project_id
        # What could be applied in the time of a drain was.
        assert stored(mongo, url, "model_sessions", experiment_id)["state"] == "succeeded"


def test_two_migrations_at_once_migrate_once(tmp_path: Path, url: str) -> None:
    with postgresql(tmp_path / "postgresql") as postgres:
        database = postgres.database_url(asyncio.run(postgres.create_database()))
        settings = environment({"DATABASE_URL": database, "MONGODB_URL": url})
        both = [
            subprocess.Popen(
                [sys.executable, "-m", "easyml_server", "migrate", "--data-dir", str(tmp_path / name)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=settings,
            )
            for name in ("one", "two")
        ]
        said = [(*process.communicate(timeout=60), process.returncode) for process in both]
    assert [each[1:] for each in said] == [("", 0), ("", 0)]


def told_by_doctor(data: Path, **settings: str) -> dict[str, Any]:
    """The finding about documents."""
    return told(data, **settings)["documents"]


def test_doctor_looks_at_mongodb_too(tmp_path: Path, url: str) -> None:
    data = tmp_path / "data"
    assert "easyml-server migrate" in told_by_doctor(data, MONGODB_URL=url)["sentence"]
    migrated(data, MONGODB_URL=url)
    fine = told_by_doctor(data, MONGODB_URL=url)
    assert fine["ok"]
    assert "0 wait" in fine["sentence"]
    away = told_by_doctor(data, MONGODB_URL="mongodb://u:secret@127.0.0.1:1/d")
    assert not away["ok"]
    assert "cannot be reached" in away["sentence"]
    assert "secret" not in away["sentence"]


def test_doctor_sends_to_the_database_first_if_that_is_not_in_order(tmp_path: Path, url: str) -> None:
    with postgresql(tmp_path / "postgresql") as postgres:
        empty = postgres.database_url(asyncio.run(postgres.create_database()))
        found = told_by_doctor(tmp_path / "data", DATABASE_URL=empty, MONGODB_URL=url)
    assert not found["ok"]
    assert "database is in order" in found["sentence"]


def migrated(data: Path, **settings: str) -> str:
    """What `easyml-server migrate` says."""
    command = [sys.executable, "-m", "easyml_server", "migrate", "--data-dir", str(data)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(settings))
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout


def name_in(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


# An old MongoDB: it says hello in its way, and nobody asks it for more.


@contextmanager
def old_mongodb() -> Iterator[int]:
    """A server that says it is MongoDB 3.6; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_each(listener, _say_hello), daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _each(listener: socket.socket, answer: Callable[[socket.socket], None]) -> Callable[[], None]:
    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    return accept


def _say_hello(connection: socket.socket) -> None:
    hello = {"ok": 1.0, "ismaster": True, "minWireVersion": 0, "maxWireVersion": 6, "maxBsonObjectSize": 16777216}
    with connection, suppress(OSError):
        while header := connection.recv(16, socket.MSG_WAITALL):
            length, request, _, code = struct.unpack("<iiii", header)
            connection.recv(length - 16, socket.MSG_WAITALL)
            legacy = code == OP_QUERY
            before: Sequence[bytes] = [struct.pack("<iqii", 8, 0, 0, 1)] if legacy else [struct.pack("<IB", 0, 0)]
            content = b"".join([*before, bson.encode(hello)])
            kind = OP_REPLY if legacy else OP_MSG
            connection.sendall(struct.pack("<iiii", 16 + len(content), request, request, kind) + content)
