"""Files in an object store. A version is there once its contents are written; everything read is checked against them.

Servers may share the store. What no row knows is taken for left behind a day after it was last written, and whoever
has published and cannot commit writes the contents again and again until it can.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from easyml_server.artifacts.contents import CONTENTS, Contents, StoredFile, damaged, load_contents
from easyml_server.artifacts.copies import Copies
from easyml_server.artifacts.object_store import Found, MissingError, ObjectStore
from easyml_server.artifacts.parts import PART_BYTES, PartReceiver, UploadParts
from easyml_server.artifacts.receiving import another_receives
from easyml_server.artifacts.work import WorkFolder
from easyml_server.domain.disk import disk_errors
from easyml_server.domain.errors import Unavailable, WrongState
from easyml_server.domain.faults import fault_point
from easyml_server.domain.local_files import CHUNK_BYTES
from easyml_server.domain.manifest import MANIFEST_FILENAME
from easyml_server.ports.artifacts import Key, StoredSource, UploadKey, VersionKey, upload_key, version_key

ALONE: Final = timedelta(hours=24)
"""So long after it was written nobody is at work on it any more, whatever the clocks say."""
PROBE_SECONDS: Final = 5.0
READ_BYTES: Final = 4 << 20

log = structlog.get_logger(__name__)


class ObjectArtifacts(WorkFolder):
    """Fulfils `ports.artifacts.ArtifactStore` in an object store, with work folders on this machine."""

    def __init__(self, store: ObjectStore, work: Path, copies: Copies, min_free_bytes: int) -> None:
        super().__init__(work, min_free_bytes)
        self._store = store
        self._copies = copies
        self._receiving: set[UploadKey] = set()
        self._published: dict[VersionKey, Contents] = {}

    @contextmanager
    def receiving(self, key: UploadKey) -> Iterator[None]:
        """Of the calls to this server; those to others can do no harm (`parts`)."""
        if key in self._receiving:
            raise another_receives()
        self._receiving.add(key)
        try:
            yield
        finally:
            self._receiving.remove(key)

    @asynccontextmanager
    async def incoming(self, key: UploadKey, offset: int) -> AsyncIterator[PartReceiver]:
        """Into parts; a short one is gone on with."""
        parts = UploadParts(self._store, _place(key))
        last = [part for part in (await parts.up_to(offset))[-1:] if part.size < PART_BYTES]
        yield PartReceiver(parts, offset, b"".join([await parts.read(part) for part in last]))

    @asynccontextmanager
    async def gathered(self, key: UploadKey, size_bytes: int) -> AsyncIterator[Path]:
        """The parts one after the other in a file."""
        self.check_free(size_bytes)
        parts = UploadParts(self._store, _place(key))
        work_path = self.new_work_path()
        try:
            with disk_errors(), (work_path / "upload").open("wb") as file:
                for part in await parts.up_to(size_bytes):
                    await asyncio.to_thread(file.write, await parts.read(part))
            yield work_path / "upload"
        finally:
            await self.discard(work_path)

    async def publish(self, work_path: Path, key: VersionKey) -> None:
        """Put every file, then the contents."""
        contents = await asyncio.to_thread(Contents.of, work_path)
        self._published[key] = contents
        try:
            for file in contents.files:
                fault_point("publish.fsync")
                await self._store.put_file(f"{_place(key)}/{file.name}", work_path / file.name)
            fault_point("publish.rename")
            await self._write(key, contents)
            fault_point("publish.renamed")
        except BaseException:
            del self._published[key]
            raise
        # Whoever needs the files next need not fetch them.
        await self._copies.add(key, work_path, contents.size_bytes)

    def committed(self, key: VersionKey) -> None:
        """Its row keeps it from now on."""
        self._published.pop(key, None)

    @asynccontextmanager
    async def held(self, key: VersionKey) -> AsyncIterator[Path]:
        """A checked copy."""

        async def fill() -> tuple[Path, int]:
            contents = await self._contents(key)
            self.check_free(contents.size_bytes)
            work_path = self.new_work_path()
            try:
                for file in contents.files:
                    with disk_errors(), (work_path / file.name).open("wb") as opened:
                        async for content in self._content(key, file):
                            await asyncio.to_thread(opened.write, content)
            except BaseException:
                await self.discard(work_path)
                raise
            return work_path, contents.size_bytes

        async with self._copies.held(key, fill) as path:
            yield path

    async def source(self, key: VersionKey) -> StoredSource | None:
        """The URL in the store; what is fetched from there is held against the manifest."""
        manifest = (await self._contents(key)).find(MANIFEST_FILENAME)
        if manifest is None:
            raise damaged(key)
        return StoredSource(f"{self._store.url}/{_place(key)}", manifest.sha256)

    async def read(self, key: VersionKey, name: str) -> AsyncIterator[bytes]:
        """Straight from the store; the last bytes come when all are known to be right."""
        file = (await self._contents(key)).find(name)
        if file is None:
            raise damaged(key)
        async for content in self._content(key, file):
            for start in range(0, len(content), CHUNK_BYTES):
                yield content[start : start + CHUNK_BYTES]

    async def size(self, key: Key) -> int:
        """By its contents, which are asked for soon and once: somebody holds a transaction meanwhile."""
        if isinstance(key, UploadKey):
            return sum(found.size for found in await self._store.list(_place(key)))
        try:
            return (await self._contents(key)).size_bytes
        except WrongState:
            # What is damaged must be there to be deleted.
            return 0

    async def remove(self, key: Key) -> int:
        """Bytes freed."""
        fault_point("files.remove")
        if isinstance(key, VersionKey):
            self.committed(key)
            await self._copies.forget(key)
        return await self._remove(_place(key))

    async def remove_project(self, project_id: UUID) -> None:
        """All its versions."""
        await self._copies.forget_all(lambda key: key.project_id == project_id)
        await self._remove(f"files/{project_id}")

    async def suspects(self) -> Sequence[Key]:
        """What was not written to for a day."""
        try:
            versions = _last_written(await self._store.list("files"), 4)
            uploads = _last_written(await self._store.list("uploads"), 2)
        except Unavailable as error:
            log.warning("files_not_looked_through", error=error.message)
            return ()
        old = datetime.now(UTC) - ALONE
        keys = (
            *(version_key(name.partition("/")[2]) for name, time in versions.items() if time < old),
            *(upload_key(name.partition("/")[2]) for name, time in uploads.items() if time < old),
        )
        return [key for key in keys if key is not None]

    @contextmanager
    def left_behind(self, keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
        """Those that this server is not at work on."""
        yield [key for key in keys if key not in self._published and key not in self._receiving]

    async def tidy(self) -> None:
        """Work folders are on each server's own machine."""

    async def keep_published(self) -> None:
        """Say again that what has no row yet is being worked on."""
        for key, contents in list(self._published.items()):
            await self._write(key, contents)

    async def availability(self) -> AsyncIterator[bool]:
        """Whether the store answers, now and then."""
        while True:
            try:
                await self._store.get("database.id")
            except Unavailable:
                yield False
            except MissingError:
                yield True
            else:
                yield True
            await asyncio.sleep(PROBE_SECONDS)

    async def _write(self, key: VersionKey, contents: Contents) -> None:
        await self._store.put(f"{_place(key)}/{CONTENTS}", contents.dump())

    async def _contents(self, key: VersionKey) -> Contents:
        try:
            return load_contents(key, await self._store.get(f"{_place(key)}/{CONTENTS}"))
        except MissingError as error:
            raise damaged(key) from error

    async def _content(self, key: VersionKey, file: StoredFile) -> AsyncIterator[bytes]:
        """The bytes of a file in pieces, the last only if all of them are what was stored."""
        found = hashlib.sha256()
        for start in range(0, file.size_bytes, READ_BYTES):
            end = min(start + READ_BYTES, file.size_bytes)
            try:
                content = await self._store.get_part(f"{_place(key)}/{file.name}", start, end)
            except MissingError as error:
                raise damaged(key) from error
            await asyncio.to_thread(found.update, content)
            if end == file.size_bytes and found.hexdigest() != file.sha256:
                raise damaged(key)
            yield content

    async def _remove(self, prefix: str) -> int:
        freed = 0
        try:
            # The contents first: what is not whole must not be seen.
            for found in sorted(await self._store.list(prefix), key=lambda each: not each.name.endswith(CONTENTS)):
                await self._store.remove(found.name)
                freed += found.size
        except Unavailable as error:
            log.warning("files_not_removed", files=prefix, error=error.message)
        return freed


def _place(key: Key) -> str:
    return f"uploads/{key}" if isinstance(key, UploadKey) else f"files/{key}"


def _last_written(objects: Iterable[Found], depth: int) -> dict[str, datetime]:
    """When something below each folder of a depth was last written."""
    times: dict[str, datetime] = {}
    for found in objects:
        folder = "/".join(found.name.split("/")[:depth])
        times[folder] = max(found.time, times.get(folder, found.time))
    return times
