"""Models, their versions and aliases."""

from __future__ import annotations

from uuid import UUID

from easyml.v1 import model_pb2, model_service_pb2
from easyml_server.domain.models import AliasHistoryEntry, Model, ModelVersion, Signature
from easyml_server.services.models import DescribedVersion, VersionName
from easyml_server.transport.converters.enums import ARTIFACT_FORMAT, COLUMN_KIND, METRIC, STORAGE_TYPE, TASK
from easyml_server.transport.converters.experiments import metric_to_proto
from easyml_server.transport.converters.results import results_to_proto
from easyml_server.transport.converters.values import struct, text, timestamp


def model_to_proto(model: Model) -> model_pb2.Model:
    """A model and where its aliases point."""
    return model_pb2.Model(
        id=str(model.id),
        project_id=str(model.project_id),
        name=model.name,
        latest_version=model.latest_version,
        aliases=[
            model_pb2.ModelAlias(alias=alias.alias, model_version_id=str(alias.model_version_id), version=alias.version)
            for alias in model.aliases
        ],
        create_time=timestamp(model.create_time),
        update_time=timestamp(model.update_time),
    )


def version_to_proto(version: ModelVersion, *, full: bool) -> model_pb2.ModelVersion:
    """A version; without measurements, settings and signature in a basic view."""
    manifest = version.manifest
    message = model_pb2.ModelVersion(
        id=str(version.id),
        project_id=str(version.project_id),
        model_id=str(version.model_id),
        model_name=version.model_name,
        version=version.version,
        description=version.description,
        labels=version.labels,
        aliases=version.aliases,
        experiment_id=text(version.experiment_id),
        dataset_version_id=text(version.dataset_version_id),
        task=TASK.to_proto(manifest.task),
        algorithm=manifest.algorithm,
        primary_metric=METRIC.to_proto(version.primary_metric),
        creator_id=str(version.creator_id),
        create_time=timestamp(version.create_time),
        update_time=timestamp(version.update_time),
        etag=version.etag,
    )
    if full:
        _fill_details(message, version)
    return message


def described_to_proto(described: DescribedVersion) -> model_pb2.ModelVersion:
    """A version with how it did in detail."""
    message = version_to_proto(described.version, full=True)
    results = results_to_proto(described.results, described.version.manifest.signature.classes)
    if results is not None:
        message.results.CopyFrom(results)
    return message


def _fill_details(message: model_pb2.ModelVersion, version: ModelVersion) -> None:
    manifest = version.manifest
    message.hyperparameters.CopyFrom(struct(version.hyperparameters))
    message.metrics.extend(metric_to_proto(metric) for metric in version.metrics)
    message.signature.CopyFrom(_signature_to_proto(manifest.signature))
    message.parity.CopyFrom(
        model_pb2.Parity(
            proved=manifest.parity.proved,
            rows=manifest.parity.rows,
            max_difference=manifest.parity.max_difference,
            cause=manifest.parity.cause,
        )
    )
    message.artifacts.extend(
        model_pb2.Artifact(
            format=ARTIFACT_FORMAT.to_proto(artifact.format), size_bytes=artifact.size_bytes, sha256=artifact.sha256
        )
        for artifact in manifest.artifacts
    )
    message.library_versions.update(manifest.library_versions)
    message.input_example.extend(struct(row) for row in manifest.input_example)
    if version.inference_time_ms is not None:
        message.inference_time_ms = version.inference_time_ms


def _signature_to_proto(signature: Signature) -> model_pb2.Signature:
    return model_pb2.Signature(
        inputs=[
            model_pb2.SignatureColumn(
                name=column.name,
                storage_type=STORAGE_TYPE.to_proto(column.storage_type),
                kind=COLUMN_KIND.to_proto(column.kind),
                nullable=column.nullable,
            )
            for column in signature.inputs
        ],
        output=signature.output,
        output_type=STORAGE_TYPE.to_proto(signature.output_type),
        classes=signature.classes,
    )


def alias_entry_to_proto(entry: AliasHistoryEntry) -> model_pb2.AliasHistoryEntry:
    """A time during which an alias pointed to a version."""
    return model_pb2.AliasHistoryEntry(
        alias=entry.alias,
        model_version_id=str(entry.model_version_id),
        version=entry.version,
        set_by=str(entry.set_by),
        start_time=timestamp(entry.start_time),
        end_time=timestamp(entry.end_time),
    )


def to_version_name(message: model_service_pb2.ModelVersionName) -> VersionName:
    """A version by what people call it."""
    return VersionName(UUID(message.project_id), message.model_name, message.version, message.alias)
