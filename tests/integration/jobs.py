"""Builders of trainings for workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import ColumnKind, ColumnSchema, StorageType, TableSchema
from easyml_server.domain.experiments import Metric, Objective, Split, SplitKind, TrainingSpec
from easyml_server.domain.training import TrainingJob


def a_spec(**changes: Any) -> TrainingSpec:
    values: dict[str, Any] = {
        "dataset_id": uuid4(),
        "dataset_version_id": uuid4(),
        "target": "y",
        "features": ("x",),
        "task": Task.CLASSIFICATION,
        "algorithm": "logistic_regression",
        "hyperparameters": {},
        "split": Split(SplitKind.RANDOM),
        "objective": Objective(Metric.ACCURACY),
        "random_seed": 0,
        "model_name": "model",
        "max_seconds": 60.0,
    }
    return TrainingSpec(**(values | changes))


def a_job(folder: Path, *, memory_bytes: int = 4 << 30, max_seconds: float = 60.0, **spec: Any) -> TrainingJob:
    schema = TableSchema((ColumnSchema("x", StorageType.DOUBLE, ColumnKind.NUMERIC),), 0)
    return TrainingJob(
        experiment_id=uuid4(),
        spec=a_spec(max_seconds=max_seconds, **spec),
        schema=schema,
        table_path=str(folder / "table.parquet"),
        output_path=str(folder),
        memory_bytes=memory_bytes,
        max_model_bytes=1 << 30,
    )
