"""The documents, and the layout that all of them make together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from easyml_server.domain.experiments import TrainingStage, TrainingState
from easyml_server.domain.projects import ProjectConfig
from easyml_server.domain.sessions import MlflowRun, TrainingSession
from easyml_server.domain.versioning import AddedVersion, DvcPointer, VersionKind
from easyml_server.repositories.documents.details import DatasetMetadataDocument, ModelResultDocument
from easyml_server.repositories.documents.document import Document


class ProjectConfigDocument(Document):
    """What trainings and storage of a project start from."""

    collection = "project_configs"

    default_hyperparameters: dict[str, dict[str, Any]]
    mlflow_experiment: str
    storage_max_bytes: int
    keep_original_files: bool
    update_time: datetime | None
    etag: str

    @classmethod
    def of(cls, config: ProjectConfig) -> Self:
        """The document of a configuration."""
        return cls(
            id=config.project_id,
            default_hyperparameters={name: dict(values) for name, values in config.default_hyperparameters.items()},
            mlflow_experiment=config.mlflow_experiment,
            storage_max_bytes=config.storage_max_bytes,
            keep_original_files=config.keep_original_files,
            update_time=config.update_time,
            etag=config.etag,
        )

    def to_domain(self) -> ProjectConfig:
        """The configuration; its visibility is in the project's row."""
        return ProjectConfig(
            project_id=self.id,
            default_hyperparameters=self.default_hyperparameters,
            mlflow_experiment=self.mlflow_experiment,
            storage_max_bytes=self.storage_max_bytes,
            keep_original_files=self.keep_original_files,
            update_time=self.update_time,
            etag=self.etag,
        )


class ModelSessionDocument(Document):
    """The live session of a training."""

    collection = "model_sessions"

    state: TrainingState
    stage: TrainingStage | None
    fold: int
    folds: int
    iteration: int
    iterations: int
    values: dict[str, float]
    update_time: datetime | None

    @classmethod
    def of(cls, session: TrainingSession) -> Self:
        """The document of a session."""
        return cls(
            id=session.experiment_id,
            state=session.state,
            stage=session.stage,
            fold=session.fold,
            folds=session.folds,
            iteration=session.iteration,
            iterations=session.iterations,
            values=dict(session.values),
            update_time=session.update_time,
        )

    def to_domain(self) -> TrainingSession:
        """The session."""
        return TrainingSession(
            experiment_id=self.id,
            state=self.state,
            stage=self.stage,
            fold=self.fold,
            folds=self.folds,
            iteration=self.iteration,
            iterations=self.iterations,
            values=self.values,
            update_time=self.update_time,
        )


def _with_problem(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**body, "problem": None}


class MLflowMetadataDocument(Document):
    """Where an experiment was recorded for MLflow, or why it is not yet."""

    collection = "mlflow_metadata"
    upgrades = (_with_problem,)

    tracking_uri: str
    mlflow_experiment_id: str
    run_id: str
    artifact_uri: str
    model_uri: str
    create_time: datetime
    problem: str | None

    @classmethod
    def of(cls, run: MlflowRun) -> Self:
        """The document of a recorded run."""
        return cls(
            id=run.experiment_id,
            tracking_uri=run.tracking_uri,
            mlflow_experiment_id=run.mlflow_experiment_id,
            run_id=run.run_id,
            artifact_uri=run.artifact_uri,
            model_uri=run.model_uri,
            create_time=run.create_time,
            problem=run.problem,
        )

    def to_domain(self) -> MlflowRun:
        """The recorded run."""
        return MlflowRun(
            experiment_id=self.id,
            tracking_uri=self.tracking_uri,
            mlflow_experiment_id=self.mlflow_experiment_id,
            run_id=self.run_id,
            artifact_uri=self.artifact_uri,
            model_uri=self.model_uri,
            create_time=self.create_time,
            problem=self.problem,
        )


class DVCMetadataDocument(Document):
    """Where a version of a dataset or model is in DVC."""

    collection = "dvc_metadata"

    project_id: UUID
    kind: VersionKind
    file_name: str
    content: str
    md5: str
    size_bytes: int
    paths: tuple[str, ...]
    remote_name: str
    remote_url: str
    add_time: datetime
    push_time: datetime | None
    problem: str | None

    @classmethod
    def of(cls, pointer: DvcPointer) -> Self:
        """The document of a pointer."""
        added = pointer.added
        return cls(
            id=pointer.version_id,
            project_id=pointer.project_id,
            kind=pointer.kind,
            file_name=added.file_name,
            content=added.content,
            md5=added.md5,
            size_bytes=added.size_bytes,
            paths=added.paths,
            remote_name=pointer.remote_name,
            remote_url=pointer.remote_url,
            add_time=pointer.add_time,
            push_time=pointer.push_time,
            problem=pointer.problem,
        )

    def to_domain(self) -> DvcPointer:
        """The pointer."""
        return DvcPointer(
            version_id=self.id,
            project_id=self.project_id,
            kind=self.kind,
            added=AddedVersion(self.file_name, self.content, self.md5, self.size_bytes, self.paths),
            remote_name=self.remote_name,
            remote_url=self.remote_url,
            add_time=self.add_time,
            push_time=self.push_time,
            problem=self.problem,
        )


KINDS: tuple[type[Document], ...] = (
    ProjectConfigDocument,
    ModelSessionDocument,
    MLflowMetadataDocument,
    DVCMetadataDocument,
    DatasetMetadataDocument,
    ModelResultDocument,
)
LAYOUT = 3
"""Grows with every change of a shape, a validator or an index; a test compares it with what they are."""
