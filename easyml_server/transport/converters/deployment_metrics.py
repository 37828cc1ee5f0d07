"""What the replicas of a deployment counted."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from easyml.v1 import deployment_metrics_pb2 as pb
from easyml_server.domain.counters import Histogram
from easyml_server.services.deployment_metrics import MetricsWindow, RevisionMetrics
from easyml_server.transport.converters.values import timestamp, to_seconds

DEFAULT_WINDOW: Final = timedelta(minutes=5)


def to_window(request: pb.GetDeploymentMetricsRequest) -> timedelta:
    """How far to look back."""
    return timedelta(seconds=to_seconds(request.window)) if request.HasField("window") else DEFAULT_WINDOW


def metrics_to_proto(window: MetricsWindow) -> pb.GetDeploymentMetricsResponse:
    """The answer to whoever asked for a window."""
    return pb.GetDeploymentMetricsResponse(
        revisions=[_revision_to_proto(revision, window.seconds) for revision in window.revisions],
        start_time=timestamp(window.start_time),
        end_time=timestamp(window.end_time),
    )


def _revision_to_proto(revision: RevisionMetrics, seconds: float) -> pb.RevisionMetrics:
    counters = revision.counters
    return pb.RevisionMetrics(
        revision=revision.number,
        requests=counters.requests,
        errors=counters.errors,
        requests_by_code={code: count for code, count in counters.calls.items() if count},
        requests_per_second=_ratio(counters.requests, seconds),
        latency=_latency_to_proto(counters.latency),
        mean_rows=_ratio(counters.rows, counters.answered),
        mean_batch_size=_ratio(counters.answered, counters.runs),
        replicas=len(revision.resident_bytes),
        cpu_cores=_ratio(counters.cpu_seconds, seconds),
        resident_bytes=sum(revision.resident_bytes),
    )


def _latency_to_proto(latency: Histogram) -> pb.LatencyQuantiles | None:
    half, most, nearly_all = (latency.quantile(share) for share in (0.5, 0.95, 0.99))
    if half is None or most is None or nearly_all is None:
        return None
    return pb.LatencyQuantiles(p50_seconds=half, p95_seconds=most, p99_seconds=nearly_all)


def _ratio(counted: float, of: float) -> float:
    return counted / of if of else 0.0
