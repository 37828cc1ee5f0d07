"""Projects, their members and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from easyml_server.domain.users import Permission


class Role(StrEnum):
    """What a member may do; names as in the contract."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"

    @property
    def permission(self) -> Permission:
        """The permission that the role gives."""
        return Permission[self.name]


class Visibility(StrEnum):
    """Who can see a project; names as in the contract."""

    PRIVATE = "private"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Project:
    """Owns datasets, experiments and models. `role` is the role of the caller it was read for."""

    id: UUID
    name: str
    description: str
    labels: Mapping[str, str]
    creator_id: UUID
    create_time: datetime
    update_time: datetime
    etag: str
    visibility: Visibility = Visibility.PRIVATE
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """What trainings and storage of a project start from."""

    project_id: UUID
    default_hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mlflow_experiment: str = ""
    storage_max_bytes: int = 0
    keep_original_files: bool = True
    visibility: Visibility = Visibility.PRIVATE
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A user's role in a project."""

    project_id: UUID
    user_id: UUID
    email: str
    display_name: str
    role: Role
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete removed, or would remove."""

    projects: int = 0
    datasets: int = 0
    experiments: int = 0
    models: int = 0
    model_versions: int = 0
    bytes_freed: int = 0
