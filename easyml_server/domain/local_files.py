"""Files of this machine, read off the event loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

CHUNK_BYTES = 512 * 1024


async def read_chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file; who takes them sets the pace."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


async def file_sha256(path: Path) -> str:
    """In lower-case hex."""
    return await asyncio.to_thread(sha256_of, path)


def sha256_of(path: Path) -> str:
    """In lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
