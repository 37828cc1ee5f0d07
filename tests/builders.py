"""Things to test with: tables, requests, and rows of the domain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from easyml.v1 import auth_service_pb2 as auth_pb
from easyml.v1 import dataset_pb2, dataset_service_pb2, experiment_pb2, project_service_pb2, training_service_pb2
from easyml_server.domain.projects import Project, ProjectConfig, Role
from easyml_server.domain.users import User
from tests.servers import Client

PASSWORD = "a long enough password"
TIME = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def a_table(rows: int = 60) -> bytes:
    """A CSV with two features and a target of two classes that they tell."""
    lines = ["x,z,y"]
    lines += [f"{number % 7 + number / 1000:.3f},{number * 13 % 11},{'ab'[number % 7 > 3]}" for number in range(rows)]
    return ("\n".join(lines) + "\n").encode()


def a_header(project_id: str, content: bytes, **changes: Any) -> dataset_service_pb2.UploadHeader:
    """The header of an upload of `content`."""
    values: dict[str, Any] = {
        "project_id": project_id,
        "name": f"table-{uuid4()}",
        "filename": "table.csv",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return dataset_service_pb2.UploadHeader(**{**values, **changes})


def an_upload(
    header: dataset_service_pb2.UploadHeader, content: bytes, chunk: int = 64 * 1024
) -> Iterator[dataset_service_pb2.UploadDatasetRequest]:
    """The messages of one call, from the header's offset on."""
    yield dataset_service_pb2.UploadDatasetRequest(header=header)
    for start in range(header.offset, len(content), chunk):
        yield dataset_service_pb2.UploadDatasetRequest(chunk=content[start : start + chunk])


def upload(client: Client, project_id: str, content: bytes | None = None, **header: Any) -> dataset_pb2.Dataset:
    """Upload a table."""
    content = a_table() if content is None else content
    answer = client.datasets.UploadDataset(an_upload(a_header(project_id, content, **header), content))
    dataset: dataset_pb2.Dataset = answer.dataset
    return dataset


def a_project_of(client: Client, name: str | None = None) -> str:
    """Make a project; its id."""
    request = project_service_pb2.CreateProjectRequest(name=name or f"project-{uuid4()}")
    return str(client.projects.CreateProject(request).project.id)


def a_training(project_id: str, dataset_id: str, **changes: Any) -> training_service_pb2.StartTrainingRequest:
    """A request for a short training."""
    outer = {name: changes.pop(name) for name in ("request_id", "name", "labels", "validate_only") if name in changes}
    spec: dict[str, Any] = {"dataset_id": dataset_id, "target": "y", "algorithm": "gaussian_nb", "random_seed": 1}
    return training_service_pb2.StartTrainingRequest(
        project_id=project_id, spec=experiment_pb2.TrainingSpec(**{**spec, **changes}), **outer
    )


def a_long_training(project_id: str, dataset_id: str, **changes: Any) -> training_service_pb2.StartTrainingRequest:
    """A request for a training that does not end by itself in the time of a test, and reports all along."""
    request = a_training(project_id, dataset_id, algorithm="random_forest", **changes)
    request.spec.hyperparameters.update({"n_estimators": 10_000})
    request.spec.cross_validation.folds = 20
    return request


def register(anonymous: Client, name: str | None = None) -> auth_pb.RegisterResponse:
    """Make an account."""
    email = f"{name or uuid4()}@example.org"
    answer: auth_pb.RegisterResponse = anonymous.auth.Register(auth_pb.RegisterRequest(email=email, password=PASSWORD))
    return answer


def a_user(**changes: Any) -> User:
    """A row of the domain."""
    identity = uuid4()
    values: dict[str, Any] = {
        "id": identity,
        "email": f"{identity}@example.org",
        "display_name": "Somebody",
        "administrator": False,
        "password_hash": None,
        "create_time": TIME,
        "update_time": TIME,
    }
    return User(**{**values, **changes})


def a_project(creator_id: UUID, **changes: Any) -> Project:
    """A row of the domain."""
    values: dict[str, Any] = {
        "id": uuid4(),
        "name": f"project-{uuid4()}",
        "description": "",
        "labels": {},
        "creator_id": creator_id,
        "create_time": TIME,
        "update_time": TIME,
        "etag": uuid4().hex,
        "role": Role.OWNER,
    }
    return Project(**{**values, **changes})


def a_config(project: Project) -> ProjectConfig:
    """The configuration a new project has."""
    return ProjectConfig(project.id, update_time=project.create_time, etag=uuid4().hex)
