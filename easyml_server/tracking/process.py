"""The tracking process, from the server's side: started at first use, restarted after it died, asked one at a time.

MLflow takes seconds to import and its calls block, so it lives in a process of its own and never in the server.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from easyml_server.domain.errors import Unavailable
from easyml_server.ports.tracker import RecordedRun, RunRecord
from easyml_server.tracking.messages import ANSWER, REQUEST, Answer, ExportRequest, Point, RecordRequest, Request

ENTRY = "easyml_server.tracking.worker"
MAX_LINE_BYTES = 64 << 20
ANSWER_SECONDS = 300.0
STOP_SECONDS = 3.0
RETRY_SECONDS = 5.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")


class MlflowTracker:
    """Fulfils `ports.tracker.Tracker`."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder = folder
        self._scratch = scratch
        self._numbers = itertools.count(1)
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def record(self, record: RunRecord) -> RecordedRun:
        """Record one run; the same experiment again replaces what a crash left half-recorded."""
        answer = await self._ask(lambda number: _record_request(number, record))
        return RecordedRun(
            tracking_uri=answer["tracking_uri"],
            mlflow_experiment_id=answer["mlflow_experiment_id"],
            run_id=answer["run_id"],
            artifact_uri=answer["artifact_uri"],
            model_uri=answer["model_uri"],
            details={},
        )

    async def export_model(self, model_path: Path, target: Path) -> None:
        """Write a model version as a zip of an MLflow model folder."""
        await self._ask(lambda number: ExportRequest(number, str(model_path), str(target)))

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

    async def _ask(self, make: Callable[[int], Request]) -> dict[str, Any]:
        async with self._turn:
            process = await self._running()
            request = make(next(self._numbers))
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await _exchange(process, REQUEST.dump_json(request))
            except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError) as error:
                with suppress(ProcessLookupError):
                    process.kill()
                self._process = None
                raise _unavailable("the tracking process ended") from error
            except asyncio.CancelledError:
                # Half an exchange: the next answer would be taken for another question's.
                with suppress(ProcessLookupError):
                    process.kill()
                self._process = None
                raise
        if answer.error:
            raise _unavailable(answer.error)
        return answer.result

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                ENTRY,
                str(self._folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                # MLflow would take the project files of the working directory along with each model.
                cwd=self._folder,
                env={
                    **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
                    # A server that is killed leaves what lies there, so it is a folder that is emptied at start.
                    "TMPDIR": str(self._scratch),
                    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                },
            )
        return self._process


@asynccontextmanager
async def start_tracker(folder: Path, scratch: Path) -> AsyncIterator[MlflowTracker]:
    """A tracker on MLflow's SQLite store in a folder; its process starts when it is needed.

    `scratch` is where it puts files for a while.
    """
    tracker = MlflowTracker(folder, scratch)
    try:
        yield tracker
    finally:
        await tracker.close()


async def _exchange(process: asyncio.subprocess.Process, request: bytes) -> Answer:
    if process.stdin is None or process.stdout is None:
        raise OSError("the tracking process has no pipes")
    process.stdin.write(request + b"\n")
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    return ANSWER.validate_json(line)


def _record_request(number: int, record: RunRecord) -> RecordRequest:
    return RecordRequest(
        id=number,
        experiment_id=str(record.experiment_id),
        experiment_name=record.experiment_name,
        run_name=record.run_name,
        status=record.status,
        start_ms=_milliseconds(record.start_time),
        end_ms=_milliseconds(record.end_time),
        parameters=dict(record.parameters),
        metrics=[Point(p.key, p.value, p.step, _milliseconds(p.time)) for p in record.metrics],
        tags=dict(record.tags),
        model_path=str(record.model_path) if record.model_path else None,
    )


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _unavailable(cause: str) -> Unavailable:
    return Unavailable(
        f"MLflow cannot be used just now ({cause}); try again.",
        retry_after=RETRY_SECONDS,
        metadata={"part": "mlflow"},
    )
