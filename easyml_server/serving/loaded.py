"""Which models are in memory, which calls need them, and how room is made within a budget.

The event loop changes it. A call in a thread counts itself with a model for as long as it needs it; one that is
answered on the loop need not, since nothing else happens meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import structlog

from easyml_server.serving.budget import InMemory, who_leaves
from easyml_server.serving.loading import give_back
from easyml_server.serving.metrics import ServingMetrics
from easyml_server.serving.models import LoadedModel

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    """A model in memory; a larger `asked` is later."""

    model: LoadedModel
    bytes: int
    asked: int


class LoadedModels:
    """Models in memory by their versions. `budget` is in bytes; 0: there is always room."""

    def __init__(self, budget: int, metrics: ServingMetrics) -> None:
        self.budget = budget
        self.quick = True
        self.lock = threading.Lock()
        self._metrics = metrics
        self._entries: dict[str, _Entry] = {}
        self._asked = itertools.count()
        self._calls: Counter[str] = Counter()
        self._freed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "load")
        self._leaving: set[asyncio.Task[None]] = set()

    def __contains__(self, version: object) -> bool:
        return version in self._entries

    def find(self, version: str) -> LoadedModel | None:
        """A model, asked now."""
        entry = self._entries.get(version)
        if entry is None:
            return None
        entry.asked = next(self._asked)
        return entry.model

    def begin(self, version: str) -> None:
        """A call needs a version from now on; under the lock where it is not on the loop."""
        self._calls[version] += 1

    def end(self, versions: Iterable[str]) -> None:
        """So many calls ended."""
        with self.lock:
            self._calls.subtract(versions)

    def add(self, model: LoadedModel, size: int) -> None:
        """A model that room was made for."""
        self._entries[model.version_id] = _Entry(model, size, next(self._asked))
        self._changed()
        self._metrics.loaded(model.version_id, size)
        log.info("model_loaded", model_version_id=model.version_id, bytes=size)

    async def make_room(self, size: int) -> None:
        """Wait until there is room within the budget, which is large enough; who was not asked for longest leaves."""
        while True:
            self._freed.clear()
            with self.lock:
                leaving = who_leaves(self._in_memory(), size, self.budget) if self.budget else []
                entries = [self._entries.pop(version) for version in leaving or ()]
            if entries:
                await self._let_go(entries)
            if leaving is not None:
                return
            await self._freed.wait()

    def has_room(self, size: int) -> bool:
        """Whether none need leave."""
        return not self.budget or sum(entry.bytes for entry in self._entries.values()) + size <= self.budget

    def settle(self, is_wanted: Callable[[str], bool]) -> None:
        """Calls ended, or what is wanted changed: what nobody wants goes once no call needs it; who waits looks."""
        with self.lock:
            self._calls += Counter()
            left = [each for each in self._entries if not self._calls[each] and not is_wanted(each)]
            entries = [self._entries.pop(version) for version in left]
        self._freed.set()
        if entries:
            task = asyncio.ensure_future(self._let_go(entries))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run what blocks, one after the other."""
        return await self._loop.run_in_executor(self._thread, function, *arguments)

    async def close(self) -> None:
        """Nothing is loaded any more."""
        await asyncio.gather(*self._leaving)
        self._thread.shutdown()

    def _in_memory(self) -> list[InMemory]:
        return [
            InMemory(version, entry.bytes, entry.asked, self._calls[version])
            for version, entry in self._entries.items()
        ]

    async def _let_go(self, entries: list[_Entry]) -> None:
        """Free models, in a thread: a forest has many pieces."""
        self._changed()
        for version, size in [(entry.model.version_id, entry.bytes) for entry in entries]:
            self._metrics.let_go(version)
            log.info("model_let_go", model_version_id=version, bytes=size)

        def free() -> None:
            entries.clear()
            give_back()

        await self.in_thread(free)

    def _changed(self) -> None:
        self.quick = all(entry.model.quick for entry in self._entries.values())
