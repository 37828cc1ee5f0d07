"""The tracking process, from the server's side.

MLflow takes seconds to import and its calls block, so it lives in a process of its own and never in the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from easyml_server.ports.tracker import RecordedRun, RunRecord
from easyml_server.processes.asked import AskedProcess
from easyml_server.tracking.messages import REQUEST, ExportRequest, Point, RecordRequest

ENTRY = "easyml_server.tracking.worker"
ANSWER_SECONDS = 300.0


class MlflowTracker:
    """Fulfils `ports.tracker.Tracker`."""

    def __init__(self, process: AskedProcess) -> None:
        self._process = process

    async def record(self, record: RunRecord) -> RecordedRun:
        """Record one run; the same experiment again replaces what a crash left half-recorded."""
        answer = await self._process.ask(lambda number: REQUEST.dump_json(_record_request(number, record)))
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
        await self._process.ask(lambda number: REQUEST.dump_json(ExportRequest(number, str(model_path), str(target))))


@asynccontextmanager
async def start_tracker(folder: Path, scratch: Path) -> AsyncIterator[MlflowTracker]:
    """A tracker on MLflow's SQLite store in a folder; its process starts when it is needed.

    `scratch` is where it puts files for a while.
    """
    environment = {
        # A server that is killed leaves what lies there, so it is a folder that is emptied at start.
        "TMPDIR": str(scratch),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    process = AskedProcess("MLflow", ENTRY, folder, environment, ANSWER_SECONDS)
    try:
        yield MlflowTracker(process)
    finally:
        await process.close()


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
