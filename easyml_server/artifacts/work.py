"""Scratch of one server, on its own machine."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from easyml_server.domain.disk import disk_errors, disk_full


class WorkFolder:
    """Empty folders aside, and the space that is kept free beside them."""

    def __init__(self, work: Path, min_free_bytes: int) -> None:
        self._work = work
        self._min_free_bytes = min_free_bytes

    @property
    def work(self) -> Path:
        """Scratch of this server alone, on the disk of its files if they are in a folder."""
        return self._work

    def new_work_path(self) -> Path:
        """An empty folder aside."""
        path = self._work / uuid4().hex
        with disk_errors():
            path.mkdir(mode=0o700)
        return path

    async def discard(self, work_path: Path) -> None:
        """Remove one."""
        await asyncio.to_thread(remove_all, work_path)

    def check_free(self, needed_bytes: int) -> None:
        """Keep some space free, for the database above all."""
        if shutil.disk_usage(self._work).free - needed_bytes < self._min_free_bytes:
            raise disk_full()


def remove_all(path: Path) -> int:
    """Remove a folder or file; the bytes freed."""
    freed = bytes_of(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return freed


def bytes_of(path: Path) -> int:
    """Bytes of a folder or file."""
    # Somebody else may remove it at the same time.
    with suppress(FileNotFoundError):
        return sum(bytes_of(file) for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    return 0
