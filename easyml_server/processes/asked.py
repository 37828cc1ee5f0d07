"""The server's side: a process that is started at first use, restarted after it died, and asked one thing at a time."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from easyml_server.domain.errors import Unavailable
from easyml_server.processes.answers import ANSWER, Answer

MAX_LINE_BYTES = 64 << 20
STOP_SECONDS = 3.0
RETRY_SECONDS = 5.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")


class AskedProcess:
    """Runs `python -m entry folder` in that folder; `part` is what it is called in errors."""

    def __init__(
        self, part: str, entry: str, folder: Path, environment: Mapping[str, str], answer_seconds: float
    ) -> None:
        self._part = part
        self._entry = entry
        self._folder = folder
        self._environment = environment
        self._answer_seconds = answer_seconds
        self._numbers = itertools.count(1)
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def ask(self, make: Callable[[int], bytes]) -> dict[str, Any]:
        """The result of a request, which `make` writes as one line for a number. Raises Unavailable."""
        async with self._turn:
            process = await self._running()
            request = make(next(self._numbers))
            try:
                async with asyncio.timeout(self._answer_seconds):
                    answer = await _exchange(process, request)
            except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError) as error:
                self._kill(process)
                raise self._unavailable("its process ended") from error
            except asyncio.CancelledError:
                # Half an exchange: the next answer would be taken for another question's.
                self._kill(process)
                raise
        if answer.error:
            raise self._unavailable(answer.error)
        return answer.result

    async def close(self) -> None:
        """End the process: its input closes, which it takes as the word to leave."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()
        self._process = None

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._entry,
                str(self._folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                # Libraries take the working directory for the user's project.
                cwd=self._folder,
                env={**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, **self._environment},
            )
        return self._process

    def _unavailable(self, cause: str) -> Unavailable:
        return Unavailable(
            f"{self._part} cannot be used just now ({cause}); try again.",
            retry_after=RETRY_SECONDS,
            metadata={"part": self._part.lower()},
        )


async def _exchange(process: asyncio.subprocess.Process, request: bytes) -> Answer:
    if process.stdin is None or process.stdout is None:
        raise OSError("the process has no pipes")
    process.stdin.write(request + b"\n")
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    return ANSWER.validate_json(line)
