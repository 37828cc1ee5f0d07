"""The bytes of an upload on their way to the disk: written in batches off the event loop, safe once flushed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from easyml_server.domain.disk import disk_errors
from easyml_server.domain.errors import EasyMLError, Unavailable
from easyml_server.domain.faults import fault_point

BATCH_BYTES = 2 << 20


def another_receives() -> Unavailable:
    """Of the calls that send an upload one is received."""
    return Unavailable(
        "Another call is sending this upload; wait for it, or try again when it has ended.",
        retry_after=0.5,
        metadata={"part": "upload"},
    )


class Receiver:
    """Writes chunks in batches, off the event loop."""

    def __init__(self, file: BinaryIO, received: int) -> None:
        self._file = file
        self._batch: list[bytes] = []
        self._batched = 0
        self.received = received
        self._synced = received

    @property
    def unsynced(self) -> int:
        """Bytes taken that are not safe yet."""
        return self.received - self._synced

    async def take(self, chunk: bytes) -> None:
        """Take a chunk; written with its neighbours."""
        self._batch.append(chunk)
        self._batched += len(chunk)
        self.received += len(chunk)
        if self._batched >= BATCH_BYTES:
            await self._write()

    async def sync(self) -> int:
        """Make everything taken safe, and say how many bytes of the file that is."""
        await self._write()
        if self.unsynced:
            try:
                with disk_errors():
                    await asyncio.to_thread(_sync, self._file)
            except (OSError, EasyMLError):
                # Never tried again: the system may have dropped the pages that it could not write.
                self.received = self._synced
                raise
            self._synced = self.received
        return self._synced

    async def _write(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        if not batch:
            return
        writing = asyncio.ensure_future(asyncio.to_thread(_write, self._file, batch))
        try:
            with disk_errors():
                await asyncio.shield(writing)
        finally:
            # Whoever waited may have gone away; the thread writes on, and only then is it known what is there.
            await asyncio.wait({writing})
            if writing.exception() is not None:
                self.received = self._synced


def open_at(path: Path, offset: int) -> BinaryIO:
    """A file to receive into from an offset on; made if it is new."""
    # Buffered: an unbuffered file may write a part only, and writelines does not say so.
    file = path.open("r+b" if path.exists() else "w+b")
    # What lies behind the safe bytes may be torn.
    file.truncate(offset)
    file.seek(offset)
    return file


def _write(file: BinaryIO, batch: Sequence[bytes]) -> None:
    fault_point("upload.write")
    file.writelines(batch)


def _sync(file: BinaryIO) -> None:
    file.flush()
    fault_point("upload.fsync")
    os.fsync(file.fileno())
