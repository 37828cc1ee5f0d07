"""Two servers on one durable PostgreSQL, one MongoDB and one folder, with a proxy on each link that can be cut."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import psutil  # type: ignore[import-untyped]  # it ships no types

from tests.integration.replicas import Replicas, works_in
from tests.mongodb import MongoServer, mongodb
from tests.postgresql import SETTINGS, USER, PostgresServer, find_binaries, initialize, start, stop
from tests.proxy import Proxy, proxy
from tests.servers import ServerProcess, eventually, free_port

DATABASE = "soak"
LEASE_SECONDS = 5.0
RESTART_SECONDS = 60.0


class MortalPostgres:
    """A PostgreSQL that loses nothing when it is killed, on a port, since links to sockets cannot be cut."""

    def __init__(self, data: Path) -> None:
        # Paths of sockets are short.
        self._sockets = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = data
        self.port = free_port()
        # It ends with the thread that started it, so that has to be one that stays.
        self._starter = ThreadPoolExecutor(1)
        initialize(find_binaries(), data)
        self._server = self._started()

    def url(self, database: str, port: int | None = None) -> str:
        """Of a database, directly or by way of a proxy."""
        return f"postgresql://{USER}@127.0.0.1:{port or self.port}/{database}"

    def kill_and_start(self) -> None:
        """SIGKILL, and back."""
        assert self._server.process is not None
        self._server.process.send_signal(signal.SIGKILL)
        stop(self._server)
        # Those that served somebody notice the death a moment later, and keep the memory till then.
        self._server = eventually(self._restarted, RESTART_SECONDS)

    def close(self) -> None:
        """End it."""
        stop(self._server)
        self._starter.shutdown()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _restarted(self) -> PostgresServer | None:
        with suppress(RuntimeError):
            return self._started()
        return None

    def _started(self) -> PostgresServer:
        settings = {**SETTINGS, "listen_addresses": "127.0.0.1", "port": str(self.port)}
        return self._starter.submit(start, find_binaries(), self._data, self._sockets, settings).result()


@dataclass
class Stage:
    """Everything that runs."""

    postgres: MortalPostgres
    mongo: MongoServer
    mongo_database: str
    mongo_link: Proxy
    replicas: Replicas
    database_links: Sequence[Proxy]
    """Of each server."""

    @property
    def servers(self) -> Sequence[ServerProcess]:
        """Both."""
        return self.replicas.servers

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of both."""
        return tuple(server.address for server in self.servers)

    @property
    def files(self) -> Path:
        """What they share."""
        return self.replicas.files

    def execute(self, statement: str) -> Sequence[Any]:
        """Ask the database itself."""
        return self.replicas.execute(statement)

    def workers(self) -> list[Any]:
        """Processes that train; converters work there too, but under limits."""
        family = [process for server in self.servers if server.process is not None for process in server.family()[1:]]
        return [
            process
            for process in family
            if works_in(process, self.files / "work") and process.rlimit(psutil.RLIMIT_FSIZE)[0] == psutil.RLIM_INFINITY
        ]

    def stop_servers(self) -> list[int]:
        """One after the other; their exit codes."""
        return [server.stop() for server in self.servers if server.process is not None]


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """All of it for a while, in two folders: `databases`, and `servers` for what EasyML has."""
    databases, servers = folder / "databases", folder / "servers"
    for each in (databases, servers):
        each.mkdir(mode=0o700)
    with ExitStack() as stack:
        postgres = MortalPostgres(databases / "postgresql")
        stack.callback(postgres.close)
        asyncio.run(_make_database(postgres))
        mongo = stack.enter_context(mongodb(databases / "mongodb", mortal=True))
        mongo_link = stack.enter_context(proxy(*mongo.address))
        links = [stack.enter_context(proxy("127.0.0.1", postgres.port)) for _ in range(2)]
        found = Replicas(servers, postgres.url(DATABASE))
        stage = Stage(postgres, mongo, mongo.new_name(), mongo_link, found, links)
        stack.enter_context(_temporary_files_in(servers / "tmp"))
        stack.callback(_end, stage)
        for link in links:
            found.start(
                DATABASE_URL=postgres.url(DATABASE, link.port),
                MONGODB_URL=mongo.through(mongo_link).database_url(stage.mongo_database),
                LEASE_SECONDS=str(LEASE_SECONDS),
            )
        yield stage


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Of whatever is started meanwhile, where the checker looks."""
    folder.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


async def _make_database(postgres: MortalPostgres) -> None:
    connection = await asyncpg.connect(postgres.url("postgres"))
    try:
        await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()


def _end(stage: Stage) -> None:
    for link in (*stage.database_links, stage.mongo_link):
        link.up()
    for server in stage.servers:
        if server.process is not None:
            server.running.send_signal(signal.SIGCONT)
    stage.stop_servers()
