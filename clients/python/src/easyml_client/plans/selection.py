"""What the model version must meet that is chosen to be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from easyml.v1 import algorithm_pb2, selection_pb2
from easyml_client.values import enum_number


@dataclass(frozen=True)
class ModelSelectionCriteria:
    """The best version at `metric` ("accuracy") over its test rows, of those that meet the rest.

    `threshold` is the worst value that it may have. `secondary` are metrics that decide between equal versions, in
    order; a mapping gives them thresholds of their own: {"log_loss": 0.4, "mcc": None}. 0 allows any size or time.
    With `prefer_latest` the newest that meets everything is chosen.
    """

    metric: str
    threshold: float | None = None
    secondary: Sequence[str] | Mapping[str, float | None] = ()
    model: str = ""
    max_size_bytes: int = 0
    max_inference_time_ms: float = 0
    require_validation: bool = False
    prefer_latest: bool = False

    def message(self) -> selection_pb2.ModelSelectionCriteria:
        """The criteria as the contract has them."""
        secondary = self.secondary if isinstance(self.secondary, Mapping) else dict.fromkeys(self.secondary)
        return selection_pb2.ModelSelectionCriteria(
            model_name=self.model,
            primary_metric=_criterion("metric", self.metric, self.threshold),
            secondary_metrics=[_criterion("secondary", metric, worst) for metric, worst in secondary.items()],
            max_size_bytes=self.max_size_bytes,
            max_inference_time_ms=self.max_inference_time_ms,
            require_validation=self.require_validation,
            prefer_latest=self.prefer_latest,
        )


def _criterion(field: str, metric: str, threshold: float | None) -> selection_pb2.MetricCriterion:
    number = enum_number(field, algorithm_pb2.Metric, metric)
    return selection_pb2.MetricCriterion(metric=number, threshold=threshold)
