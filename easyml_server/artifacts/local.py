"""Files in a folder, made durable before anybody is told.

Servers may share the folder. What one of them receives or has moved into place without a committed row carries its lock
(`processes.locks`), so that no other takes it for left behind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import UUID

from easyml_server.artifacts.contents import damaged
from easyml_server.artifacts.receiving import Receiver, another_receives, open_at
from easyml_server.artifacts.work import WorkFolder, bytes_of, remove_all
from easyml_server.domain.disk import disk_errors
from easyml_server.domain.faults import fault_point
from easyml_server.domain.local_files import read_chunks
from easyml_server.ports.artifacts import (
    Key,
    StoredSource,
    UploadKey,
    VersionKey,
    VersionKind,
    upload_key,
    version_key,
)
from easyml_server.processes.locks import TakenError, exclusive


class LocalArtifacts(WorkFolder):
    """Fulfils `ports.artifacts.ArtifactStore` below one folder."""

    def __init__(self, root: Path, min_free_bytes: int, work: Path) -> None:
        super().__init__(work, min_free_bytes)
        self._root = root
        self._files = root / "files"
        self._uploads = root / "uploads"
        self._locks = root / "locks"
        self._published: dict[VersionKey, ExitStack] = {}
        for folder in (self._files, self._uploads, self._locks, self._work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """Where all of this lies."""
        return self._root

    @contextmanager
    def receiving(self, key: UploadKey) -> Iterator[None]:
        """Of all calls to all servers, one receives an upload."""
        with ExitStack() as stack:
            with disk_errors():
                try:
                    stack.enter_context(exclusive(self._lock_of(key)))
                except TakenError as error:
                    raise another_receives() from error
            yield

    @asynccontextmanager
    async def incoming(self, key: UploadKey, offset: int) -> AsyncIterator[Receiver]:
        """Into one file."""
        with disk_errors(), await asyncio.to_thread(open_at, self.path(key), offset) as file:
            yield Receiver(file, offset)

    @asynccontextmanager
    async def gathered(self, key: UploadKey, size_bytes: int) -> AsyncIterator[Path]:  # noqa: ARG002 (the port's)
        """The file that was received into."""
        yield self.path(key)

    async def publish(self, work_path: Path, key: VersionKey) -> None:
        """Flush every file, rename the folder, flush where it went."""
        with ExitStack() as stack:
            with disk_errors():
                # Nobody else wants it, but somebody may be looking whether it was left behind.
                await asyncio.to_thread(stack.enter_context, exclusive(self._lock_of(key), wait=True))
                await asyncio.to_thread(_publish, work_path, self.path(key))
            self._published[key] = stack.pop_all()

    def committed(self, key: VersionKey) -> None:
        """Its row keeps it from now on."""
        held = self._published.pop(key, None)
        if held is not None:
            held.close()

    @asynccontextmanager
    async def held(self, key: VersionKey) -> AsyncIterator[Path]:
        """The folder itself."""
        path = self.path(key)
        if not await asyncio.to_thread(path.is_dir):
            raise damaged(key)
        yield path

    async def source(self, key: VersionKey) -> StoredSource | None:  # noqa: ARG002 (the same for all)
        """Nobody elsewhere has this folder."""
        return None

    async def read(self, key: VersionKey, name: str) -> AsyncIterator[bytes]:
        """From the file itself."""
        try:
            async for content in read_chunks(self.path(key) / name):
                yield content
        except FileNotFoundError as error:
            raise damaged(key) from error

    async def size(self, key: Key) -> int:
        """Bytes of a folder or file."""
        return await asyncio.to_thread(bytes_of, self.path(key))

    async def remove(self, key: Key) -> int:
        """Bytes freed."""
        freed = await asyncio.to_thread(_remove, self.path(key))
        if isinstance(key, VersionKey):
            self.committed(key)
        return freed

    async def remove_project(self, project_id: UUID) -> None:
        """The folder of all its versions."""
        await asyncio.to_thread(_remove, self._files / str(project_id))

    async def suspects(self) -> Sequence[Key]:
        """All that is there."""
        versions = [path.relative_to(self._files) for kind in VersionKind for path in self._files.glob(f"*/{kind}/*")]
        uploads = (upload_key(path.name) for path in self._uploads.iterdir())
        return [key for key in (*map(version_key, map(str, versions)), *uploads) if key is not None]

    @contextmanager
    def left_behind(self, keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
        """Those that nobody is at work on; nobody begins to while this lasts."""
        with ExitStack() as stack:
            found = []
            for key in keys:
                with suppress(TakenError):
                    stack.enter_context(exclusive(self._lock_of(key)))
                    found.append(key)
            yield found

    async def tidy(self) -> None:
        """Remove the working folders and locks of servers that died."""
        if self._work.parent != self._root:
            for path in list(self._work.parent.iterdir()):
                with suppress(TakenError), exclusive(self._locks / path.name):
                    await asyncio.to_thread(remove_all, path)
        for path in list(self._locks.iterdir()):
            with suppress(TakenError), exclusive(path):
                pass

    async def keep_published(self) -> None:
        """Locks are held as long as their process lives."""

    def path(self, key: Key) -> Path:
        """Where it lies."""
        return (self._uploads if isinstance(key, UploadKey) else self._files) / str(key)

    def _lock_of(self, key: Key) -> Path:
        """Names of folders and files are ids, so none is there twice."""
        return self._locks / self.path(key).name


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
        remove_all(final_path)
        raise


def _remove(path: Path) -> int:
    fault_point("files.remove")
    return remove_all(path)
