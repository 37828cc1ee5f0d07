"""One model server as a child process: started, asked over a channel of its own, stopped.

It ends with this process however that ends: the kernel kills it (Linux), and it leaves when its input is closed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from easyml_server.deployers.forwarding import Connection

ENTRY: Final = "easyml_server.serving"
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 3.0
CANNOT_START: Final = 2
CANNOT_LOAD: Final = 3
"""The exit code that says that the model is at fault."""

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
# One thread per prediction: requests are what runs side by side. The pool, because Arrow's own reserves a GiB.
ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # Else ONNX Runtime keeps a database of usage and a thread to send it.
    "ORT_DISABLE_TELEMETRY": "1",
}


class CannotStart(Exception):
    """The child ended before it answered; `model_at_fault` if it said that the model cannot be loaded."""

    def __init__(self, sentence: str, *, model_at_fault: bool = False) -> None:
        super().__init__(sentence)
        self.model_at_fault = model_at_fault


class ModelServerProcess:
    """A model server that answers; `ended` is done once it does not any more."""

    def __init__(self, process: Process, address: str) -> None:
        self._process = process
        self.connection = Connection(address)
        self.process_id = process.pid
        self.ended = asyncio.create_task(process.wait(), name=f"model-server-{process.pid}")

    async def end(self) -> None:
        """End the process; calls in flight have a moment for their answers."""
        await _end(self._process, STOP_SECONDS)
        await self.ended


async def start_process(arguments: Sequence[str]) -> ModelServerProcess:
    """Start a model server and wait until it answers. Raises CannotStart."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", ENTRY, "--lifeline", *arguments, stdin=PIPE, stdout=PIPE, env=environment()
    )
    try:
        address = await _address(process)
    except BaseException:
        await _end(process, 0)
        raise
    return ModelServerProcess(process, address)


async def _address(process: Process) -> str:
    """What the READY line says."""
    if process.stdout is None:
        raise CannotStart("its output cannot be read")
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
            if not line:
                code = await process.wait()
                raise CannotStart(f"it ended with exit code {code}", model_at_fault=code == CANNOT_LOAD)
    except TimeoutError as error:
        raise CannotStart(f"it did not answer within {START_SECONDS:.0f} seconds") from error
    word, _, address = line.decode(errors="replace").strip().partition(" ")
    if word != "READY":
        raise CannotStart("it did not say where it answers")
    return address


async def _end(process: Process, seconds: float) -> None:
    """Close its input, which it takes as the word to leave; kill it if it has not left by then."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def environment() -> dict[str, str]:
    """What a model server may know of this process's environment: no secrets."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | ENVIRONMENT
