"""Processes that can be killed: the server's side of the fork server (forkserver.py) and of each worker."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Any, Self

from easyml_server.domain.errors import Unavailable
from easyml_server.domain.faults import FAULT_VARIABLE
from easyml_server.trainers.channel import LENGTH

MAX_MESSAGE_BYTES = 64 << 20
_STOP_SECONDS = 5.0
_WARM_UP_SECONDS = 120.0
_KEPT_VARIABLES = ("PATH", "TMPDIR", FAULT_VARIABLE)
_log = logging.getLogger(__name__)


class BrokenMessage(Exception):
    """A worker sent what is no message of ours, or a larger one than is taken."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits that the kernel enforces; None is unlimited."""

    address_space_bytes: int | None = None
    cpu_seconds: int | None = None
    file_bytes: int | None = None


def worker_environment(threads: int, extra: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """All that workers see of the environment: nothing of the server's but the search path and the scratch folder.

    Numerical libraries read their number of threads when they load. With one thread sums are made in one order, so a
    training repeats exactly; and processes share the cores instead of fighting for them.
    """
    return {
        **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "MALLOC_ARENA_MAX": "2",
        # mimalloc reserves 1 GiB at once, and the thread of jemalloc would not survive a fork.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        # From its import on, onnxruntime keeps a file of usage in the home folder and a thread that sends it away.
        "ORT_DISABLE_TELEMETRY": "1",
        **extra,
    }


class WorkerProcess:
    """One worker: messages both ways, signals, and its end."""

    def __init__(
        self,
        process_id: int,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pool: _ForkServer,
    ) -> None:
        self.process_id = process_id
        self._number = number
        self._reader = reader
        self._writer = writer
        self._pool = pool

    async def receive(self) -> bytes | None:
        """The next message; None when the worker has closed its end, which it does at the latest by dying."""
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > MAX_MESSAGE_BYTES:
                raise BrokenMessage(f"A worker announced a message of {length} bytes.")
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None

    async def send(self, message: bytes) -> None:
        """Send a message; a worker that has died does not mind."""
        self._writer.write(LENGTH.pack(len(message)) + message)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def signal(self, number: int) -> None:
        """Signal the worker and what it started; one that has ended does not mind."""
        self._pool.send_signal(self._number, number)

    async def wait(self) -> int:
        """Its exit code; negative is the signal that ended it."""
        return await asyncio.shield(self._pool.exit_of(self._number))

    async def close(self) -> None:
        """Kill it if it still lives, and wait until it is gone."""
        self._writer.close()
        self.signal(signal.SIGKILL)
        try:
            await asyncio.wait_for(self.wait(), _STOP_SECONDS)
        except TimeoutError:
            # The fork server does not do its work; without it all its workers end and a new one is started.
            self._pool.kill()
            await self.wait()
        self._pool.forget(self._number)
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class _ForkServer:
    """One fork server as long as it lives."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._numbers = count(1)
        self._starts: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, preload: Sequence[str], environment: Mapping[str, str]) -> Self:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "easyml_server.trainers.forkserver",
                str(theirs.fileno()), str(os.getpid()), *preload,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                env=dict(environment), pass_fds=[theirs.fileno()],
            )  # fmt: skip
        return cls(process, ours)

    @property
    def alive(self) -> bool:
        return not self._listener.done()

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def ready(self) -> None:
        await asyncio.shield(self._ready)

    async def fork(self, request: Mapping[str, Any]) -> WorkerProcess:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        started = self._starts[number] = loop.create_future()
        self._exits[number] = loop.create_future()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._send({"do": "start", "id": number, **request}, theirs.fileno())
                process_id = await started
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            self.send_signal(number, signal.SIGKILL)
            self._exits[number].add_done_callback(lambda _: self.forget(number))
            raise
        return WorkerProcess(process_id, number, reader, writer, self)

    def send_signal(self, number: int, what: int) -> None:
        if (exited := self._exits.get(number)) and not exited.done():
            with contextlib.suppress(OSError):
                self._send({"do": "signal", "id": number, "signal": int(what)})

    def exit_of(self, number: int) -> asyncio.Future[int]:
        return self._exits[number]

    def forget(self, number: int) -> None:
        self._exits.pop(number, None)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        self._control.close()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await self._listener

    def _send(self, request: Mapping[str, Any], *descriptors: int) -> None:
        body = json.dumps(request).encode()
        socket.send_fds(self._control, [LENGTH.pack(len(body)) + body], descriptors)

    async def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for above
        try:
            async for line in self._process.stdout:
                self._take(json.loads(line))
        except asyncio.CancelledError:
            # The loop ends, as in a Dask worker that is told to: who waits for a worker would wait for ever.
            self.kill()
            raise
        finally:
            self._lose()

    def _take(self, answer: Mapping[str, Any]) -> None:
        if "started" in answer:
            _settle(self._starts.pop(answer["started"]), answer["pid"])
        elif "exited" in answer:
            _settle(self._exits.get(answer["exited"]), answer["code"])
        else:
            for module, error in answer["failures"].items():
                _log.warning("Workers will import %s themselves: importing it ahead failed (%s).", module, error)
            _settle(self._ready, None)

    def _lose(self) -> None:
        """The fork server has ended, and its workers with it."""
        gone = Unavailable("Workers cannot be started just now; try again.", retry_after=1.0)
        waiters: list[asyncio.Future[Any]] = [self._ready, *self._starts.values()]
        for waiting in waiters:
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # seen, even if nobody waits any more
        for exited in self._exits.values():
            _settle(exited, -signal.SIGKILL)


def _settle(future: asyncio.Future[Any] | None, value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)


class ProcessPool:
    """Starts workers, from a fork server that has imported `preload`, and replaces that server if it dies.

    Outside Linux nothing is imported ahead: system libraries there do not survive a fork once they are in use.
    """

    def __init__(self, preload: Sequence[str], environment: Mapping[str, str]) -> None:
        self._preload = tuple(preload) if sys.platform == "linux" else ()
        self._environment = dict(environment)
        self._server: _ForkServer | None = None
        self._lock = asyncio.Lock()

    @property
    def process_id(self) -> int | None:
        """The fork server's, while there is one."""
        return self._server.process_id if self._server else None

    async def warm_up(self) -> None:
        """Start the fork server and return at once; it imports in the background.

        To be called in the thread that lives as long as the server: on Linux the fork server dies with it.
        """
        await self._living()

    async def start(
        self, entry: str, *, limits: ProcessLimits = ProcessLimits(), folder: str = "", quiet: bool = False
    ) -> WorkerProcess:
        """Fork a worker that calls `entry` ("module:function") with its Channel.

        `folder` becomes its working folder; a quiet one prints nowhere. Raises Unavailable.
        """
        server = await self._living()
        async with asyncio.timeout(_WARM_UP_SECONDS):
            await server.ready()
            return await server.fork(
                {"entry": entry, "limits": dataclasses.asdict(limits), "folder": folder, "quiet": quiet}
            )

    async def close(self) -> None:
        """End the fork server and every worker."""
        async with self._lock:
            if self._server:
                await self._server.close()
                self._server = None

    async def _living(self) -> _ForkServer:
        async with self._lock:
            if self._server and not self._server.alive:
                _log.error("The process that workers are forked from died; starting another.")
                await self._server.close()
                self._server = None
            if self._server is None:
                self._server = await _ForkServer.start(self._preload, self._environment)
            return self._server


@contextlib.asynccontextmanager
async def start_pool(
    preload: Sequence[str], environment: Mapping[str, str], *, warm: bool = True
) -> AsyncIterator[ProcessPool]:
    """A pool that is warming up, unless it is to wait for its first worker, and that leaves no process behind."""
    pool = ProcessPool(preload, environment)
    try:
        if warm:
            await pool.warm_up()
        yield pool
    finally:
        await pool.close()
