"""Models, their versions, aliases and files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from easyml.v1 import model_pb2
from easyml_client.resources.base import Resource
from easyml_client.resources.experiments import MetricValue
from easyml_client.resources.results import ModelResults


class ModelAlias(Resource[model_pb2.ModelAlias]):
    """A movable name of a version."""

    alias: str
    model_version_id: str
    version: int


class Model(Resource[model_pb2.Model]):
    """A named line of versions."""

    id: str
    project_id: str
    name: str
    latest_version: int
    aliases: tuple[ModelAlias, ...]
    create_time: dt.datetime
    update_time: dt.datetime


class SignatureColumn(Resource[model_pb2.SignatureColumn]):
    """One input of a model."""

    name: str
    storage_type: str | None
    kind: str | None
    nullable: bool


class Signature(Resource[model_pb2.Signature]):
    """What a model takes and gives; `classes` in the order of the probabilities."""

    inputs: tuple[SignatureColumn, ...]
    output: str
    output_type: str | None
    classes: tuple[str, ...]


class Parity(Resource[model_pb2.Parity]):
    """Whether the ONNX graph was proved to predict what the pipeline predicts."""

    proved: bool
    rows: int
    max_difference: float
    cause: str | None


class Artifact(Resource[model_pb2.Artifact]):
    """One stored form of a version: "onnx", "skops" or "mlflow"."""

    format: str
    size_bytes: int
    sha256: str


class ModelVersion(Resource[model_pb2.ModelVersion]):
    """A fitted pipeline, preprocessing included; `results` come with `models.get`."""

    id: str
    project_id: str
    model_id: str
    model_name: str
    version: int
    description: str
    labels: Mapping[str, str]
    aliases: tuple[str, ...]
    experiment_id: str | None
    dataset_version_id: str | None
    task: str | None
    algorithm: str
    hyperparameters: Mapping[str, Any] | None
    primary_metric: str | None
    metrics: tuple[MetricValue, ...]
    signature: Signature | None
    parity: Parity | None
    artifacts: tuple[Artifact, ...]
    library_versions: Mapping[str, str]
    creator_id: str
    create_time: dt.datetime
    update_time: dt.datetime
    etag: str
    input_example: tuple[Mapping[str, Any], ...]
    results: ModelResults | None
    inference_time_ms: float | None

    def metric(self, name: str, partition: str = "test") -> float | None:
        """One value, such as metric("accuracy"); None if it was not measured."""
        return next((m.value for m in self.metrics if (m.metric, m.partition) == (name, partition)), None)


class AliasHistoryEntry(Resource[model_pb2.AliasHistoryEntry]):
    """A time during which an alias pointed to a version; `end_time` is None while it lasts."""

    alias: str
    model_version_id: str
    version: int
    set_by: str
    start_time: dt.datetime
    end_time: dt.datetime | None
