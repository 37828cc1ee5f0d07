"""Files as chunks of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

CHUNK_BYTES = 512 * 1024


async def read_chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file, read off the event loop; the transport's back-pressure sets the pace."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
