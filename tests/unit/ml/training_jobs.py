"""Builders of tables and training jobs for the tests of `ml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import ColumnKind, ColumnSchema, StorageType, TableSchema
from easyml_server.domain.events import WarningRaised
from easyml_server.domain.experiments import (
    DEFAULT_METRIC,
    Failure,
    Objective,
    Split,
    SplitKind,
    TrainingSpec,
    TrainingWarningKind,
)
from easyml_server.domain.training import Outcome, Report, TrainingFailed, TrainingJob, TrainingSucceeded
from easyml_server.ml.training import train

AN_ID = UUID("00000000-0000-4000-8000-000000000001")

_ARROW = {
    StorageType.INT64: pa.int64(),
    StorageType.DOUBLE: pa.float64(),
    StorageType.STRING: pa.string(),
    StorageType.BOOL: pa.bool_(),
    StorageType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}
_KINDS = {
    StorageType.INT64: ColumnKind.NUMERIC,
    StorageType.DOUBLE: ColumnKind.NUMERIC,
    StorageType.STRING: ColumnKind.CATEGORICAL,
    StorageType.BOOL: ColumnKind.BOOLEAN,
    StorageType.TIMESTAMP: ColumnKind.DATETIME,
}

Columns = Mapping[str, tuple[StorageType, list[Any]]]


def a_mixed_table(rows: int = 160, seed: int = 0) -> dict[str, tuple[StorageType, list[Any]]]:
    """Every storage type, missing values, rare categories, and targets that can be learned."""
    rng = np.random.default_rng(seed)
    size = rng.normal(50, 20, rows)
    age = rng.integers(18, 80, rows)
    city = rng.choice(["Rome", "Oslo", "Bern", "Łódź"], rows, p=[0.5, 0.3, 0.15, 0.05])
    member = rng.random(rows) < 0.4
    since = pd.Timestamp("2020-02-28T21:30:00Z") + pd.to_timedelta(rng.integers(0, 30_000, rows), unit="h")
    score = size / 20 + age / 30 + 2 * (city == "Rome") + member + rng.normal(0, 0.3, rows)
    level = np.where(score > 6.5, "high", np.where(score < 4.5, "low", "middle"))
    return {
        "size": (StorageType.DOUBLE, _gaps(size.tolist(), 7)),
        "age": (StorageType.INT64, _gaps(age.tolist(), 11)),
        "city": (StorageType.STRING, _gaps(city.tolist(), 13)),
        "member": (StorageType.BOOL, _gaps(member.tolist(), 17)),
        "since": (StorageType.TIMESTAMP, _gaps(since.to_pydatetime().tolist(), 19)),
        "level": (StorageType.STRING, level.tolist()),
        "score": (StorageType.DOUBLE, score.tolist()),
    }


FEATURES = ("size", "age", "city", "member", "since")


def _gaps(values: list[Any], every: int) -> list[Any]:
    return [None if i % every == 0 else value for i, value in enumerate(values)]


def a_job(
    folder: Path,
    columns: Columns,
    *,
    target: str,
    task: Task = Task.CLASSIFICATION,
    algorithm: str = "logistic_regression",
    features: tuple[str, ...] | None = None,
    kinds: Mapping[str, ColumnKind] | None = None,
    split: Split | None = None,
    objective: Objective | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    folds: int = 0,
    seed: int = 7,
    max_model_bytes: int = 1 << 30,
) -> TrainingJob:
    """A job on a table that is written into `folder`; its output goes to a new folder beside."""
    schema = TableSchema(
        tuple(ColumnSchema(name, kind, (kinds or {}).get(name, _KINDS[kind])) for name, (kind, _) in columns.items()),
        len(next(iter(columns.values()))[1]),
    )
    path = folder / "table.parquet"
    pq.write_table(pa.table({name: pa.array(values, _ARROW[kind]) for name, (kind, values) in columns.items()}), path)
    output = folder / f"output-{sum(1 for _ in folder.glob('output-*'))}"
    output.mkdir()
    default = Split(SplitKind.STRATIFIED if task is Task.CLASSIFICATION else SplitKind.RANDOM, seed=seed)
    spec = TrainingSpec(
        dataset_id=AN_ID,
        dataset_version_id=AN_ID,
        target=target,
        features=features or tuple(name for name in columns if name != target),
        task=task,
        algorithm=algorithm,
        hyperparameters=dict(hyperparameters or {}),
        split=split or default,
        objective=objective or Objective(DEFAULT_METRIC[task]),
        random_seed=seed,
        model_name="a model",
        max_seconds=600,
        folds=folds,
    )
    return TrainingJob(AN_ID, spec, schema, str(path), str(output), 1 << 40, max_model_bytes)


def again(job: TrainingJob, **changes: Any) -> TrainingJob:
    """The same job with another output folder, and changes of its spec."""
    output = Path(job.output_path)
    output = output.with_name(output.name + "-again")
    output.mkdir()
    return replace(job, output_path=str(output), spec=replace(job.spec, **changes))


def run(job: TrainingJob) -> tuple[Outcome, list[Report]]:
    """The outcome of a job and all that was reported."""
    reports: list[Report] = []
    return train(job, reports.append), reports


def succeed(job: TrainingJob) -> tuple[TrainingSucceeded, list[Report]]:
    """The same, for a job that must succeed."""
    outcome, reports = run(job)
    assert isinstance(outcome, TrainingSucceeded), outcome
    return outcome, reports


def fail(job: TrainingJob) -> Failure:
    """Why a job fails that must fail; it leaves no file behind."""
    outcome, _ = run(job)
    assert isinstance(outcome, TrainingFailed), outcome
    assert list(Path(job.output_path).iterdir()) == []
    return outcome.failure


def warnings_of(reports: list[Report]) -> dict[TrainingWarningKind, list[str]]:
    """The warned-of columns by kind of warning."""
    found: dict[TrainingWarningKind, list[str]] = {}
    for report in reports:
        if isinstance(report, WarningRaised):
            found.setdefault(report.warning.kind, []).append(report.warning.column)
    return found
