"""What the replicas of a deployment counted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from easyml.v1 import deployment_metrics_pb2
from easyml_client.resources.base import Resource


class LatencyQuantiles(Resource[deployment_metrics_pb2.LatencyQuantiles]):
    """How long calls took, in seconds."""

    p50_seconds: float
    p95_seconds: float
    p99_seconds: float


class RevisionMetrics(Resource[deployment_metrics_pb2.RevisionMetrics]):
    """What one revision did; `latency` is None where nobody asked it."""

    revision: int
    requests: int
    errors: int
    requests_by_code: Mapping[str, int]
    requests_per_second: float
    latency: LatencyQuantiles | None
    mean_rows: float
    mean_batch_size: float
    replicas: int
    cpu_cores: float
    resident_bytes: int


class DeploymentMetrics(Resource[deployment_metrics_pb2.GetDeploymentMetricsResponse]):
    """What each revision did from `start_time` to `end_time`, newest first."""

    revisions: tuple[RevisionMetrics, ...]
    start_time: dt.datetime | None
    end_time: dt.datetime | None
