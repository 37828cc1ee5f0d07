"""How a model server ends with the server that started it, however that one ended; or outlives it for a while.

One that outlives it does so from the moment when it can be found again: until then it ends with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from easyml_server.processes.parents import kill_at_end_of_parent

LOOKS_PER_PATIENCE = 20


def on_end_of_input(end: Callable[[], None]) -> None:
    """Call `end` when standard input is closed: whoever held the other side is gone, or wants this."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            end()

    loop.add_reader(0, read)


def outlive_parent() -> None:
    """Live on without the parent, and without its input."""
    kill_at_end_of_parent(0)
    asyncio.get_running_loop().remove_reader(0)


async def abandoned(heartbeat: Path, patience_seconds: float) -> None:
    """Return once nobody has touched the file for so long; this process's own clock counts, not the file's times."""
    loop = asyncio.get_running_loop()
    touched, seen = _touched(heartbeat), loop.time()
    while loop.time() - seen < patience_seconds:
        await asyncio.sleep(patience_seconds / LOOKS_PER_PATIENCE)
        if (found := _touched(heartbeat)) != touched:
            touched, seen = found, loop.time()


def _touched(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return None
