"""Files that belong to rows: tables and models. Paths are made of ids, never of user text."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from uuid import UUID


class ArtifactStore(Protocol):
    """Keeps files durable: written aside, flushed, renamed, their folder flushed."""

    def upload_path(self, user_id: UUID, upload_id: UUID) -> Path:
        """Where the bytes of an upload gather."""
        ...

    def dataset_path(self, project_id: UUID, version_id: UUID) -> Path:
        """Folder of a dataset version: `table.parquet`, and `original` if it is kept."""
        ...

    def model_path(self, project_id: UUID, version_id: UUID) -> Path:
        """Folder of a model version: `manifest.json` and the artefacts it names."""
        ...

    def project_path(self, project_id: UUID) -> Path:
        """Folder of all files of a project."""
        ...

    def new_work_path(self) -> Path:
        """An empty folder aside, on the same disk; emptied at start."""
        ...

    async def publish(self, work_path: Path, final_path: Path) -> None:
        """Flush a folder's files and move it into place; LimitReached (DISK_FULL) leaves nothing behind.

        Until `committed` or `remove` it is known to have no row yet, and nobody takes it for left behind.
        """
        ...

    def committed(self, final_path: Path) -> None:
        """The row of what was published is there."""
        ...

    def receiving(self, user_id: UUID, upload_id: UUID) -> AbstractContextManager[None]:
        """Receive an upload, which one call at a time does; Unavailable if another does."""
        ...

    async def remove(self, path: Path) -> int:
        """Remove a folder or file and say how many bytes that freed; nothing there is no error."""
        ...

    async def size(self, path: Path) -> int:
        """Bytes of a folder or file."""
        ...

    async def sha256(self, path: Path) -> str:
        """SHA-256 of a file, in lower-case hex."""
        ...

    def check_free(self, needed_bytes: int) -> None:
        """Raise LimitReached (DISK_FULL) if writing this much would leave less free than is kept free."""
        ...
