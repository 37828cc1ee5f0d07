"""Models, their versions and aliases, and the manifest that lies beside a stored model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.experiments import Metric, MetricValue


class ArtifactFormat(StrEnum):
    """Forms of a stored model; names as in the contract."""

    ONNX = "onnx"
    SKOPS = "skops"
    MLFLOW = "mlflow"


@dataclass(frozen=True, slots=True)
class SignatureColumn:
    """One input. `categories` are the values seen in training, as text, for noting unseen ones; empty for others."""

    name: str
    storage_type: StorageType
    kind: ColumnKind
    nullable: bool
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives; `classes` as text, in the order of the probabilities."""

    inputs: tuple[SignatureColumn, ...]
    output: str
    output_type: StorageType
    classes: tuple[str, ...] = ()
    predicts_probabilities: bool = False


@dataclass(frozen=True, slots=True)
class Parity:
    """Whether the ONNX graph predicts what the pipeline predicts, over how many rows, and why not."""

    proved: bool
    rows: int = 0
    max_difference: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stored form; `filename` is relative to the version's folder."""

    format: ArtifactFormat
    filename: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """`manifest.json` in a version's folder: all a model server needs to serve it.

    `input_example` holds the first training rows, raw as in the table (timestamps as ISO 8601 text). `table_sha256` is
    of the Parquet it learned from.
    """

    task: Task
    algorithm: str
    target: str
    signature: Signature
    artifacts: tuple[Artifact, ...]
    parity: Parity
    library_versions: Mapping[str, str]
    input_example: tuple[Mapping[str, Any], ...] = ()

    @property
    def served(self) -> Artifact | None:
        """What model servers load: the graph where there is one, since it is much faster, else the pipeline."""
        stored = {artifact.format: artifact for artifact in self.artifacts}
        return stored.get(ArtifactFormat.ONNX) or stored.get(ArtifactFormat.SKOPS)


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """A movable name of a version."""

    alias: str
    model_version_id: UUID
    version: int


@dataclass(frozen=True, slots=True)
class Model:
    """A named line of versions."""

    id: UUID
    project_id: UUID
    name: str
    latest_version: int
    create_time: datetime
    update_time: datetime
    aliases: tuple[ModelAlias, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A fitted pipeline, preprocessing included; `inference_time_ms` is for one row, and None if nobody measured it."""

    id: UUID
    project_id: UUID
    model_id: UUID
    model_name: str
    version: int
    description: str
    labels: Mapping[str, str]
    experiment_id: UUID | None
    dataset_version_id: UUID | None
    hyperparameters: Mapping[str, Any]
    primary_metric: Metric
    metrics: tuple[MetricValue, ...]
    manifest: ModelManifest
    creator_id: UUID
    create_time: datetime
    update_time: datetime
    etag: str
    aliases: tuple[str, ...] = field(default_factory=tuple)
    inference_time_ms: float | None = None


@dataclass(frozen=True, slots=True)
class RecordedVersion:
    """A version and the MLflow run of its experiment; without one it `awaits_run`, unless the experiment is gone."""

    id: UUID
    version: int
    description: str
    run_id: str | None
    awaits_run: bool


@dataclass(frozen=True, slots=True)
class AliasHistoryEntry:
    """A time during which an alias pointed to a version; `end_time` is None while it lasts."""

    id: UUID
    model_id: UUID
    alias: str
    model_version_id: UUID
    version: int
    set_by: UUID
    start_time: datetime
    end_time: datetime | None = None
