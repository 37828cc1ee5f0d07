"""Where versions of datasets and models are kept for DVC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from easyml_server.domain.versioning import AddedVersion, VersionKind


@dataclass(frozen=True, slots=True)
class Remote:
    """Where the versions of a project are pulled from."""

    name: str
    url: str


class Versioner(Protocol):
    """One DVC repository per project. Each call may be repeated; all raise Unavailable when DVC cannot."""

    @property
    def place(self) -> str:
        """Where the remotes of all projects are."""
        ...

    def remote(self, project_id: UUID) -> Remote:
        """The remote of a project."""
        ...

    async def add(
        self, project_id: UUID, kind: VersionKind, version_id: UUID, number: int, folder: Path
    ) -> AddedVersion:
        """Add a version's folder, whose files become links into DVC's cache: nothing is stored twice."""
        ...

    async def push(self, project_id: UUID, kind: VersionKind, version_id: UUID) -> None:
        """Bring an added version to the remote."""
        ...

    async def forget(self, version_id: UUID) -> int:
        """Remove a version, and what no other version of its project holds; the bytes freed."""
        ...

    async def forget_project(self, project_id: UUID) -> int:
        """Remove all versions of a project; the bytes freed."""
        ...
