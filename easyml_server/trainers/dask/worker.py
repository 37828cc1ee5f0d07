"""What runs on a Dask worker: trainings as the local pool runs them, each in a process that can be killed.

A task that runs cannot be cancelled by Dask, and its worker may have no children of `multiprocessing`. So each worker
has a fork server of ours, and a task is a coroutine beside it that watches one training: its memory, its time, and
whether the scheduler still wants it. It does not when the training was cancelled, nor when the server that asked for it
has gone. What the training tells goes to the server as events of Dask, numbered, on the stream that also carries the
end of the task: in order, and nothing after it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Worker, get_worker

from easyml_server.domain.errors import EasyMLError
from easyml_server.domain.training import Outcome, Report, TrainingJob
from easyml_server.trainers import codec
from easyml_server.trainers.dask.versions import installed
from easyml_server.trainers.local import LocalTrainer, TrainingLimits, to_the_end, training_environment
from easyml_server.trainers.processes import ProcessPool

BEGUN, STOPPED = b"begun", b"stopped"
"""Bodies of the first message, and of the last one of a training that ended without an outcome."""
WANTED = ("executing", "long-running")
WATCH_SECONDS = 0.1
MEMORY_SHARE = 0.8

_pools: WeakKeyDictionary[Worker, dict[Sequence[str], ProcessPool]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Assignment:
    """One try of a training: the job as the codec writes it, and where its messages go."""

    key: str
    topic: str
    job: bytes
    limits: TrainingLimits
    entry: str
    preload: tuple[str, ...]


async def look(root: str, marker: str, preload: tuple[str, ...], dask_worker: Worker) -> dict[str, Any]:
    """What this worker has and sees; its fork server begins to import meanwhile."""
    await _pool(dask_worker, preload).warm_up()
    return {"versions": installed(), **await asyncio.to_thread(_seen, Path(root), marker)}


async def train(assignment: Assignment) -> None:
    """Run one training; all that there is to say of it goes to the topic."""
    worker = get_worker()
    line = _Line(worker, assignment)
    line.tell(BEGUN)
    pool = _pool(worker, assignment.preload)
    trainer = LocalTrainer(pool, 1, assignment.limits, assignment.entry)
    job = _with_memory(codec.decode_job(assignment.job), worker)
    training = asyncio.create_task(trainer.train(job, line.report))
    try:
        while not (await asyncio.wait([training], timeout=WATCH_SECONDS))[0]:
            task = worker.state.tasks.get(assignment.key)
            if task is None or task.state not in WANTED:
                break
    finally:
        # A worker that closes comes this way too, and cancels more than once.
        training.cancel()
        await to_the_end(_ended(training))
    line.tell(_last_word(training), last=True)


class _Line:
    """Where messages of one training go; the server sees by their numbers that none is missing."""

    def __init__(self, worker: Worker, assignment: Assignment) -> None:
        self._worker = worker
        self._assignment = assignment
        self._number = 0

    def report(self, report: Report) -> None:
        """Thinned already, so that what waits for the server is bounded."""
        self.tell(codec.encode_training(report))

    def tell(self, body: bytes, *, last: bool = False) -> None:
        message = {"key": self._assignment.key, "number": self._number, "last": last, "body": body}
        self._worker.log_event(self._assignment.topic, message)
        self._number += 1


async def _ended(training: asyncio.Task[Outcome]) -> None:
    await asyncio.wait([training])


def _last_word(training: asyncio.Task[Outcome]) -> bytes:
    if training.cancelled():
        return STOPPED
    error = training.exception()
    if error is None:
        return codec.encode_training(training.result())
    what = error.message if isinstance(error, EasyMLError) else ""
    return codec.encode_training(codec.Crashed(type(error).__name__, (what,)))


def _with_memory(job: TrainingJob, worker: Worker) -> TrainingJob:
    """A job that names no limit gets its part of what Dask gives this worker."""
    if job.memory_bytes:
        return job
    given = worker.memory_manager.memory_limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return replace(job, memory_bytes=int(MEMORY_SHARE * given / worker.state.nthreads))


def _pool(worker: Worker, preload: tuple[str, ...]) -> ProcessPool:
    """The fork server of this worker, which ends with it."""
    pools = _pools.setdefault(worker, {})
    if preload not in pools:
        pools[preload] = ProcessPool(preload, training_environment())
    return pools[preload]


def _seen(root: Path, marker: str) -> dict[str, Any]:
    seen: dict[str, Any] = {"marker": "", "writable": False, "user": os.getuid()}
    with suppress(OSError):
        seen["marker"] = (root / marker).read_text().strip()
        seen["writable"] = os.access(root / "work", os.W_OK | os.X_OK)
    return seen
