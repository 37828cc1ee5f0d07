"""What is stored, read from the database, MongoDB, MLflow and the folder themselves, never by way of EasyML."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from tests.faults.consistency import hashes, processes_of
from tests.soak.stage import DATABASE, Stage

TABLES = (
    "datasets",
    "dataset_versions",
    "uploads",
    "ml_experiments",
    "training_events",
    "requests",
    "models",
    "model_versions",
    "alias_history",
    "projects",
    "outbox",
    "pending_documents",
)
DETAILS = ("dataset_metadata", "model_results")
JSON = ("labels", "manifest", "failure", "body")
RUNS = (
    "SELECT runs.run_uuid, tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
    "AND tags.key = 'easyml.experiment_id' WHERE runs.lifecycle_stage = 'active'"
)
Row = dict[str, Any]


@dataclass
class Stored:
    """All of it; ids are texts."""

    rows: Mapping[str, list[Row]] = field(default_factory=dict)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Bodies by collection and id."""
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """SHA-256 by version and name."""
    runs: Sequence[tuple[str, str]] = ()
    """Of MLflow: run and experiment."""
    left: Sequence[str] = ()
    """Paths of uploads, locks, and temporary files."""
    processes: Sequence[str] = ()

    def of(self, table: str) -> list[Row]:
        """The rows of a table."""
        return self.rows.get(table, [])


def read_stored(stage: Stage) -> Stored:
    """After the servers have ended."""
    servers = stage.files.parent
    kinds = ("datasets", "models")
    folders = [path for kind in kinds for path in stage.files.glob(f"files/*/{kind}/*")]
    working = {path.name for path in stage.files.glob("work/*")}
    return Stored(
        rows=asyncio.run(_rows(stage.postgres.url(DATABASE))),
        documents=_documents(stage),
        files={path.name: hashes(path) for path in folders},
        runs=_runs(stage.files / "mlflow" / "mlflow.db"),
        left=[
            str(path.relative_to(servers))
            for path in (
                *stage.files.glob("uploads/*"),
                *stage.files.glob("work/*/*"),
                *(path for path in stage.files.glob("locks/*") if path.name not in working),
                *(path for server in stage.servers for path in server.data.glob("work/*/*")),
                *(servers / "tmp").glob("*"),
            )
        ],
        processes=[str(process) for process in processes_of(servers / "any")],
    )


async def _rows(url: str) -> Mapping[str, list[Row]]:
    connection = await asyncpg.connect(url)
    try:
        return {
            table: [
                {name: _plain(name, value) for name, value in row.items()}
                for row in await connection.fetch(f'SELECT * FROM "{table}"')
            ]
            for table in TABLES
        }
    finally:
        await connection.close()


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    return json.loads(value) if name in JSON and isinstance(value, str) else value


def _documents(stage: Stage) -> Mapping[str, Mapping[str, Any]]:
    with stage.mongo.client() as client:
        database = client[stage.mongo_database]
        return {
            name: {str(found["_id"]): found["body"] for found in database[name].find({"body": {"$ne": None}})}
            for name in ("project_configs", "model_sessions", "mlflow_metadata", "dvc_metadata", *DETAILS)
        }


def _runs(path: Path) -> Sequence[tuple[str, str]]:
    if not path.exists():
        return ()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as recorded:
        return [(str(run), str(experiment)) for run, experiment in recorded.execute(RUNS).fetchall()]
