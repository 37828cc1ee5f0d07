"""Model servers as child processes on loopback ports, started when they are first asked.

Each serves one model version. Requests and answers pass through as bytes, with a token in the caller's name. The ones
asked most recently stay warm; one that dies is started again by the next call, unless it dies each time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import grpc
import structlog

from easyml_server.deployers.child import CannotStart, ModelServerProcess, start_process
from easyml_server.deployers.forwarding import RETRY_SECONDS, raise_meaning, unavailable
from easyml_server.deployers.identities import Identities
from easyml_server.deployers.limits import ModelServerLimits
from easyml_server.domain.users import Caller
from easyml_server.ports.model_servers import ServedModel, StreamCall, UnaryCall

CHILD_GRACE_SECONDS: Final = 2
# Calls in flight of a server that must make room for another.
RETIRE_SECONDS: Final = 10.0
LONGEST_PAUSE_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 60.0
"""Who lived this long did not die of being started."""

log = structlog.get_logger(__name__)


class _Served:
    """One model version: its server, or the start of it, and who is using it."""

    def __init__(self, starting: asyncio.Task[ModelServerProcess]) -> None:
        self.starting = starting
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def idle(self) -> bool:
        return self._unused.is_set()

    @property
    def answering(self) -> ModelServerProcess | None:
        """The server, if it has started."""
        started = self.starting.done() and not self.starting.cancelled() and self.starting.exception() is None
        return self.starting.result() if started else None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def ready(self) -> ModelServerProcess:
        """Wait for the start, which goes on when this caller leaves. Raises CannotStart."""
        try:
            return await asyncio.shield(self.starting)
        except asyncio.CancelledError:
            if self.starting.cancelled():
                raise CannotStart("it had to make room for another") from None
            raise

    async def stop(self, patience: float) -> None:
        """End the server when its calls have ended, or when patience has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._unused.wait()
        if not self.starting.done():
            self.starting.cancel()
            await asyncio.wait([self.starting])
        server = self.answering
        if server is None:
            return
        await server.end()
        await self._unused.wait()
        await server.connection.close()


class _Pauses:
    """How long a version that keeps dying is left alone, twice as long each time."""

    def __init__(self) -> None:
        self._deaths: dict[UUID, int] = {}
        self._until: dict[UUID, float] = {}

    def died(self, version_id: UUID, lived_seconds: float, *, started: bool) -> None:
        """The first death of a server that had started costs nothing."""
        deaths = 1 if lived_seconds >= STEADY_SECONDS else self._deaths.get(version_id, 0) + 1
        self._deaths[version_id] = deaths
        free = 1 if started else 0
        pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** (deaths - free)) if deaths > free else 0.0
        self._until[version_id] = asyncio.get_running_loop().time() + pause

    def remaining(self, version_id: UUID) -> float:
        """Seconds until it may be started again."""
        return self._until.get(version_id, 0.0) - asyncio.get_running_loop().time()

    def forget(self, version_id: UUID) -> None:
        self._deaths.pop(version_id, None)
        self._until.pop(version_id, None)


class LocalModelServers:
    """Fulfils `ports.model_servers.ModelServers`."""

    def __init__(
        self, identities: Identities, jwks_path: Path, kept_warm: int, limits: ModelServerLimits, start_at_once: int
    ) -> None:
        self._identities = identities
        self._jwks_path = jwks_path
        self._kept_warm = kept_warm
        self._limits = limits
        self._places = asyncio.Semaphore(start_at_once)
        # Least recently used first.
        self._served: dict[UUID, _Served] = {}
        self._pauses = _Pauses()
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    async def predict(self, model: ServedModel, caller: Caller, request: bytes, timeout: float | None) -> bytes:
        """See ModelServers."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        served = self._find(model)
        with served.in_use():
            server = served.answering
            if server is None:
                async with asyncio.timeout_at(deadline):
                    server = await self._ready(served)
            remaining = None if deadline is None else max(0.0, deadline - loop.time())
            try:
                answer: bytes = await server.connection.unary[UnaryCall.PREDICT](
                    request, timeout=remaining, metadata=self._identities.metadata(caller, model.version_id)
                )
            except grpc.aio.AioRpcError as error:
                raise_meaning(error)
            return answer

    async def stream_predict(
        self, model: ServedModel, caller: Caller, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """See ModelServers."""
        served = self._find(model)
        with served.in_use():
            server = await self._ready(served)
            metadata = self._identities.metadata(caller, model.version_id)
            async with aclosing(server.connection.stream(StreamCall.STREAM_PREDICT, requests, metadata)) as answers:
                async for answer in answers:
                    yield answer

    async def forget(self, version_id: UUID) -> None:
        """See ModelServers."""
        self._pauses.forget(version_id)
        served = self._served.pop(version_id, None)
        if served is not None:
            await served.stop(patience=0)

    async def close(self) -> None:
        """Stop all."""
        self._closed = True
        for version_id in list(self._served):
            self._retire(version_id, patience=0)
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)

    def _find(self, model: ServedModel) -> _Served:
        """What serves a version, started if it must be; it is now the one used most recently."""
        served = self._served.pop(model.version_id, None) or self._start(model)
        self._served[model.version_id] = served
        self._make_room()
        return served

    def _start(self, model: ServedModel) -> _Served:
        pause = self._pauses.remaining(model.version_id)
        if pause > 0:
            raise unavailable("The model server of this version keeps ending, so it is left alone for a while", pause)
        if self._closed:
            raise unavailable("The model servers are being stopped", RETRY_SECONDS)
        served = _Served(asyncio.create_task(self._start_process(model), name=f"start-{model.version_id}"))
        self._in_background(self._watch(model.version_id, served))
        return served

    async def _start_process(self, model: ServedModel) -> ModelServerProcess:
        async with self._places, model.files() as path:
            server = await start_process(
                [
                    f"--model={model.version_id}={path}",
                    f"--jwks={self._jwks_path}",
                    f"--audience={model.version_id}",
                    f"--drain-grace-seconds={CHILD_GRACE_SECONDS}",
                    *self._limits.arguments(),
                ]
            )
        log.info("model_server_started", model_version_id=str(model.version_id), pid=server.process_id)
        return server

    async def _watch(self, version_id: UUID, served: _Served) -> None:
        """Notice when a server ends that nobody told to."""
        await asyncio.wait([served.starting])
        started = not served.starting.cancelled() and served.starting.exception() is None
        began = asyncio.get_running_loop().time()
        if started:
            await asyncio.wait([served.starting.result().ended])
        if self._served.get(version_id) is not served:
            return
        del self._served[version_id]
        self._pauses.died(version_id, asyncio.get_running_loop().time() - began, started=started)
        code = served.starting.result().ended.result() if started else None
        log.warning("model_server_ended", model_version_id=str(version_id), started=started, exit_code=code)
        await served.stop(patience=0)

    async def _ready(self, served: _Served) -> ModelServerProcess:
        try:
            return await served.ready()
        except CannotStart as error:
            if error.model_at_fault:
                raise unavailable(
                    "The stored model cannot be loaded; the server's log says why", LONGEST_PAUSE_SECONDS
                ) from error
            raise unavailable(f"The model server could not start: {error}", RETRY_SECONDS) from error

    def _make_room(self) -> None:
        """Stop what was not used for longest, idle ones first."""
        while len(self._served) > self._kept_warm:
            *others, _ = self._served
            idle = (version_id for version_id in others if self._served[version_id].idle)
            self._retire(next(idle, others[0]), RETIRE_SECONDS)

    def _retire(self, version_id: UUID, patience: float) -> None:
        self._in_background(self._served.pop(version_id).stop(patience))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


@asynccontextmanager
async def start_model_servers(
    identities: Identities,
    jwks_path: Path,
    *,
    kept_warm: int,
    limits: ModelServerLimits,
) -> AsyncIterator[LocalModelServers]:
    """Model servers on this machine; each starts when its model is first asked, and all are stopped at the end."""
    servers = LocalModelServers(
        identities,
        jwks_path,
        kept_warm,
        limits,
        start_at_once=os.cpu_count() or 1,
    )
    try:
        yield servers
    finally:
        await servers.close()
