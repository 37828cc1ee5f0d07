"""Copies of what lies in an object store, for whoever needs files: workers, model servers, MLflow, DVC."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from easyml_server.artifacts.work import remove_all
from easyml_server.ports.artifacts import VersionKey


class Copies:
    """Folders of versions, those unused longest removed first when they take too much; never one that is in use."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """The folder is emptied: nobody knows what became of it since it was filled."""
        self._folder = folder
        self._max_bytes = max_bytes
        # Least recently used first.
        self._there: dict[VersionKey, tuple[Path, int]] = {}
        self._users: Counter[VersionKey] = Counter()
        self._filling: dict[VersionKey, asyncio.Lock] = {}
        self._numbers = count()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)

    @asynccontextmanager
    async def held(self, key: VersionKey, fill: Callable[[], Awaitable[tuple[Path, int]]]) -> AsyncIterator[Path]:
        """The folder of a version; `fill` makes one to be moved here, and says its bytes."""
        self._users[key] += 1
        try:
            async with self._filling.setdefault(key, asyncio.Lock()):
                if key not in self._there:
                    await self.add(key, *await fill())
                path, _ = self._there[key] = self._there.pop(key)
            yield path
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._filling[key]
            await self._trim()

    async def add(self, key: VersionKey, folder: Path, size: int) -> None:
        """Move a folder here."""
        # A name of its own: an earlier copy may be on its way out.
        path = self._folder / f"{key.version_id}-{next(self._numbers)}"
        await asyncio.to_thread(folder.rename, path)
        self._there[key] = path, size
        await self._trim()

    async def forget(self, key: VersionKey) -> None:
        """Remove a copy; who reads it reads on."""
        path, _ = self._there.pop(key, (None, 0))
        if path is not None:
            await asyncio.to_thread(remove_all, path)

    async def forget_all(self, chosen: Callable[[VersionKey], bool]) -> None:
        """Remove some."""
        for key in [each for each in self._there if chosen(each)]:
            await self.forget(key)

    async def _trim(self) -> None:
        unused = [key for key in self._there if key not in self._users]
        while unused and sum(size for _, size in self._there.values()) > self._max_bytes:
            await self.forget(unused.pop(0))
