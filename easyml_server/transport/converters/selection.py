"""Criteria of what to serve, and the versions that were held against them."""

from __future__ import annotations

from easyml.v1 import model_service_pb2, selection_pb2
from easyml_server.domain.selection import Candidate, MetricCriterion, SelectionCriteria
from easyml_server.services.selection import Selection
from easyml_server.transport.converters.enums import METRIC
from easyml_server.transport.converters.experiments import metric_to_proto
from easyml_server.transport.converters.models import version_to_proto
from easyml_server.transport.converters.values import timestamp


def to_criteria(message: selection_pb2.ModelSelectionCriteria) -> SelectionCriteria:
    """What a version must meet."""
    return SelectionCriteria(
        primary=_to_criterion(message.primary_metric),
        secondary=tuple(map(_to_criterion, message.secondary_metrics)),
        model_name=message.model_name,
        max_size_bytes=message.max_size_bytes,
        max_inference_time_ms=message.max_inference_time_ms,
        require_validation=message.require_validation,
        prefer_latest=message.prefer_latest,
    )


def selection_to_proto(selection: Selection) -> model_service_pb2.SelectModelResponse:
    """The version that is chosen, and the ranking."""
    return model_service_pb2.SelectModelResponse(
        model_version=version_to_proto(selection.chosen, full=True),
        candidates=map(_candidate_to_proto, selection.candidates),
        truncated=selection.truncated,
    )


def _to_criterion(message: selection_pb2.MetricCriterion) -> MetricCriterion:
    return MetricCriterion(METRIC.get(message.metric), message.threshold if message.HasField("threshold") else None)


def _candidate_to_proto(candidate: Candidate) -> selection_pb2.ModelCandidate:
    version = candidate.version
    return selection_pb2.ModelCandidate(
        model_version_id=str(version.id),
        model_name=version.model_name,
        version=version.version,
        eligible=candidate.eligible,
        rank=candidate.rank,
        reason=candidate.reason,
        metrics=map(metric_to_proto, candidate.metrics),
        size_bytes=candidate.size_bytes,
        inference_time_ms=version.inference_time_ms,
        validated=candidate.validated,
        create_time=timestamp(version.create_time),
    )
