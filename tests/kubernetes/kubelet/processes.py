"""The process of a container."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.kubernetes.kubelet.logs import Log
from tests.servers import SHIM

LINE_BYTES = 1 << 20
SIGNALLED = 128


class CannotStart(Exception):
    """There is no such program."""


class Process:
    """One start of a container; whatever it started ends with it, and all of them with the tests."""

    def __init__(self, process: asyncio.subprocess.Process, log: Log) -> None:
        self.log = log
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Process:
        """Start it in a folder."""
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            raise CannotStart(f'exec: "{command[0]}": executable file not found in $PATH')
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-I", "-S", "-c", SHIM, str(os.getpid()), program, *command[1:]],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
            limit=LINE_BYTES,
        )
        return cls(process, Log())

    async def wait(self) -> int:
        """Its exit code, 128 and more after a signal, once all it wrote was read."""
        code = await self._process.wait()
        self._kill_all()
        await asyncio.shield(self._reading)
        return SIGNALLED - code if code < 0 else code

    def send(self, number: int) -> None:
        """A signal to it."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def stop(self, seconds: float) -> int:
        """SIGTERM, and SIGKILL after so long; its exit code."""
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                return await self.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """SIGKILL; its exit code."""
        self._kill_all()
        return await self.wait()

    def _kill_all(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.log.write(line)
        self.log.end()
