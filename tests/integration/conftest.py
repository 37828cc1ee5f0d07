"""Servers that the tests of a file share; a MongoDB and an MLflow for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.secure import AUTHORITY, GOOD, Secure, certificate_of, presented, settings_of
from tests.mlflow import MlflowServer, mlflow_server
from tests.mongodb import MongoServer, mongodb
from tests.servers import serving


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A server with a good certificate; tests that exchange it put it back."""
    folder = tmp_path_factory.mktemp("tls")
    with serving(folder / "data", **settings_of(folder / "tls", GOOD), HANDSHAKE_SECONDS="1") as server:
        yield Secure(server, folder / "tls")


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A server that asks clients for a certificate."""
    folder = tmp_path_factory.mktemp("mutual")
    with serving(folder / "data", **settings_of(folder / "tls", GOOD, AUTHORITY)) as server:
        yield Secure(server, folder / "tls")


@pytest.fixture
def spoilt(tmp_path: Path, secure: Secure) -> Iterator[Secure]:
    """The server with other certificates for a while."""
    yield secure
    secure.install(GOOD)
    assert presented(secure.address) == certificate_of(GOOD)


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


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One MLflow tracking server for the session."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
