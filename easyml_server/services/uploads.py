"""Files on their way in: received in pieces, safe across breaks and crashes, then converted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath
from typing import Protocol
from uuid import UUID

from easyml_server.domain.datasets import Dataset, FileFormat, Upload, UploadState
from easyml_server.domain.errors import (
    AlreadyExists,
    EasyMLError,
    InvalidInput,
    LimitReached,
    NotFound,
    Reason,
    Unavailable,
    WrongState,
)
from easyml_server.domain.faults import fault_point
from easyml_server.domain.limits import Limits
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore, Incoming, UploadKey
from easyml_server.ports.store import Store, UnitOfWork
from easyml_server.ports.tables import TableReader
from easyml_server.services.converting import UploadConverter, key_of, put_unfinished
from easyml_server.services.projects import checked_name

SYNC_BYTES = 8 << 20
ENDINGS = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".txt": FileFormat.CSV,
    ".xlsx": FileFormat.XLSX,
    ".json": FileFormat.JSON,
    ".jsonl": FileFormat.JSON,
    ".ndjson": FileFormat.JSON,
    ".parquet": FileFormat.PARQUET,
    ".pq": FileFormat.PARQUET,
}


class Chunks(Protocol):
    """The bytes of one call, in order."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the chunks."""
        ...


@dataclass(frozen=True, slots=True)
class Stated:
    """What the header of a call states; `upload` is what would be stored if it is the first."""

    upload: Upload
    offset: int


def told_format(filename: str, stated: FileFormat | None) -> FileFormat:
    """The format of a file: what is stated, else what its name ends in."""
    if stated is not None:
        return stated
    ending = PurePosixPath(filename.lower()).suffix
    if ending in ENDINGS:
        return ENDINGS[ending]
    raise InvalidInput.at(
        "header.format",
        f"The format cannot be told from the name {filename!r}; say csv, xlsx, json or parquet.",
    )


def told_name(filename: str) -> str:
    """A dataset's name from a file's name: without folders and ending."""
    return PurePosixPath(PureWindowsPath(filename).name).stem or filename


class UploadService:
    """Receives uploads and makes datasets of them."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        tables: TableReader,
        limits: Limits,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._converter = UploadConverter(store, artifacts, tables, limits, clock)
        self._limits = limits
        self._clock = clock
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Uploads that run now flush what they have and end with UNAVAILABLE; they can be continued."""
        self._draining.set()

    async def upload(
        self, caller: Caller, stated: Stated, chunks: Chunks, announce: Callable[[UUID], Awaitable[None]]
    ) -> Dataset:
        """Receive the chunks of one call; once all bytes are there, convert them and store the dataset.

        `announce` is told the id once the upload can be asked about and continued.
        """
        with self._artifacts.receiving(UploadKey(caller.user_id, stated.upload.id)):
            upload = await self._open(caller, stated)
            await announce(upload.id)
            if upload.state is UploadState.COMPLETED and upload.dataset_id is not None:
                async with self._store.read() as work:
                    return await work.datasets.get(upload.dataset_id, caller)
            return await self._receive_and_finish(caller, upload, chunks)

    async def get(self, caller: Caller, upload_id: UUID) -> Upload:
        """How far an upload is; bytes that are not yet flushed do not count."""
        async with self._store.read() as work:
            upload = await work.datasets.find_upload(upload_id, caller.user_id)
            if upload is None:
                raise NotFound.of("upload", upload_id)
            try:
                await work.projects.get(upload.project_id, caller)
            except NotFound as error:
                # A key of another project must not learn which project it goes to.
                raise NotFound.of("upload", upload_id) from error
        return upload

    async def forget_expired(self) -> None:
        """Remove unfinished uploads that nobody continued, with their bytes."""
        async with self._store.begin() as work:
            expired = await work.datasets.expire_uploads(self._clock())
            await work.commit()
        for upload in expired:
            await self._artifacts.remove(key_of(upload))

    async def _open(self, caller: Caller, stated: Stated) -> Upload:
        new = stated.upload
        async with self._store.begin() as work:
            await work.projects.get(new.project_id, caller)
            found = await work.datasets.find_upload(new.id, caller.user_id)
            if found is None:
                await self._check_new(work, new, stated.offset)
                await work.datasets.put_upload(new)
                await work.commit()
                fault_point("upload.opened")
                return new
        _check_same(found, new)
        if found.state is UploadState.FAILED and found.failure is not None:
            raise InvalidInput(found.failure[1], Reason(found.failure[0]))
        if found.state is UploadState.COMPLETED:
            return found
        if stated.offset != found.received_bytes:
            raise WrongState(
                f"{found.received_bytes} bytes of this upload are safe; continue at that offset.",
                Reason.OFFSET_MISMATCH,
                metadata={"received_bytes": str(found.received_bytes)},
            )
        return found

    async def _check_new(self, work: UnitOfWork, new: Upload, offset: int) -> None:
        if offset:
            raise NotFound.of("upload", new.id)
        if new.size_bytes > self._limits.max_upload_bytes:
            raise InvalidInput.at(
                "header.size_bytes",
                f"The file has {new.size_bytes} bytes; this server takes at most {self._limits.max_upload_bytes} "
                "(EASYML_MAX_UPLOAD_BYTES).",
                Reason.TOO_LARGE,
                {"limit": "EASYML_MAX_UPLOAD_BYTES", "maximum": str(self._limits.max_upload_bytes)},
            )
        if await work.datasets.find_by_name(new.project_id, new.name) is not None:
            raise AlreadyExists.of("dataset", new.name)
        await self._check_counts(work, new.user_id)
        config = await work.projects.get_config(new.project_id)
        allowed = config.storage_max_bytes or self._limits.project_storage_bytes
        if await work.datasets.stored_bytes(new.project_id) + new.size_bytes > allowed:
            raise LimitReached(
                f"The project stores at most {allowed} bytes, and this file would exceed that; delete something first.",
                metadata={"limit": "EASYML_PROJECT_STORAGE_BYTES", "maximum": str(allowed)},
            )
        # The file and the table made of it lie side by side for a while.
        self._artifacts.check_free(2 * new.size_bytes)

    async def _check_counts(self, work: UnitOfWork, user_id: UUID) -> None:
        for whose, maximum, setting in (
            (user_id, self._limits.max_uploads_per_user, "EASYML_MAX_UPLOADS_PER_USER"),
            (None, self._limits.max_uploads, "EASYML_MAX_UPLOADS"),
        ):
            if await work.datasets.count_uploads(whose) >= maximum:
                raise LimitReached(
                    f"{maximum} uploads are unfinished ({setting}); finish one, or let it expire.",
                    retry_after=5.0,
                    metadata={"limit": setting, "maximum": str(maximum)},
                )

    async def _receive_and_finish(self, caller: Caller, upload: Upload, chunks: Chunks) -> Dataset:
        try:
            received = await self._receive(upload, chunks)
            if received.received_bytes < received.size_bytes:
                raise InvalidInput.at(
                    "chunk",
                    f"The file has {upload.size_bytes} bytes by the header, and {received.received_bytes} came; send "
                    "the rest with the same upload_id.",
                    Reason.CHECKSUM_MISMATCH,
                    {"received_bytes": str(received.received_bytes)},
                )
            return await self._converter.finish(caller, received)
        except InvalidInput as error:
            if error.reason is not Reason.CHECKSUM_MISMATCH or "received_bytes" not in error.metadata:
                await self._fail(upload, error)
            raise
        except AlreadyExists as error:
            await self._fail(upload, error)
            raise

    async def _receive(self, upload: Upload, chunks: Chunks) -> Upload:
        async with self._artifacts.incoming(key_of(upload), upload.received_bytes) as receiver:
            try:
                async for chunk in self._timed(chunks):
                    self._check_chunk(upload, receiver.received + len(chunk), chunk)
                    await receiver.take(chunk)
                    if receiver.unsynced >= SYNC_BYTES:
                        upload = await self._save_progress(upload, await receiver.sync())
            finally:
                # Shielded: what came in before the caller went away must be safe to continue from.
                upload = await asyncio.shield(self._flush(upload, receiver))
        return upload

    async def _flush(self, upload: Upload, receiver: Incoming) -> Upload:
        synced = await receiver.sync()
        return await self._save_progress(upload, synced) if synced != upload.received_bytes else upload

    async def _timed(self, chunks: Chunks) -> AsyncIterator[bytes]:
        iterator = chunks.__aiter__()
        draining = asyncio.ensure_future(self._draining.wait())
        idle = self._limits.upload_idle_seconds
        coming: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(_next(iterator))
                await asyncio.wait({coming, draining}, timeout=idle, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    raise _shutting_down() if draining.done() else _silent(idle)
                chunk = coming.result()
                if chunk is None:
                    return
                yield chunk
        finally:
            draining.cancel()
            if coming is not None:
                coming.cancel()

    def _check_chunk(self, upload: Upload, total: int, chunk: bytes) -> None:
        if len(chunk) > self._limits.max_chunk_bytes:
            raise InvalidInput.at(
                "chunk",
                f"A chunk has at most {self._limits.max_chunk_bytes} bytes (EASYML_MAX_CHUNK_BYTES).",
                Reason.TOO_LARGE,
                {"limit": "EASYML_MAX_CHUNK_BYTES", "maximum": str(self._limits.max_chunk_bytes)},
            )
        if total > upload.size_bytes:
            raise InvalidInput.at(
                "chunk",
                f"The file has {upload.size_bytes} bytes by the header, and more came; upload it again.",
                Reason.CHECKSUM_MISMATCH,
            )

    async def _save_progress(self, upload: Upload, received: int) -> Upload:
        fault_point("upload.synced")
        upload = replace(upload, received_bytes=received, expire_time=self._expire_time())
        await put_unfinished(self._store, upload)
        return upload

    async def _fail(self, upload: Upload, error: EasyMLError) -> None:
        failure = (error.reason.value, error.message)
        await put_unfinished(self._store, replace(upload, state=UploadState.FAILED, failure=failure))
        await self._artifacts.remove(key_of(upload))

    def _expire_time(self) -> datetime:
        return self._clock() + timedelta(hours=self._limits.upload_expiry_hours)


def new_upload(caller: Caller, given: Upload, clock: Callable[[], datetime], limits: Limits) -> Upload:
    """An upload as a header describes it, with what the server adds."""
    now = clock()
    return replace(
        given,
        user_id=caller.user_id,
        name=checked_name(given.name or told_name(given.filename)),
        create_time=now,
        expire_time=now + timedelta(hours=limits.upload_expiry_hours),
    )


async def _next(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)


def _shutting_down() -> Unavailable:
    return Unavailable(
        "The server is shutting down; continue the upload in a moment.", Reason.SERVER_DRAINING, retry_after=2.0
    )


def _silent(seconds: float) -> Unavailable:
    return Unavailable(
        f"Nothing came for {seconds:.0f} s; continue the upload where it stopped.",
        retry_after=1.0,
        metadata={"part": "upload"},
    )


def _check_same(found: Upload, new: Upload) -> None:
    same = (found.project_id, found.name, found.filename, found.format, found.size_bytes) == (
        new.project_id,
        new.name,
        new.filename,
        new.format,
        new.size_bytes,
    )
    if not same or (new.sha256 and found.sha256 and new.sha256 != found.sha256):
        raise AlreadyExists("This upload_id was used for another file; make a new one.", Reason.REQUEST_ID_REUSED)
