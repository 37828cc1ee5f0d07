"""One model server of a deployment as a process that outlives this one: started, or found again after a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from easyml_server.deployers.child import ENTRY, environment
from easyml_server.deployers.forwarding import CHANNEL
from easyml_server.domain.containers import Container
from easyml_server.domain.replica_records import ReplicaRecord, find_living
from easyml_server.processes.resources import current_usage

T = TypeVar("T")

LIVENESS: Final = "liveness"
LOOK_SECONDS: Final = 0.1
"""How often it is looked whether a process is still there, and how much memory it has."""

_READY_BYTES: Final = 4096


class StartTimeout(Exception):
    """It was not ready in time; it is gone."""


class Ended(Exception):
    """It ended before it was ready."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


class OutOfMemory(Exception):
    """It had more memory than it may, before it was ready; it is gone."""

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(f"{memory_bytes} bytes")
        self.memory_bytes = memory_bytes


class ReplicaProcess:
    """A model server that was ready. `ended` is done once it is gone, with its exit code where that can be known."""

    def __init__(self, found: ReplicaRecord, record: Path, *, is_child: bool) -> None:
        address, process_id = found.address, found.pid
        self.address = address
        self.metrics_address = found.metrics_address
        self._process_id = process_id
        self._record = record
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        gone = _end_of_child(process_id) if is_child else self._gone()
        self.ended: asyncio.Task[int | None] = asyncio.create_task(gone, name=f"replica-{process_id}")

    async def answers(self, timeout: float) -> bool:
        """Whether it says within the time that it is alive."""
        try:
            await self._health.Check(health_pb2.HealthCheckRequest(service=LIVENESS), timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def exceeding(self, most_bytes: int) -> int:
        """Wait until it has more resident memory than that; how much it has. 0 is no limit."""
        return await _exceeding(self._process_id, most_bytes)

    async def end(self, grace_seconds: float) -> None:
        """Ask it to end when it has answered what it was asked; kill it if it has not by then."""
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await asyncio.shield(self.ended)
        await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        await asyncio.shield(self.ended)
        await self.leave()

    async def leave(self) -> None:
        """Let it run, and know nothing more of it."""
        self.ended.cancel()
        await self._channel.close()

    def _signal(self, number: int) -> None:
        # Once it has ended, its number may be another's.
        if not self.ended.done() and find_living(self._record) is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process_id, number)

    async def _gone(self) -> None:
        while find_living(self._record) is not None:  # noqa: ASYNC110 (the kernel tells nobody but the parent)
            await asyncio.sleep(LOOK_SECONDS)


async def answers(address: str, name: str, timeout: float) -> bool:
    """Whether a model server is there that says within the time that it serves a model of this name."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            said = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
    return bool(said.status == health_pb2.HealthCheckResponse.SERVING)


def find_process(record: Path) -> ReplicaProcess | None:
    """The process of a record that was written before, if it lives."""
    found = find_living(record)
    return None if found is None else ReplicaProcess(found, record, is_child=False)


async def start_process(
    arguments: Sequence[str], record: Path, heartbeat: Path, log: Path, start_seconds: float, container: Container
) -> ReplicaProcess:
    """Start a model server and wait until it is ready. Raises StartTimeout, OutOfMemory, Ended and OSError.

    It ends with this process until it is ready, and not any more afterwards.
    """
    given = ("--lifeline", f"--record={record}", f"--heartbeat={heartbeat}", *arguments)
    process_id, lifeline, output = _spawn([sys.executable, "-m", ENTRY, *given], log, dict(container.environment))
    try:
        async with asyncio.timeout(start_seconds):
            reading = _ready(process_id, output, record)
            found = await _within(container.memory_limit_bytes, process_id, reading)
    except Ended:
        raise
    except BaseException as error:
        os.kill(process_id, signal.SIGKILL)
        await _end_of_child(process_id)
        if isinstance(error, TimeoutError):
            raise StartTimeout from error
        raise
    finally:
        os.close(output)
        os.close(lifeline)
    return ReplicaProcess(found, record, is_child=True)


async def _within(most_bytes: int, process_id: int, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives. Raises OutOfMemory if the process has more memory before."""
    working, watching = asyncio.create_task(work), asyncio.create_task(_exceeding(process_id, most_bytes))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise OutOfMemory(watching.result())
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.wait([working, watching])


async def _exceeding(process_id: int, most_bytes: int) -> int:
    """Wait until a process has more resident memory than that; how much. 0 is no limit, and waits for ever."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        usage = await current_usage(process_id) if most_bytes else None
        if usage is not None and usage.memory_bytes > most_bytes:
            return usage.memory_bytes


def _spawn(command: list[str], log: Path, variables: Mapping[str, str]) -> tuple[int, int, int]:
    """Start a process in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it.

    Its id, what must stay open as long as it is to live, and what it says. Not one of asyncio's, nor of `subprocess`:
    those kill their process, or complain, when it outlives them.
    """
    input_there, lifeline = os.pipe()
    output, output_there = os.pipe()
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process_id = os.posix_spawn(
            command[0],
            command,
            {**environment(), **variables},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, input_there, 0),
                (os.POSIX_SPAWN_DUP2, output_there, 1),
                (os.POSIX_SPAWN_DUP2, errors, 2),
            ],
            setsid=True,
        )
    except BaseException:
        os.close(lifeline)
        os.close(output)
        raise
    finally:
        for descriptor in (input_there, output_there, errors):
            os.close(descriptor)
    return process_id, lifeline, output


async def _ready(process_id: int, output: int, record: Path) -> ReplicaRecord:
    """Wait for its READY line; the record that it wrote before."""
    said_ready = (await _line(output)).startswith(b"READY ")
    found = find_living(record) if said_ready else None
    if found is None:
        raise Ended(await _end_of_child(process_id))
    return found


async def _line(output: int) -> bytes:
    """The first line, or less if nobody writes there any more."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        readable = asyncio.Event()
        loop.add_reader(output, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(output)
        part = os.read(output, _READY_BYTES)
        if not part:
            break
        line += part
    return line


async def _end_of_child(process_id: int) -> int:
    """Wait for its end; its exit code, negative for a signal."""
    while True:
        ended, status = os.waitpid(process_id, os.WNOHANG)  # noqa: ASYNC222 (it does not block)
        if ended:
            return os.waitstatus_to_exitcode(status)
        await asyncio.sleep(LOOK_SECONDS)
