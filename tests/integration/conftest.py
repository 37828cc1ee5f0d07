"""A MongoDB that runs as long as the session, with a database of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mongodb import MongoServer, mongodb


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """One MongoDB for the session."""
    with mongodb(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


@pytest.fixture
def url(mongo: MongoServer) -> Iterator[str]:
    """A database of its own for each test."""
    name = mongo.new_name()
    yield mongo.database_url(name)
    mongo.drop(name)
