"""Projects, their members and configuration."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from easyml.v1 import project_pb2
from easyml_client.resources.base import Resource


class Project(Resource[project_pb2.Project]):
    """Owns datasets, experiments and models; `role` is the caller's: "viewer", "editor" or "owner"."""

    id: str
    name: str
    description: str
    labels: Mapping[str, str]
    role: str | None
    creator_id: str
    create_time: dt.datetime
    update_time: dt.datetime
    etag: str


class StorageConfig(Resource[project_pb2.StorageConfig]):
    """Limits of stored bytes; `max_bytes` 0 is the server's limit."""

    max_bytes: int
    keep_original_files: bool | None


class ProjectConfig(Resource[project_pb2.ProjectConfig]):
    """What trainings and storage of a project start from; `visibility` is "private" or "internal"."""

    project_id: str
    default_hyperparameters: Mapping[str, Mapping[str, Any]]
    mlflow_experiment: str
    storage: StorageConfig | None
    visibility: str | None
    update_time: dt.datetime | None
    etag: str


class ProjectMember(Resource[project_pb2.ProjectMember]):
    """A user's role in a project."""

    user_id: str
    email: str
    display_name: str
    role: str | None
    create_time: dt.datetime


class DeletedResources(Resource[project_pb2.DeletedResources]):
    """What a delete removed, or would remove."""

    projects: int
    datasets: int
    experiments: int
    models: int
    model_versions: int
    bytes_freed: int

    @classmethod
    def total(cls, several: Iterable[DeletedResources]) -> DeletedResources:
        """What several deletes removed together."""
        total = project_pb2.DeletedResources()
        for each in several:
            for field in total.DESCRIPTOR.fields:
                setattr(total, field.name, getattr(total, field.name) + getattr(each, field.name))
        return cls.of(total)
