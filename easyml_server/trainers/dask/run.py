"""One try of a training on the cluster, as the server sees it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from distributed import Future, wait

from easyml_server.domain.experiments import Failure, FailureKind, FailureReason
from easyml_server.domain.training import Outcome, Report, TrainingFailed, TrainingInterrupted, TrainingSucceeded
from easyml_server.trainers import codec
from easyml_server.trainers.dask.worker import BEGUN, STOPPED

BEGIN_SECONDS = 1.0
"""A task that was cancelled may have begun just then: until its first message would be here."""
STOP_SECONDS = 8.0
"""Until a training that is asked, terminated and killed has told its end; longer than all that takes."""

_log = logging.getLogger(__name__)


class Run:
    """A task of Dask and the messages of its training."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.address: str | None = None
        """The worker it runs on, once it runs."""
        self._future: Future[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._messages: asyncio.Queue[Mapping[str, Any] | TrainingInterrupted] = asyncio.Queue()
        self._expected = 0
        self._begun = asyncio.Event()
        self._over = asyncio.Event()

    def follow(self, future: Future[None]) -> None:
        """Watch the task as well, which may end without a message."""
        self._future = future
        self._watcher = asyncio.create_task(self._watch(future))

    def hear(self, message: Mapping[str, Any]) -> None:
        """A message of its training; they come in the order in which they were sent."""
        if message["body"] == BEGUN:
            self.address = message["worker"]
            self._begun.set()
        if message["last"]:
            self._over.set()
        self._messages.put_nowait(message)

    def interrupt(self, cause: str) -> None:
        """Nothing more will come."""
        self._over.set()
        self._messages.put_nowait(TrainingInterrupted(cause))

    async def outcome(self, report: Callable[[Report], None]) -> Outcome | TrainingInterrupted:
        """How it ended; reports are handed on meanwhile."""
        while True:
            message = await self._messages.get()
            if isinstance(message, TrainingInterrupted):
                return message
            if (ending := self._take(message, report)) is not None:
                return ending

    async def stop(self) -> None:
        """Cancel it, and wait until its end is told, or its worker is gone."""
        if self._future is None or self._over.is_set():
            return
        await self._unwatch()
        await self._future.cancel()
        if await _within(BEGIN_SECONDS, self._begun):
            await _within(STOP_SECONDS, self._over)

    async def close(self) -> None:
        """Let go of the task: one that still runs is wanted by nobody then, and its worker ends it."""
        await self._unwatch()
        if self._future is not None:
            self._future.release()

    def _take(
        self, message: Mapping[str, Any], report: Callable[[Report], None]
    ) -> Outcome | TrainingInterrupted | None:
        if message["number"] != self._expected:
            # Dask begins again what it lost, in the same folder; what the lost one still writes there is not trusted.
            return TrainingInterrupted("The Dask worker that ran this was lost")
        self._expected += 1
        match message["body"]:
            case body if body == BEGUN:
                return None
            case body if body == STOPPED:
                return TrainingInterrupted(f"The Dask worker {self.address} gave this up")
            case body:
                return self._decoded(body, report)

    def _decoded(self, body: bytes, report: Callable[[Report], None]) -> Outcome | None:
        try:
            told = codec.decode_training(body)
        except ValueError:
            _log.exception("The Dask worker of %s sent what is no message.", self.key)
            return _internal("The worker and the server did not understand each other.")
        match told:
            case TrainingSucceeded() | TrainingFailed():
                return told
            case codec.Crashed(error, trace):
                _log.error("%s met %s on its Dask worker: %s", self.key, error, " < ".join(trace))
                return _internal("The training met an error that is the server's fault.")
            case _:
                report(told)
                return None

    async def _watch(self, future: Future[None]) -> None:
        # Lost with the scheduler, a task counts as cancelled.
        with suppress(concurrent.futures.CancelledError):
            await wait([future])
        if future.status == "error":
            _log.error("%s could not be run on the cluster: %r", self.key, await future.exception())
        self.interrupt(f"The Dask cluster lost this training ({future.status})")

    async def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)


def _internal(message: str) -> TrainingFailed:
    return TrainingFailed(Failure(FailureKind.SYSTEM, FailureReason.INTERNAL, message))


async def _within(seconds: float, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
