"""Which model version is the one to serve: criteria, the candidates they are held against, and the ranking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from easyml_server.domain.experiments import Direction, Metric, MetricValue, Partition
from easyml_server.domain.models import Artifact, ArtifactFormat, ModelVersion


@dataclass(frozen=True, slots=True)
class MetricCriterion:
    """A metric that counts, over the test rows, and the worst value it may have."""

    metric: Metric
    threshold: float | None = None

    def loss(self, value: float) -> float:
        """Less is better, whatever the direction of the metric."""
        return -value if self.metric.direction is Direction.MAXIMIZE else value


@dataclass(frozen=True, slots=True)
class SelectionCriteria:
    """What a version must meet, and what the best one is best at; 0 allows any size or time.

    Ties of `primary` are decided by `secondary` in order, then by age: the newest is chosen. With `prefer_latest` the
    newest of all that meet the rest is.
    """

    primary: MetricCriterion
    secondary: tuple[MetricCriterion, ...] = ()
    model_name: str = ""
    max_size_bytes: int = 0
    max_inference_time_ms: float = 0
    require_validation: bool = False
    prefer_latest: bool = False

    @property
    def metrics(self) -> tuple[MetricCriterion, ...]:
        """All metrics that count, the first one first."""
        return (self.primary, *self.secondary)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that was looked at; `rank` is 1, 2, 3 …, or 0 if it is not eligible; `metrics` are of the test rows."""

    version: ModelVersion
    metrics: tuple[MetricValue, ...]
    size_bytes: int
    validated: bool
    lacks: tuple[str, ...]
    rank: int = 0
    reason: str = ""

    @property
    def eligible(self) -> bool:
        """Whether it meets the criteria."""
        return not self.lacks


def served_form(version: ModelVersion) -> Artifact:
    """The stored form that a model server loads: the graph where there is one, else the pipeline."""
    by_format = {artifact.format: artifact for artifact in version.manifest.artifacts}
    return by_format.get(ArtifactFormat.ONNX) or by_format[ArtifactFormat.SKOPS]


def rank(versions: Iterable[ModelVersion], criteria: SelectionCriteria) -> list[Candidate]:
    """The eligible ones by rank, each with the reason for it; then the others, newest first, with what they lack."""
    newest_first = sorted(versions, key=_age, reverse=True)
    looked_at = [_held_against(version, criteria) for version in newest_first]
    eligible = [candidate for candidate in looked_at if candidate.eligible]
    if not criteria.prefer_latest:
        # The sort is stable: what is equal in all metrics stays newest first.
        eligible.sort(key=lambda candidate: _losses(candidate, criteria))
    return [*_ranked(eligible, criteria), *(_refused(each) for each in looked_at if not each.eligible)]


def _age(version: ModelVersion) -> tuple[datetime, UUID]:
    return version.create_time, version.id


def _held_against(version: ModelVersion, criteria: SelectionCriteria) -> Candidate:
    measured = _measured(version, Partition.TEST)
    size = served_form(version).size_bytes
    validated = criteria.primary.metric in _measured(version, Partition.VALIDATION)
    lacks = [
        *_metrics_lacking(version, measured, criteria),
        *_limits_broken(size, version.inference_time_ms, criteria),
    ]
    if criteria.require_validation and not validated:
        lacks.append("it was not cross-validated (train it with folds)")
    metrics = tuple(measured[each.metric] for each in criteria.metrics if each.metric in measured)
    return Candidate(version, metrics, size, validated, tuple(lacks))


def _measured(version: ModelVersion, partition: Partition) -> Mapping[Metric, MetricValue]:
    """What is no finite number was not measured."""
    return {each.metric: each for each in version.metrics if each.partition is partition and math.isfinite(each.value)}


def _metrics_lacking(
    version: ModelVersion, measured: Mapping[Metric, MetricValue], criteria: SelectionCriteria
) -> Iterator[str]:
    for criterion in criteria.metrics:
        metric = criterion.metric
        if metric.task is not version.manifest.task:
            yield f"{metric.value} does not measure a {version.manifest.task.value}"
        elif metric not in measured:
            yield f"{metric.value} is not known of its test rows"
        elif criterion.threshold is not None and criterion.loss(measured[metric].value) > criterion.loss(
            criterion.threshold
        ):
            bound = "at least" if metric.direction is Direction.MAXIMIZE else "at most"
            yield f"{metric.value} is {measured[metric].value:.6g}, and {bound} {criterion.threshold:.6g} is asked for"


def _limits_broken(size: int, milliseconds: float | None, criteria: SelectionCriteria) -> Iterator[str]:
    if criteria.max_size_bytes and size > criteria.max_size_bytes:
        yield f"it has {size:,} bytes, and at most {criteria.max_size_bytes:,} are asked for"
    longest = criteria.max_inference_time_ms
    if longest and milliseconds is None:
        yield "its inference time was not measured when it was trained (train it again)"
    elif longest and milliseconds is not None and milliseconds > longest:
        yield f"a row takes {milliseconds:.3g} ms, and at most {longest:.3g} ms is asked for"


def _losses(candidate: Candidate, criteria: SelectionCriteria) -> tuple[float, ...]:
    return tuple(
        criterion.loss(measured.value) for criterion, measured in zip(criteria.metrics, candidate.metrics, strict=True)
    )


def _ranked(eligible: list[Candidate], criteria: SelectionCriteria) -> Iterator[Candidate]:
    before: Candidate | None = None
    for number, candidate in enumerate(eligible, start=1):
        yield replace(candidate, rank=number, reason=_why(candidate, before, criteria))
        before = candidate


def _refused(candidate: Candidate) -> Candidate:
    sentence = "; ".join(candidate.lacks)
    return replace(candidate, reason=f"{sentence[0].upper()}{sentence[1:]}.")


def _why(candidate: Candidate, before: Candidate | None, criteria: SelectionCriteria) -> str:
    """What decided between it and the one ranked before it; for the first, what it is best at."""
    primary = f"{criteria.primary.metric.value} is {candidate.metrics[0].value:.6g}"
    if criteria.prefer_latest:
        place = "it is the newest that meets the criteria" if before is None else "a newer one meets the criteria"
        return f"{primary[0].upper()}{primary[1:]}, and {place}."
    if before is None:
        return f"Best {criteria.primary.metric.value}: {candidate.metrics[0].value:.6g}."
    for criterion, ours, theirs in zip(criteria.metrics, candidate.metrics, before.metrics, strict=True):
        if ours.value != theirs.value:
            return f"{criterion.metric.value} is {ours.value:.6g}, after {theirs.value:.6g} of the one before."
    return f"{primary[0].upper()}{primary[1:]}, as that of the one before, which is newer."
