"""Calls that wait for PostgreSQL's locks, or for a connection: made again, a few times, and never without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from easyml.v1 import auth_service_pb2, project_service_pb2
from easyml_server.transport.collisions import PAUSES
from tests.builders import PASSWORD, a_project_of, a_training, upload
from tests.postgresql import PostgresServer, postgresql
from tests.servers import END_SECONDS, Client, ServerProcess, eventually, log_of, refusal, refusal_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONNECTIONS = 3
CROWD = 12
LOCK_SECONDS = 4.0
SERVERS = "FROM pg_stat_activity WHERE application_name = 'easyml-server' AND datname = current_database()"
WAITING = f"SELECT count(*) {SERVERS} AND wait_event_type = 'Lock'"
TRIED = """
CREATE SEQUENCE tries;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM nextval('tries');
  RAISE EXCEPTION 'in the way' USING ERRCODE = '{code}';
END $$;
CREATE TRIGGER refuse BEFORE {what} FOR EACH ROW EXECUTE FUNCTION refuse();
"""
"""A sequence counts what is rolled back, too."""


@dataclass
class Bench:
    """A server with few connections, and its database."""

    server: ServerProcess
    client: Client
    url: str
    project_id: str

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Of somebody else, who never gives in to a deadlock."""
        connection = await asyncpg.connect(self.url, server_settings={"deadlock_timeout": "1h"})
        try:
            yield connection
        finally:
            await connection.close()

    def repeats(self) -> int:
        return log_of(self.server.data).read_text().count("call_repeated")

    def rename(self, name: str, **options: Any) -> Any:
        request = project_service_pb2.UpdateProjectRequest(project_id=self.project_id, name=name)
        request.update_mask.paths.append("name")
        return self.client.projects.UpdateProject(request, **options).project

    def get(self, **options: Any) -> Any:
        request = project_service_pb2.GetProjectRequest(project_id=self.project_id)
        return self.client.projects.GetProject(request, **options).project


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def serving_few(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[tuple[Any, str]]:
    name = asyncio.run(postgres.create_database())
    url = postgres.database_url(name)
    settings = {
        "DATABASE_URL": url,
        "MIGRATE_AT_START": "true",
        "DATABASE_CONNECTIONS": str(CONNECTIONS),
        "DATABASE_WAIT_SECONDS": "1",
        "DATABASE_LOCK_SECONDS": str(LOCK_SECONDS),
        "OPEN_REGISTRATION": "true",
        "LOG_LEVEL": "info",
    }
    with serving(tmp_path_factory.mktemp("server") / "data", **settings) as server:
        yield server, url
    asyncio.run(postgres.drop_database(name))


def unless_unavailable(client: Client) -> str | None:
    """A project. The test before may have ended connections of which the server has not heard yet."""
    try:
        return a_project_of(client)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return None


@pytest.fixture
def bench(serving_few: tuple[Any, str]) -> Iterator[Bench]:
    server, url = serving_few
    with Client(server.address, server.key) as client:
        yield Bench(server, client, url, eventually(lambda: unless_unavailable(client)))


async def until(connection: asyncpg.Connection, statement: str, wanted: Callable[[int], bool]) -> None:
    async with asyncio.timeout(END_SECONDS):
        while not wanted(await connection.fetchval(statement)):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)


async def test_a_call_that_lost_a_deadlock_is_made_again(bench: Bench) -> None:
    dataset_id = await asyncio.to_thread(lambda: upload(bench.client, bench.project_id).id)
    request = a_training(bench.project_id, dataset_id, request_id=str(uuid4()))
    before = bench.repeats()
    async with bench.connection() as other, bench.connection() as looking:
        # In the other order than the call does.
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT 1 FROM datasets WHERE id = $1 FOR UPDATE", dataset_id)
        starting = asyncio.create_task(asyncio.to_thread(bench.client.trainings.StartTraining, request))
        await until(looking, WAITING, lambda waiting: waiting == 1)
        await other.execute("SELECT 1 FROM projects WHERE id = $1 FOR UPDATE", bench.project_id)
        await transaction.commit()
        started = (await starting).experiment.id
        count = "SELECT count(*) FROM ml_experiments WHERE project_id = $1"
        assert await looking.fetchval(count, bench.project_id) == 1
    assert bench.repeats() == before + 1
    assert bench.client.trainings.StartTraining(request).experiment.id == started


@pytest.fixture
async def snapshots(bench: Bench) -> AsyncIterator[None]:
    """Transactions that see one moment: they are refused what somebody changed since."""
    again = f"SELECT pg_terminate_backend(pid) {SERVERS}"
    async with bench.connection() as other:
        name = await other.fetchval("SELECT current_database()")
        await other.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
        await other.execute(again)
        # Whoever looks first meets the connections that have just ended.
        await until(other, f"SELECT count(*) {SERVERS}", lambda left: left == 0)
        yield
        await other.execute(f"ALTER DATABASE {name} RESET default_transaction_isolation")
        await other.execute(again)


@pytest.mark.usefixtures("snapshots")
async def test_a_call_whose_rows_were_changed_meanwhile_is_made_again(bench: Bench) -> None:
    before = bench.repeats()
    async with bench.connection() as other, bench.connection() as looking:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE projects SET description = 'changed' WHERE id = $1", bench.project_id)
        renaming = asyncio.create_task(asyncio.to_thread(bench.rename, f"renamed-{uuid4()}"))
        await until(looking, WAITING, lambda waiting: waiting == 1)
        await transaction.commit()
        renamed = await renaming
    assert bench.repeats() == before + 1
    assert renamed.description == "changed"
    assert renamed == await asyncio.to_thread(bench.get)


@asynccontextmanager
async def refusing(bench: Bench, code: str, what: str) -> AsyncIterator[asyncpg.Connection]:
    """A table that refuses as PostgreSQL does, always."""
    async with bench.connection() as other:
        await other.execute(TRIED.format(code=code, what=what))
        try:
            yield other
        finally:
            await other.execute("DROP FUNCTION refuse CASCADE; DROP SEQUENCE tries")


@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_a_call_that_is_always_in_the_way_is_told_so_after_some_tries(bench: Bench, code: str) -> None:
    name = f"another-{uuid4()}"
    async with refusing(bench, code, "UPDATE ON projects") as other:
        refused = await asyncio.to_thread(refusal, bench.rename, name)
        assert await other.fetchval("SELECT last_value FROM tries") == len(PAUSES) + 1
    assert refused.short == ("UNAVAILABLE", "PART_UNAVAILABLE")
    assert refused.metadata == {"part": "database"}
    assert refused.retry_seconds
    assert "nothing was changed" in refused.message
    assert bench.rename(name).name == name


async def test_a_call_that_has_stored_something_is_not_made_again(bench: Bench) -> None:
    # It counts attempts before it makes the account.
    request = auth_service_pb2.RegisterRequest(email=f"{uuid4()}@example.org", password=PASSWORD)
    async with refusing(bench, "40P01", "INSERT ON users") as other:
        with Client(bench.server.address) as anonymous:
            refused = await asyncio.to_thread(refusal, anonymous.auth.Register, request)
        assert await other.fetchval("SELECT last_value FROM tries") == 1
    assert refused.short == ("UNAVAILABLE", "PART_UNAVAILABLE")


def answered(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """OK, or how it was refused; only as it may be."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        refused = refusal_of(error)
        if refused.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
            assert refused.reason in ("OVERLOADED", "PART_UNAVAILABLE"), refused
            assert refused.retry_seconds, refused
        return refused.code.name
    return "OK"


async def test_more_calls_than_connections_all_end_and_leave_the_pool_whole(bench: Bench) -> None:
    def crowd(name: str, timeout: float) -> list[asyncio.Task[str]]:
        return [
            asyncio.create_task(asyncio.to_thread(answered, bench.rename, f"{name} {number}", timeout=timeout))
            for number in range(CROWD)
        ]

    async with bench.connection() as other, bench.connection() as looking:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT 1 FROM projects WHERE id = $1 FOR UPDATE", bench.project_id)
        # Some have no time for the lock, and the others none that a lock is waited for.
        hurried, patient = crowd("hurried", LOCK_SECONDS / 3), crowd("patient", 5 * LOCK_SECONDS)
        found = {*await asyncio.gather(*hurried), *await asyncio.gather(*patient)}
        assert found <= {"RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
        assert "RESOURCE_EXHAUSTED" in found
        assert "UNAVAILABLE" in found
        await until(looking, f"SELECT count(*) {SERVERS} AND state <> 'idle'", lambda busy: busy == 0)
        assert await looking.fetchval(f"SELECT count(*) {SERVERS}") <= CONNECTIONS
        await transaction.commit()
        assert (
            await asyncio.gather(
                *(asyncio.to_thread(answered, bench.rename, f"after {number}") for number in range(CONNECTIONS))
            )
            == ["OK"] * CONNECTIONS
        )
