"""Trainers whose worker does something else than training, quick in all they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from easyml_server.domain.training import Report
from easyml_server.ports.trainer import Trainer
from easyml_server.trainers.dask.session import SharedFolder, Work
from easyml_server.trainers.dask.trainer import DaskTrainer, start_dask_trainer
from easyml_server.trainers.local import LocalTrainer, TrainingLimits
from easyml_server.trainers.processes import start_pool, worker_environment
from tests.dask import DaskCluster
from tests.integration.worker_entries import HERE

QUICK: Mapping[str, Any] = {"usage_seconds": 0.05, "watch_seconds": 0.01, "ask_seconds": 0.2, "terminate_seconds": 0.2}
SLOTS = 2
MARKER = "database.id"


class Trainers(Protocol):
    """Starts trainers of two slots."""

    async def __call__(self, entry: str, **limits: float) -> Trainer: ...


class LocalTrainers:
    """In processes of this machine."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def __call__(self, entry: str, **limits: float) -> Trainer:
        pool = await self._stack.enter_async_context(start_pool([HERE], worker_environment(threads=1)))
        return LocalTrainer(pool, SLOTS, TrainingLimits(**(QUICK | limits)), f"{HERE}:{entry}")


class DaskTrainers:
    """On a cluster."""

    def __init__(self, stack: AsyncExitStack, cluster: DaskCluster, folder: SharedFolder) -> None:
        self._stack = stack
        self._cluster = cluster
        self._folder = folder

    async def __call__(self, entry: str, **limits: float) -> DaskTrainer:
        trainer = await self.unready(entry, **limits)
        await available(trainer)
        return trainer

    async def unready(self, entry: str, **limits: float) -> DaskTrainer:
        """One that may have no workers yet."""
        work = Work(TrainingLimits(**(QUICK | limits)), f"{HERE}:{entry}", (HERE,))
        return await self._stack.enter_async_context(start_dask_trainer(self._cluster.address, self._folder, work))


async def available(trainer: DaskTrainer, expected: bool = True) -> None:
    """Returns once there are workers, or none any more."""
    async for is_available in trainer.availability():
        if is_available is expected:
            return


def a_shared_folder(root: Path) -> SharedFolder:
    (root / "work").mkdir(parents=True)
    (root / MARKER).write_text(f"{uuid4()}\n")
    return SharedFolder(root, MARKER)


class Reports(list[Report]):
    """What was reported, and a signal for the first report of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self._met: dict[type, asyncio.Event] = {}

    def __call__(self, report: Report) -> None:
        self.append(report)
        self._event(type(report)).set()

    async def first(self, kind: type) -> None:
        await self._event(kind).wait()

    def _event(self, kind: type) -> asyncio.Event:
        return self._met.setdefault(kind, asyncio.Event())
