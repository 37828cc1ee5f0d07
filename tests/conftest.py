"""What tests of several folders share: a store in a copy of a migrated file, and a real server for a whole session."""

from __future__ import annotations

import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from easyml.v1 import auth_service_pb2, deployment_pb2, deployment_service_pb2, permission_pb2, user_pb2
from easyml_server.repositories.sql.migrate import migrate_sqlite
from easyml_server.repositories.sql.store import SqlStore, open_sqlite
from tests.builders import a_project_of, a_training, register, upload
from tests.servers import Client, ServerProcess, serving

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster

# Whoever starts the tests in the background (`make test &`, nohup) has them and their children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something of the machine.
settings.register_profile("any_machine", settings.default, deadline=None)
settings.load_profile("any_machine")

SIGNED_IN_MINUTES = 600
"""Of users of the shared server: longer than any session of tests."""


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of this release's schema, to copy."""
    path = tmp_path_factory.mktemp("template") / "easyml.db"
    migrate_sqlite(path)
    return path


@pytest.fixture
async def store(migrated_database: Path, tmp_path: Path) -> AsyncIterator[SqlStore]:
    """A store of its own for each test; a file, since there is no WAL in memory."""
    path = tmp_path / "easyml.db"
    shutil.copy(migrated_database, path)
    store = open_sqlite(str(path))
    yield store
    await store.close()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for a whole session; tests make projects of their own."""
    folder = tmp_path_factory.mktemp("shared") / "data"
    # Room for what the tests of a session leave unfinished, and users who stay signed in through all of it.
    room = {
        "LOGINS_PER_MINUTE_PER_ADDRESS": "1000",
        "MAX_UPLOADS": "1000",
        "MAX_UPLOADS_PER_USER": "1000",
        "ACCESS_TOKEN_MINUTES": str(SIGNED_IN_MINUTES),
    }
    with serving(folder, OPEN_REGISTRATION="true", **room) as server:
        yield server


@pytest.fixture(scope="session")
def anonymous(shared_server: ServerProcess) -> Iterator[Client]:
    """Nobody."""
    with Client(shared_server.address) as client:
        yield client


@pytest.fixture(scope="session")
def owner(shared_server: ServerProcess) -> Iterator[Client]:
    """The local owner, an administrator."""
    with Client(shared_server.address, shared_server.key) as client:
        yield client


@pytest.fixture(scope="session")
def other(shared_server: ServerProcess, anonymous: Client) -> Iterator[Client]:
    """A user who is a member of nothing."""
    with Client(shared_server.address, register(anonymous).session.access_token) as client:
        yield client


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One Kubernetes for a whole session, whose pods are processes or fake; tests make namespaces of their own."""
    # Imported by those alone who ask for it: the libraries of Kubernetes take a second.
    from tests.kubernetes.cluster import running_cluster
    from tests.kubernetes.control_plane import running_control_plane

    with running_control_plane(tmp_path_factory.mktemp("kubernetes")) as plane, running_cluster(plane) as cluster:
        yield cluster


@pytest.fixture
def project_id(owner: Client) -> str:
    """A project of the owner's for one test."""
    return a_project_of(owner)


@dataclass(frozen=True)
class World:
    """A project of the owner's with one of everything, which tests only read."""

    project_id: str
    dataset_id: str
    upload_id: str
    experiment_id: str
    model_name: str
    model_version_id: str
    deployment_id: str
    deployment_name: str
    viewer: Client
    editor: Client


@pytest.fixture(scope="session")
def world(owner: Client) -> Iterator[World]:
    """One of everything."""
    from uuid import uuid4

    from easyml.v1 import training_service_pb2 as trainings

    project_id, upload_id = a_project_of(owner, "world"), str(uuid4())
    dataset = upload(owner, project_id, upload_id=upload_id)
    started = owner.trainings.StartTraining(a_training(project_id, dataset.id, model_name="answers"))
    experiment_id = started.experiment.id
    list(owner.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=experiment_id)))
    ended = owner.trainings.GetExperiment(trainings.GetExperimentRequest(experiment_id=experiment_id)).experiment
    deployment_id = a_stopped_deployment(owner, project_id, ended.model_version_id, "birds")
    with (
        a_key(owner, permission_pb2.PERMISSION_VIEWER) as viewer,
        a_key(owner, permission_pb2.PERMISSION_EDITOR) as editor,
    ):
        yield World(
            project_id, dataset.id, upload_id, experiment_id, "answers", ended.model_version_id, deployment_id, "birds",
            viewer, editor,
        )  # fmt: skip


def a_stopped_deployment(client: Client, project_id: str, version_id: str, name: str) -> str:
    """Of which nothing runs; its id."""
    version = deployment_service_pb2.ModelVersionTarget(model_version_id=version_id)
    request = deployment_service_pb2.CreateDeploymentRequest(project_id=project_id, name=name, model_version=version)
    deployment_id = str(client.deployments.CreateDeployment(request).deployment.id)
    client.deployments.StopDeployment(deployment_service_pb2.StopDeploymentRequest(deployment_id=deployment_id))
    watch = deployment_service_pb2.WatchDeploymentRequest(deployment_id=deployment_id)
    for said in client.deployments.WatchDeployment(watch):
        if said.deployment.state == deployment_pb2.DEPLOYMENT_STATE_STOPPED:
            break
    return deployment_id


def a_key(client: Client, permission: int, project_id: str = "") -> Client:
    """A caller with an API key of this scope."""
    scope = user_pb2.ApiKeyScope(project_id=project_id, permission=permission)  # type: ignore[arg-type]  # an enum's number
    request = auth_service_pb2.CreateApiKeyRequest(name="test", scope=scope)
    return Client(client.address, client.auth.CreateApiKey(request).secret)
