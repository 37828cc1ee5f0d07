"""What tests look at from outside: the outbox, MongoDB's collections, and the health of documents."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

from grpc_health.v1 import health_pb2, health_pb2_grpc

from easyml.v1 import project_service_pb2, training_service_pb2
from tests.builders import a_project_of, a_training, upload
from tests.mongodb import MongoServer
from tests.servers import Client, eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def waiting(data: Path) -> int:
    """How many documents wait in an embedded database."""
    with closing(sqlite3.connect(f"file:{data / 'easyml.db'}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM pending_documents").fetchone()[0])


def wait_until_applied(data: Path) -> None:
    """Return when nothing waits."""
    eventually(lambda: waiting(data) == 0, 60)


def stored(mongo: MongoServer, url: str, collection: str, identity: str) -> Any:
    """The body of a document in MongoDB; None if it is deleted or was never there."""
    with mongo.client() as client:
        found = client[url.partition("?")[0].rpartition("/")[2]][collection].find_one({"_id": UUID(identity)})
    return None if found is None else found["body"]


def health_of(client: Client, service: str) -> int:
    """What the health service says."""
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health_pb2_grpc.HealthStub(client.channel).Check(request, timeout=10).status)


def started(client: Client, project_id: str, dataset_id: str, **changes: Any) -> str:
    """Start a training; its id."""
    return str(client.trainings.StartTraining(a_training(project_id, dataset_id, **changes)).experiment.id)


def followed(client: Client, experiment_id: str) -> str:
    """Watch a training to its end; its model version."""
    request = training_service_pb2.WatchTrainingRequest(experiment_id=experiment_id)
    events = [answer.event for answer in client.trainings.WatchTraining(request) if answer.HasField("event")]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return str(events[-1].finished.model_version_id)


def trained(client: Client) -> tuple[str, str, str]:
    """A project with a trained model; project, experiment, model version."""
    project_id = a_project_of(client)
    experiment_id = started(client, project_id, upload(client, project_id).id)
    return project_id, experiment_id, followed(client, experiment_id)


def config_of(project_id: str) -> project_service_pb2.GetProjectConfigRequest:
    """A read that needs a document."""
    return project_service_pb2.GetProjectConfigRequest(project_id=project_id)
