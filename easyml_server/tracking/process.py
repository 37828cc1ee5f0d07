"""The tracking process, from the server's side.

MLflow takes seconds to import and its calls block, so it lives in a process of its own and never in the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from easyml_server.ports.tracker import MirroredModel, RecordedRun, RunRecord
from easyml_server.processes.asked import AskedProcess
from easyml_server.tracking.messages import (
    REQUEST,
    ExportRequest,
    LookRequest,
    MirrorRequest,
    Point,
    RecordRequest,
    VersionToMirror,
)
from easyml_server.tracking.server import TrackingServer

ENTRY = "easyml_server.tracking.worker"
ANSWER_SECONDS = 300.0
SERVER_ANSWER_SECONDS = 1800.0
"""A large model over a slow line; others wait meanwhile, and no call does."""


class MlflowTracker:
    """Fulfils `ports.tracker.Tracker`."""

    def __init__(self, uri: str, records: AskedProcess, exports: AskedProcess) -> None:
        self._uri = uri
        self._records = records
        self._exports = exports

    @property
    def uri(self) -> str:
        """Of the tracking server, or of the database in the data folder."""
        return self._uri

    async def record(self, record: RunRecord) -> RecordedRun:
        """Record one run; the same experiment again replaces what a crash left half-recorded."""
        answer = await self._records.ask(lambda number: REQUEST.dump_json(_record_request(number, record)))
        return RecordedRun(**answer)

    async def mirror(self, model: MirroredModel) -> None:
        """Bring MLflow's registered model to this."""
        await self._records.ask(lambda number: REQUEST.dump_json(_mirror_request(number, model)))

    async def look(self) -> str:
        """Whether MLflow answers, in a sentence. Raises Unavailable."""
        answer = await self._records.ask(lambda number: REQUEST.dump_json(LookRequest(number)))
        return str(answer["sentence"])

    async def export_model(self, model_path: Path, target: Path) -> None:
        """Write a model version as a zip of an MLflow model folder."""
        await self._exports.ask(lambda number: REQUEST.dump_json(ExportRequest(number, str(model_path), str(target))))


@asynccontextmanager
async def start_tracker(folder: Path, scratch: Path, server: TrackingServer | None) -> AsyncIterator[MlflowTracker]:
    """A tracker on a tracking server, or on MLflow's SQLite store in a folder; its process starts when it is needed.

    `scratch` is where it puts files for a while.
    """
    environment = {
        # A server that is killed leaves what lies there, so it is a folder that is emptied at start.
        "TMPDIR": str(scratch),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # The project of whoever started the server is none of a model's, and what a model requires is what is here.
        "MLFLOW_UV_AUTO_DETECT": "false",
        "MLFLOW_LOG_UV_FILES": "false",
        "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    }
    exports = AskedProcess("MLflow", ENTRY, folder, environment, ANSWER_SECONDS)
    if server is None:
        records, uri = exports, f"sqlite:///{folder / 'mlflow.db'}"
    else:
        # Of its own: an export is a call, which does not wait for a server that is away.
        environment = {**environment, **server.environment}
        records, uri = AskedProcess("MLflow", ENTRY, folder, environment, SERVER_ANSWER_SECONDS), server.uri
    try:
        yield MlflowTracker(uri, records, exports)
    finally:
        await records.close()
        await exports.close()


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


def _mirror_request(number: int, model: MirroredModel) -> MirrorRequest:
    return MirrorRequest(
        id=number,
        model_id=str(model.id),
        name=model.name,
        tags=dict(model.tags),
        versions=[VersionToMirror(str(v.id), v.number, v.description, v.run_id, v.waits) for v in model.versions],
        aliases={alias: str(version_id) for alias, version_id in model.aliases.items()},
    )


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
