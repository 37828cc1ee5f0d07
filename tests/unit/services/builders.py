"""Experiments, versions and deployments to test services with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import ColumnSchema, Dataset, DatasetVersion, FileFormat, StorageType, TableSchema
from easyml_server.domain.deployments import (
    Deployment,
    DeploymentConfig,
    DeploymentState,
    Revision,
    RevisionState,
)
from easyml_server.domain.experiments import (
    Experiment,
    Metric,
    MetricValue,
    Objective,
    Partition,
    Split,
    SplitKind,
    TrainingSpec,
    TrainingState,
)
from easyml_server.domain.models import ModelManifest, ModelVersion, Parity, Signature
from easyml_server.domain.projects import Project
from easyml_server.domain.results import (
    CalibrationBin,
    ClassCurve,
    ClassificationResults,
    ClassResult,
    ModelResults,
)
from easyml_server.domain.statistics import (
    ColumnStatistics,
    NumberStatistics,
    Quartiles,
    TableStatistics,
    TimeStatistics,
    ValueCount,
)
from tests.builders import TIME


def a_spec(**changes: Any) -> TrainingSpec:
    """What a short training does."""
    values: dict[str, Any] = {
        "dataset_id": uuid4(),
        "dataset_version_id": uuid4(),
        "target": "y",
        "features": ("x", "z"),
        "task": Task.CLASSIFICATION,
        "algorithm": "gaussian_nb",
        "hyperparameters": {},
        "split": Split(SplitKind.STRATIFIED),
        "objective": Objective(Metric.ACCURACY),
        "random_seed": 1,
        "model_name": "answers",
        "max_seconds": 60.0,
    }
    return TrainingSpec(**{**values, **changes})


def an_experiment(project_id: UUID | None = None, creator_id: UUID | None = None, **changes: Any) -> Experiment:
    """A queued experiment on a dataset that is not there any more."""
    values: dict[str, Any] = {
        "id": uuid4(),
        "project_id": project_id or uuid4(),
        "name": "an experiment",
        "labels": {},
        "state": TrainingState.QUEUED,
        "spec": a_spec(),
        "dataset_name": "table",
        "dataset_sha256": "0" * 64,
        "creator_id": creator_id or uuid4(),
        "create_time": TIME,
        "update_time": TIME,
        "etag": uuid4().hex,
    }
    return Experiment(**{**values, **changes})


def a_version(project: Project, **changes: Any) -> ModelVersion:
    """A model version without files."""
    manifest = ModelManifest(
        task=Task.CLASSIFICATION,
        algorithm="gaussian_nb",
        target="y",
        signature=Signature((), "y", StorageType.STRING, ("a", "b"), predicts_probabilities=True),
        artifacts=(),
        parity=Parity(proved=False, cause="It was not looked at."),
        library_versions={},
    )
    values: dict[str, Any] = {
        "id": uuid4(),
        "project_id": project.id,
        "model_id": uuid4(),
        "model_name": "answers",
        "version": 0,
        "description": "",
        "labels": {},
        "experiment_id": None,
        "dataset_version_id": None,
        "hyperparameters": {},
        "primary_metric": Metric.ACCURACY,
        "metrics": (),
        "manifest": manifest,
        "creator_id": project.creator_id,
        "create_time": TIME,
        "update_time": TIME,
        "etag": uuid4().hex,
    }
    return ModelVersion(**{**values, **changes})


def measured(value: float, metric: Metric = Metric.ACCURACY, partition: Partition = Partition.TEST) -> MetricValue:
    """One measurement."""
    return MetricValue(metric, partition, value)


def some_statistics() -> TableStatistics:
    """Of a table with a column of each kind, one of them without a finite number."""
    numbers = NumberStatistics(-1.5, 1e300, 0.1, 2.0, Quartiles(0.0, 0.25, 1.0), 3)
    unknown = NumberStatistics(None, None, None, None, None, 2)
    return TableStatistics(
        (
            ColumnStatistics("x", 97, numbers),
            ColumnStatistics("inf", 2, unknown),
            ColumnStatistics("t", 1, times=TimeStatistics(TIME, None)),
            ColumnStatistics("z", 100, frequent=(ValueCount("ü.$%", 60), ValueCount("b", 40))),
        ),
        100,
    )


def some_results() -> ModelResults:
    """Of a classification with a curve."""
    curve = ClassCurve(1, (0.9, 0.1), (0.5, 1.0), (0.0, 1.0), (1.0, 0.25), (CalibrationBin(0.9, 1, 0.9, 1.0),))
    classes = (ClassResult(1.0, 0.5, 2 / 3, 2), ClassResult(0.25, 1.0, 0.4, 1))
    return ModelResults(3, classification=ClassificationResults(classes, (curve,), 0))


def a_dataset(project_id: UUID, creator_id: UUID, columns: tuple[ColumnSchema, ...] = (), rows: int = 100) -> Dataset:
    """A dataset without a file."""
    dataset_id = uuid4()
    version = DatasetVersion(
        id=uuid4(),
        dataset_id=dataset_id,
        project_id=project_id,
        version=1,
        filename="table.csv",
        format=FileFormat.CSV,
        size_bytes=9,
        sha256="0" * 64,
        stored_bytes=9,
        stored_sha256="0" * 64,
        schema=TableSchema(columns, rows),
        warnings=(),
        keeps_original=True,
        create_time=TIME,
    )
    return Dataset(dataset_id, project_id, "table", "", {}, creator_id, TIME, TIME, uuid4().hex, version)


def a_deployment(project_id: UUID, creator_id: UUID, **changes: Any) -> Deployment:
    """One that was just made, and its first revision is on its way."""
    made = Deployment(
        id=uuid4(),
        project_id=project_id,
        name="species",
        description="",
        labels={},
        config=DeploymentConfig(),
        stopped=False,
        state=DeploymentState.PROGRESSING,
        latest_revision=1,
        active_revision=0,
        replicas=(),
        conditions=(),
        creator_id=creator_id,
        create_time=TIME,
        update_time=TIME,
        etag="etag",
        sequence=1,
    )
    return replace(made, **changes)


def a_revision(deployment: Deployment, version: ModelVersion, number: int = 1, **changes: Any) -> Revision:
    """What a deployment is to serve."""
    made = Revision(
        id=uuid4(),
        deployment_id=deployment.id,
        number=number,
        model_version_id=version.id,
        model_name=version.model_name,
        model_version=version.version,
        config=deployment.config,
        state=RevisionState.PROGRESSING,
        creator_id=deployment.creator_id,
        create_time=TIME,
    )
    return replace(made, **changes)
