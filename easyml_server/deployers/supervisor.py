"""Keeps one replica of a deployment running: starts it, asks whether it is alive, and starts it again when it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from easyml_server.deployers.child import CANNOT_LOAD, CANNOT_START
from easyml_server.deployers.log_files import bound, last_lines
from easyml_server.deployers.replica_counters import Unreadable, read_call_seconds, read_counters
from easyml_server.deployers.replica_process import Ended, OutOfMemory, ReplicaProcess, StartTimeout, start_process
from easyml_server.domain.counters import ReplicaCounters, ReplicaLoad
from easyml_server.domain.deployments import Replica, ReplicaFailure, ReplicaFailureReason, ReplicaState
from easyml_server.domain.errors import EasyMLError
from easyml_server.ports.deployer import ServedRevision

LONGEST_PAUSE_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 60.0
"""Who lived this long did not die of being started."""

GRACE_SECONDS: Final = 22.0
"""Calls in flight have 20 of them."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """What all replicas are started with."""

    arguments: Sequence[str]
    folder: Path
    heartbeat: Path
    clock: Callable[[], datetime]


class Supervisor:
    """One replica, from its first start until it is stopped; `replica` says how it is."""

    def __init__(self, identity: UUID, revision: ServedRevision, launch: Launch, changed: Callable[[], None]) -> None:
        self.replica = Replica(identity, revision.number, ReplicaState.STARTING)
        self._revision = revision
        self._launch = launch
        self._changed = changed
        self._process: ReplicaProcess | None = None
        self._tells = True
        self._record = launch.folder / f"{identity}.json"
        self._log = launch.folder / f"{identity}.log"
        self._running: asyncio.Task[None] | None = None

    def begin(self, found: ReplicaProcess | None = None) -> None:
        """Keep it running from now on, be it one that runs already."""
        self._process = found
        if found is not None:
            self._show(ReplicaState.READY, found.address)
        self._running = asyncio.create_task(self._run(), name=f"replica-{self.replica.id}")

    async def retire(self) -> None:
        """Begin its end: it is not started again."""
        self._show(ReplicaState.STOPPING)
        await self._halt()

    async def stop(self, grace_seconds: float) -> None:
        """End it when it has answered what it was asked."""
        if self._process is not None:
            await self._process.end(grace_seconds)
        self._record.unlink(missing_ok=True)

    async def leave(self) -> None:
        """Let it run; one that is not ready yet ends."""
        await self._halt()
        if self._process is not None:
            await self._process.leave()

    async def counters(self) -> ReplicaCounters | None:
        """What it has counted; None if it does not run, or does not say."""
        process = self._process
        if process is None or not process.metrics_address:
            return None
        try:
            counters = await read_counters(self.replica.id, process.metrics_address)
        except Unreadable as error:
            if self._tells:
                log.warning("replica_counters_unread", replica=str(self.replica.id), error=str(error))
            self._tells = False
            return None
        self._tells = True
        return counters

    async def load(self) -> ReplicaLoad | None:
        """How busy it was so far; None if it does not run."""
        process = self._process
        if process is None or not process.metrics_address:
            return None
        try:
            return ReplicaLoad(self.replica.id, await read_call_seconds(process.metrics_address))
        except Unreadable:
            return ReplicaLoad(self.replica.id, None)

    async def _halt(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        pauses = _Pauses()
        while True:
            began = asyncio.get_running_loop().time()
            try:
                failure = await self._live()
            except Exception as error:  # whatever happens to one replica, it is tried again
                log.exception("replica_lost", replica=str(self.replica.id))
                failure = self._failure(
                    ReplicaFailureReason.CANNOT_START, f"It could not be started: {type(error).__name__}."
                )
            self._process = None
            log.warning("replica_ended", replica=str(self.replica.id), reason=failure.reason, message=failure.message)
            self._show(ReplicaState.BACKING_OFF, failure=failure)
            await asyncio.sleep(pauses.next(asyncio.get_running_loop().time() - began))
            self._show(ReplicaState.STARTING, restarted=True)

    async def _live(self) -> ReplicaFailure:
        """Start it unless it runs, and return why it ended."""
        if self._process is None:
            try:
                self._process = await self._start()
            except StartTimeout:
                seconds = self._revision.probes.startup_seconds
                return self._failure(
                    ReplicaFailureReason.START_TIMEOUT, f"It was not ready within {seconds:g} seconds."
                )
            except OutOfMemory as error:
                return self._out_of_memory(error.memory_bytes)
            except Ended as error:
                return self._failure(*_told_by(error.exit_code), error.exit_code)
            except EasyMLError as error:
                return self._failure(ReplicaFailureReason.ARTIFACT_UNAVAILABLE, error.message)
            self._show(ReplicaState.READY, self._process.address)
        exceeding = asyncio.create_task(self._process.exceeding(self._revision.container.memory_limit_bytes))
        try:
            return await self._watch(self._process, exceeding)
        finally:
            exceeding.cancel()

    async def _start(self) -> ReplicaProcess:
        async with self._revision.model.files() as files:
            return await start_process(
                [
                    f"--model={self._revision.model.version_id}={files}",
                    f"--name={self._revision.name}={self._revision.model.version_id}",
                    f"--audience={self._revision.deployment_id}",
                    *self._launch.arguments,
                ],
                self._record,
                self._launch.heartbeat,
                self._log,
                self._revision.probes.startup_seconds,
                self._revision.container,
            )

    async def _watch(self, process: ReplicaProcess, exceeding: asyncio.Task[int]) -> ReplicaFailure:
        probes = self._revision.probes
        silent = 0
        while True:
            await asyncio.wait(
                [process.ended, exceeding], timeout=probes.period_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if process.ended.done():
                code = process.ended.result()
                await process.leave()
                return self._failure(ReplicaFailureReason.EXITED, _ended_with(code), code)
            if exceeding.done():
                await process.kill()
                return self._out_of_memory(exceeding.result(), -signal.SIGKILL)
            bound(self._log)
            silent = 0 if await process.answers(probes.timeout_seconds) else silent + 1
            if silent >= probes.failure_threshold and not process.ended.done():
                await process.kill()
                return self._failure(
                    ReplicaFailureReason.UNRESPONSIVE,
                    f"It did not answer {silent} times whether it is alive, and was killed.",
                )

    def _out_of_memory(self, memory_bytes: int, exit_code: int | None = None) -> ReplicaFailure:
        limit = self._revision.container.memory_limit
        message = f"It had {memory_bytes:,} bytes of memory, above its limit of {limit}, and was killed."
        return self._failure(ReplicaFailureReason.OUT_OF_MEMORY, message, exit_code)

    def _failure(self, reason: ReplicaFailureReason, message: str, exit_code: int | None = None) -> ReplicaFailure:
        return ReplicaFailure(reason, message, self._launch.clock(), exit_code, last_lines(self._log))

    def _show(
        self,
        state: ReplicaState,
        endpoint: str = "",
        *,
        failure: ReplicaFailure | None = None,
        restarted: bool = False,
    ) -> None:
        self.replica = replace(
            self.replica,
            state=state,
            endpoint=endpoint,
            restarts=self.replica.restarts + restarted,
            last_failure=failure or self.replica.last_failure,
        )
        self._changed()


class _Pauses:
    """How long a replica that keeps ending is left alone: not at all, 1 s, and then twice as long each time."""

    def __init__(self) -> None:
        self._ends = 0

    def next(self, lived_seconds: float) -> float:
        self._ends = 1 if lived_seconds >= STEADY_SECONDS else self._ends + 1
        return min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._ends - 2)) if self._ends > 1 else 0.0


def _told_by(exit_code: int) -> tuple[ReplicaFailureReason, str]:
    if exit_code == CANNOT_LOAD:
        return ReplicaFailureReason.MODEL_REFUSED, "The stored model cannot be served; its log says why."
    if exit_code == CANNOT_START:
        return ReplicaFailureReason.CANNOT_START, "The model server could not start; its log says why."
    return ReplicaFailureReason.EXITED, f"Before it was ready: {_ended_with(exit_code)}"


def _ended_with(exit_code: int | None) -> str:
    if exit_code is None:
        return "It ended; its exit code went to a server that is gone."
    if exit_code >= 0:
        return f"It ended with exit code {exit_code}."
    with suppress(ValueError):
        return f"It was ended by {signal.Signals(-exit_code).name}."
    return f"It was ended by signal {-exit_code}."
