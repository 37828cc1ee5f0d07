"""Files in a folder, made durable before anybody is told.

Servers may share the folder. What one of them receives or has moved into place without a committed row carries its lock
(`artifacts.locks`), so that no other takes it for left behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

from easyml_server.artifacts.locks import TakenError, exclusive
from easyml_server.domain.disk import disk_errors, disk_full
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.faults import fault_point


class LocalArtifacts:
    """Fulfils `ports.artifacts.ArtifactStore` below one folder."""

    def __init__(self, root: Path, min_free_bytes: int, work: Path) -> None:
        self._root = root
        self._files = root / "files"
        self._uploads = root / "uploads"
        self._locks = root / "locks"
        self._work = work
        self._min_free_bytes = min_free_bytes
        self._published: dict[Path, ExitStack] = {}
        for folder in (self._files, self._uploads, self._locks, self._work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """Where all of this lies."""
        return self._root

    @property
    def work(self) -> Path:
        """Scratch of this server alone, on the same disk, so that files can be moved into place."""
        return self._work

    @contextmanager
    def receiving(self, user_id: UUID, upload_id: UUID) -> Iterator[None]:
        """Of all calls to all servers, one receives an upload."""
        with ExitStack() as stack:
            with disk_errors():
                try:
                    stack.enter_context(exclusive(self._lock_of(self.upload_path(user_id, upload_id))))
                except TakenError as error:
                    raise Unavailable(
                        "Another call is sending this upload; wait for it, or try again when it has ended.",
                        retry_after=0.5,
                        metadata={"part": "upload"},
                    ) from error
            yield

    @contextmanager
    def left_behind(self, paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
        """Those of the paths that nobody is at work on; nobody begins to while this lasts."""
        with ExitStack() as stack:
            found = []
            for path in paths:
                with suppress(TakenError):
                    stack.enter_context(exclusive(self._lock_of(path)))
                    found.append(path)
            yield found

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

    def work_folders(self) -> Iterator[Path]:
        """The working folders of servers that share these files."""
        if self._work.parent != self._root:
            yield from self._work.parent.iterdir()

    def new_work_path(self) -> Path:
        """An empty folder aside."""
        path = self._work / uuid4().hex
        with disk_errors():
            path.mkdir(mode=0o700)
        return path

    async def publish(self, work_path: Path, final_path: Path) -> None:
        """Flush every file, rename the folder, flush where it went."""
        with ExitStack() as stack:
            with disk_errors():
                # Nobody else wants it, but somebody may be looking whether it was left behind.
                await asyncio.to_thread(stack.enter_context, exclusive(self._lock_of(final_path), wait=True))
                await asyncio.to_thread(_publish, work_path, final_path)
            self._published[final_path] = stack.pop_all()

    def forget_locks(self) -> None:
        """Remove the locks of who died."""
        for path in list(self._locks.iterdir()):
            with suppress(TakenError), exclusive(path):
                pass

    def committed(self, final_path: Path) -> None:
        """Its row keeps it from now on."""
        held = self._published.pop(final_path, None)
        if held is not None:
            held.close()

    async def remove(self, path: Path) -> int:
        """Bytes freed."""
        freed = await asyncio.to_thread(_remove, path)
        self.committed(path)
        return freed

    async def size(self, path: Path) -> int:
        """Bytes of a folder or file."""
        return await asyncio.to_thread(_size, path)

    async def sha256(self, path: Path) -> str:
        """In lower-case hex."""
        return await asyncio.to_thread(_sha256, path)

    def _lock_of(self, path: Path) -> Path:
        """Names of folders and files are ids, so none is there twice."""
        return self._locks / path.name

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
    # Somebody else may remove it at the same time.
    with suppress(FileNotFoundError):
        return sum(_size(file) for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    return 0
