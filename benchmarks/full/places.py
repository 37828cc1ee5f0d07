"""PostgreSQL and MongoDB of a measurement's own, durable as in use, and servers on them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

from tests.mongodb import MongoServer, mongodb
from tests.postgresql import PostgresServer, postgresql


@dataclass
class Places:
    """Where rows, documents and files of a measurement lie."""

    folder: Path
    postgres: PostgresServer
    mongo: MongoServer | None
    stack: ExitStack
    numbers: Iterator[int]

    def database(self) -> str:
        """The URL of a new database."""
        return self.postgres.database_url(asyncio.run(self.postgres.create_database()))

    def documents(self) -> str:
        """The URL of a new database of documents."""
        if self.mongo is None:
            self.mongo = self.stack.enter_context(mongodb(self.folder / "mongodb", mortal=True))
        return self.mongo.database_url(self.mongo.new_name())

    def data(self) -> Path:
        """A new data folder."""
        return self.folder / f"data{next(self.numbers)}"


@contextmanager
def places() -> Iterator[Places]:
    """PostgreSQL with fsync; MongoDB when it is asked for."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(postgresql(folder / "postgresql", durable=True))
        yield Places(folder, postgres, None, stack, count())


def execute(url: str, *statements: tuple[Any, ...]) -> None:
    """Statements, each with its values, one after the other."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement, *values in statements:
                await connection.execute(statement, *values)
        finally:
            await connection.close()

    asyncio.run(run())
