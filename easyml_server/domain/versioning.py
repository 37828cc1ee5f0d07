"""Versions as DVC knows them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class VersionKind(StrEnum):
    """What has versions; the names of their folders."""

    DATASET = "datasets"
    MODEL = "models"


class DvcState(StrEnum):
    """How far a version is on its way to the remote; names as in the contract."""

    PENDING = "pending"
    ADDED = "added"
    PUSHED = "pushed"


def remote_url(place: str, project_id: UUID) -> str:
    """Each project has a folder of its own where versions are brought to."""
    return f"{place}/{project_id}"


@dataclass(frozen=True, slots=True)
class AddedVersion:
    """What `dvc add` made of a version's folder; `content` is the text of the pointer file."""

    file_name: str
    content: str
    md5: str
    size_bytes: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DvcPointer:
    """Where a version is in DVC. `problem` says why the last push failed; None once one succeeded."""

    version_id: UUID
    project_id: UUID
    kind: VersionKind
    added: AddedVersion
    remote_name: str
    remote_url: str
    add_time: datetime
    push_time: datetime | None = None
    problem: str | None = None

    @property
    def state(self) -> DvcState:
        """What the times say."""
        return DvcState.ADDED if self.push_time is None else DvcState.PUSHED

    def at(self, place: str) -> DvcPointer:
        """As it is seen where versions are brought to now: one that was pushed elsewhere is not there yet."""
        url = remote_url(place, self.project_id)
        return self if self.remote_url == url else replace(self, remote_url=url, push_time=None, problem=None)
