"""The model version that is chosen to be served, and how others compare."""

from __future__ import annotations

import datetime as dt

from easyml.v1 import model_service_pb2, selection_pb2
from easyml_client.resources.base import Resource
from easyml_client.resources.experiments import MetricValue
from easyml_client.resources.models import ModelVersion


class ModelCandidate(Resource[selection_pb2.ModelCandidate]):
    """A version that was looked at; `rank` is 0 if it does not meet the criteria, and `reason` says why."""

    model_version_id: str
    model_name: str
    version: int
    eligible: bool
    rank: int
    reason: str
    metrics: tuple[MetricValue, ...]
    size_bytes: int
    inference_time_ms: float | None
    validated: bool
    create_time: dt.datetime


class ModelSelection(Resource[model_service_pb2.SelectModelResponse]):
    """The version that is chosen, and the ranking: those that meet the criteria first.

    `truncated` if there are older versions that were not looked at.
    """

    model_version: ModelVersion
    candidates: tuple[ModelCandidate, ...]
    truncated: bool
