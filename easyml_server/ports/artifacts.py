"""Files that belong to rows: tables and models. What names them is made of ids, never of user text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import UUID

FILES_PART = "files"
"""What errors and the health service call files that are elsewhere."""


class VersionKind(StrEnum):
    """What a version is of."""

    DATASET = "datasets"
    MODEL = "models"


@dataclass(frozen=True, slots=True)
class VersionKey:
    """The files of one version.

    Of a dataset: `table.parquet`, and `original` if it is kept; of a model: `manifest.json` and what it names.
    """

    project_id: UUID
    kind: VersionKind
    version_id: UUID

    @classmethod
    def of_dataset(cls, project_id: UUID, version_id: UUID) -> VersionKey:
        """Of a dataset's version."""
        return cls(project_id, VersionKind.DATASET, version_id)

    @classmethod
    def of_model(cls, project_id: UUID, version_id: UUID) -> VersionKey:
        """Of a model's version."""
        return cls(project_id, VersionKind.MODEL, version_id)

    def __str__(self) -> str:
        """Where they lie below the files of all versions."""
        return f"{self.project_id}/{self.kind.value}/{self.version_id}"


@dataclass(frozen=True, slots=True)
class UploadKey:
    """The bytes of an upload."""

    user_id: UUID
    upload_id: UUID

    def __str__(self) -> str:
        """Where they lie below all uploads."""
        return f"{self.user_id}-{self.upload_id}"


Key = VersionKey | UploadKey


@dataclass(frozen=True, slots=True)
class StoredSource:
    """Where a version's files are for whoever is elsewhere: the URL of its folder, and the SHA-256 of its manifest."""

    url: str
    manifest_sha256: str


def version_key(text: str) -> VersionKey | None:
    """The key that reads so; None if no key does."""
    try:
        project_id, kind, version_id = text.split("/")
        return VersionKey(UUID(project_id), VersionKind(kind), UUID(version_id))
    except ValueError:
        return None


def upload_key(text: str) -> UploadKey | None:
    """The key that reads so; None if no key does."""
    try:
        return UploadKey(UUID(text[:36]), UUID(text[37:]))
    except ValueError:
        return None


class Incoming(Protocol):
    """The bytes of an upload on their way in."""

    @property
    def received(self) -> int:
        """Bytes of the file that were taken."""
        ...

    @property
    def unsynced(self) -> int:
        """Bytes taken that are not safe yet."""
        ...

    async def take(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...

    async def sync(self) -> int:
        """Make everything taken safe, and say how many bytes of the file that is."""
        ...


class ArtifactStore(Protocol):
    """Keeps files durable, and shows a version whole or not at all.

    All raise LimitReached (DISK_FULL) where nothing more fits, and Unavailable (part `files`) where the files cannot be
    reached just now. What was changed since it was stored is WrongState (CHECKSUM_MISMATCH).
    """

    def new_work_path(self) -> Path:
        """An empty folder aside, on this machine; emptied at start."""
        ...

    async def discard(self, work_path: Path) -> None:
        """Remove a folder that `new_work_path` made, if it is still there."""
        ...

    def receiving(self, key: UploadKey) -> AbstractContextManager[None]:
        """Receive an upload, which one call to this server at a time does; Unavailable if another does."""
        ...

    def incoming(self, key: UploadKey, offset: int) -> AbstractAsyncContextManager[Incoming]:
        """Take the bytes of an upload from an offset on; what lies behind it is forgotten."""
        ...

    def gathered(self, key: UploadKey, size_bytes: int) -> AbstractAsyncContextManager[Path]:
        """The bytes of an upload as a file that a converter can read and a work folder can link to."""
        ...

    async def publish(self, work_path: Path, key: VersionKey) -> None:
        """Make the files of a work folder durable as those of a version, all at once.

        Until `committed` or `remove` it is known to have no row yet, and nobody takes it for left behind.
        """
        ...

    def committed(self, key: VersionKey) -> None:
        """The row of what was published is there."""
        ...

    def held(self, key: VersionKey) -> AbstractAsyncContextManager[Path]:
        """A folder with the files of a version, to be read as long as this lasts."""
        ...

    def read(self, key: VersionKey, name: str) -> AsyncIterator[bytes]:
        """The bytes of a file of a version."""
        ...

    async def source(self, key: VersionKey) -> StoredSource | None:
        """Where programs on other machines read a model's version; None where only this machine can."""
        ...

    async def size(self, key: Key) -> int:
        """Bytes of a version or an upload; none if it is not there."""
        ...

    async def remove(self, key: Key) -> int:
        """Remove a version or an upload and say how many bytes that freed; nothing there is no error.

        What cannot be removed just now is removed later, as what was left behind.
        """
        ...

    async def remove_project(self, project_id: UUID) -> None:
        """Remove all versions of a project."""
        ...

    def check_free(self, needed_bytes: int) -> None:
        """Raise LimitReached (DISK_FULL) if writing this much here would leave less free than is kept free."""
        ...
