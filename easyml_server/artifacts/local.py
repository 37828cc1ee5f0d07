"""Files in a folder of the data directory, made durable before anybody is told."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

from easyml_server.domain.disk import disk_errors, disk_full
from easyml_server.domain.faults import fault_point


class LocalArtifacts:
    """Fulfils `ports.artifacts.ArtifactStore` below one folder."""

    def __init__(self, root: Path, min_free_bytes: int) -> None:
        self._files = root / "files"
        self._uploads = root / "uploads"
        self._work = root / "work"
        self._min_free_bytes = min_free_bytes
        for folder in (self._files, self._uploads, self._work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def work(self) -> Path:
        """Scratch, emptied at start."""
        return self._work

    def empty_work(self) -> None:
        """Remove what a crash left behind; called once, at start."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(mode=0o700)

    def upload_path(self, user_id: UUID, upload_id: UUID) -> Path:
        """One file per upload."""
        return self._uploads / f"{user_id}-{upload_id}"

    def upload_files(self) -> Iterator[Path]:
        """The files of all uploads."""
        yield from self._uploads.iterdir()

    def dataset_path(self, project_id: UUID, version_id: UUID) -> Path:
        """Folder of a dataset version."""
        return self._files / str(project_id) / "datasets" / str(version_id)

    def model_path(self, project_id: UUID, version_id: UUID) -> Path:
        """Folder of a model version."""
        return self._files / str(project_id) / "models" / str(version_id)

    def project_path(self, project_id: UUID) -> Path:
        """Folder of all files of a project."""
        return self._files / str(project_id)

    def version_folders(self) -> Iterator[Path]:
        """The folders of all dataset and model versions."""
        yield from self._files.glob("*/datasets/*")
        yield from self._files.glob("*/models/*")

    def new_work_path(self) -> Path:
        """An empty folder aside."""
        path = self._work / uuid4().hex
        with disk_errors():
            path.mkdir(mode=0o700)
        return path

    async def publish(self, work_path: Path, final_path: Path) -> None:
        """Flush every file, rename the folder, flush where it went."""
        with disk_errors():
            await asyncio.to_thread(_publish, work_path, final_path)

    async def remove(self, path: Path) -> int:
        """Bytes freed."""
        return await asyncio.to_thread(_remove, path)

    async def size(self, path: Path) -> int:
        """Bytes of a folder or file."""
        return await asyncio.to_thread(_size, path)

    async def sha256(self, path: Path) -> str:
        """In lower-case hex."""
        return await asyncio.to_thread(_sha256, path)

    def check_free(self, needed_bytes: int) -> None:
        """Keep some space free, for the database above all."""
        if shutil.disk_usage(self._files).free - needed_bytes < self._min_free_bytes:
            raise disk_full()


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(work_path: Path, final_path: Path) -> None:
    for file in work_path.rglob("*"):
        if file.is_file():
            fault_point("publish.fsync")
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    sync_folder(work_path)
    final_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fault_point("publish.rename")
    work_path.rename(final_path)
    try:
        fault_point("publish.renamed")
        sync_folder(final_path.parent)
        sync_folder(final_path.parent.parent)
    except OSError:
        # Nobody is told of it, so nobody would ever remove it.
        _remove(final_path)
        raise


def _remove(path: Path) -> int:
    fault_point("files.remove")
    freed = _size(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return freed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0
