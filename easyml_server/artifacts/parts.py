"""An upload in an object store: parts that are named by where they begin, how long they are and what is in them.

Parts of several calls may lie side by side, since a server that was taken for dead may wake up. A part says itself
what its bytes are, so those that lead from the beginning to the last safe byte are the file, whoever wrote them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from easyml_server.artifacts.object_store import MissingError, ObjectStore
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.domain.faults import fault_point

PART_BYTES: Final = 8 << 20
"""A shorter part is the last one of a call; the next call puts a longer one in its place."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of an upload."""

    offset: int
    size: int
    sha256: str

    @classmethod
    def parse(cls, name: str) -> Part | None:
        """From its name; None if it is no part."""
        try:
            offset, size, sha256 = name.split("-")
            return cls(int(offset), int(size), sha256)
        except ValueError:
            return None

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.size

    def __str__(self) -> str:
        """Its name."""
        return f"{self.offset:012d}-{self.size}-{self.sha256}"


def chain(parts: Iterable[Part], end: int) -> Sequence[Part]:
    """Parts that lead from the beginning to the end; InvalidInput if none do."""
    following: dict[int, Part | None] = {end: None}
    for part in sorted(parts, key=lambda each: each.offset, reverse=True):
        if part.size and part.end in following:
            following.setdefault(part.offset, part)
    found = []
    offset = 0
    while offset != end:
        step = following.get(offset)
        if step is None:
            raise lost()
        found.append(step)
        offset = step.end
    return found


def lost() -> InvalidInput:
    """The one sentence for bytes that were safe, and are no longer what they were."""
    return InvalidInput(
        "Bytes of this upload were changed or lost where they are stored; upload the file again.",
        Reason.CHECKSUM_MISMATCH,
    )


class UploadParts:
    """The parts of one upload."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    async def up_to(self, end: int) -> Sequence[Part]:
        """The parts of the first bytes."""
        if not end:
            return ()
        names = [found.name.rpartition("/")[2] for found in await self._store.list(self._prefix)]
        return chain((part for name in names if (part := Part.parse(name)) is not None), end)

    async def read(self, part: Part) -> bytes:
        """What is in it; InvalidInput if it is not what was put there."""
        try:
            content = await self._store.get_part(f"{self._prefix}/{part}", 0, part.size)
        except MissingError as error:
            raise lost() from error
        if await _sha256(content) != part.sha256:
            raise lost()
        return content

    async def write(self, offset: int, content: bytes) -> None:
        """Put a part."""
        fault_point("upload.write")
        await self._store.put(f"{self._prefix}/{Part(offset, len(content), await _sha256(content))}", content)
        fault_point("upload.fsync")


class PartReceiver:
    """Fulfils `ports.artifacts.Incoming`: each `sync` puts a part."""

    def __init__(self, parts: UploadParts, offset: int, last: bytes = b"") -> None:
        """`last` is the short part that ends at the offset."""
        self._parts = parts
        self._last = last
        self._taken: list[bytes] = []
        self._synced = offset
        self.received = offset

    @property
    def unsynced(self) -> int:
        """Bytes taken that are not safe yet."""
        return self.received - self._synced

    async def take(self, chunk: bytes) -> None:
        """Keep it until there is enough for a part."""
        self._taken.append(chunk)
        self.received += len(chunk)

    async def sync(self) -> int:
        """Put what was taken; also again, if nobody knows whether it arrived."""
        if not self.unsynced:
            return self._synced
        content = b"".join((self._last, *self._taken))
        try:
            await self._parts.write(self._synced - len(self._last), content)
        except Exception:
            self._taken.clear()
            self.received = self._synced
            raise
        self._taken.clear()
        self._synced = self.received
        self._last = content if len(content) < PART_BYTES else b""
        return self._synced


async def _sha256(content: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()
