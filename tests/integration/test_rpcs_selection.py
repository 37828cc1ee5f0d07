"""SelectModel as callers see it, and deployments of the version that it chooses."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from easyml.v1 import algorithm_pb2, deployment_pb2, experiment_pb2, model_pb2, model_service_pb2
from easyml.v1 import deployment_service_pb2 as deployments
from easyml.v1 import selection_pb2 as pb
from tests.builders import a_project_of, upload
from tests.integration.test_rpcs_models import a_version
from tests.marks import answers, refuses
from tests.servers import Client, refusal

ACCURACY, LOSS, RMSE = algorithm_pb2.METRIC_ACCURACY, algorithm_pb2.METRIC_LOG_LOSS, algorithm_pb2.METRIC_RMSE


@pytest.fixture(scope="module")
def versions(owner: Client) -> list[model_pb2.ModelVersion]:
    """A poor one, a good one that was cross-validated, and one of another model."""
    project_id = a_project_of(owner)
    dataset_id = upload(owner, project_id).id
    stump: dict[str, Any] = {"algorithm": "decision_tree", "model_name": "birds"}
    return [
        a_version(owner, project_id, dataset_id, features=["z"], **stump),
        a_version(owner, project_id, dataset_id, cross_validation=experiment_pb2.CrossValidation(folds=3), **stump),
        a_version(owner, project_id, dataset_id, model_name="bees"),
    ]


def criteria(metric: int = ACCURACY, threshold: float | None = None, **more: Any) -> pb.ModelSelectionCriteria:
    best = pb.MetricCriterion(metric=metric, threshold=threshold)  # type: ignore[arg-type]  # an enum's number
    return pb.ModelSelectionCriteria(primary_metric=best, **more)


def select(client: Client, project_id: str, asked: pb.ModelSelectionCriteria) -> model_service_pb2.SelectModelResponse:
    request = model_service_pb2.SelectModelRequest(project_id=project_id, criteria=asked)
    found: model_service_pb2.SelectModelResponse = client.models.SelectModel(request)
    return found


@answers("ModelService/SelectModel")
def test_the_best_version_is_chosen_and_each_is_told_of(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    poor, good, other = versions
    found = select(owner, poor.project_id, criteria(LOSS, model_name="birds"))
    good.ClearField("results")
    assert found.model_version == good
    assert [(each.rank, each.model_version_id, each.eligible) for each in found.candidates] == [
        (1, good.id, True),
        (2, poor.id, True),
    ]
    best = found.candidates[0]
    assert (best.model_name, best.version, best.validated) == ("birds", 2, True)
    assert [each.metric for each in best.metrics] == [LOSS]
    assert best.reason == f"Best log_loss: {best.metrics[0].value:.6g}."
    sizes = {artifact.format: artifact.size_bytes for artifact in good.artifacts}
    assert best.size_bytes == sizes[model_pb2.ARTIFACT_FORMAT_ONNX]
    assert not found.truncated
    latest = select(owner, poor.project_id, criteria(prefer_latest=True))
    assert latest.model_version.id == other.id
    assert len(latest.candidates) == 3


def test_what_a_row_takes_is_measured_by_each_training(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    for version in versions:
        assert version.HasField("inference_time_ms")
        assert 0 < version.inference_time_ms < 1_000
    times = {version.id: version.inference_time_ms for version in versions}
    fastest = min(times.values())
    found = select(owner, versions[0].project_id, criteria(max_inference_time_ms=fastest))
    for candidate in found.candidates:
        assert candidate.inference_time_ms == times[candidate.model_version_id]
        assert candidate.eligible == (candidate.inference_time_ms <= fastest)


def test_only_what_was_cross_validated_is_validated(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    found = select(owner, versions[0].project_id, criteria(require_validation=True))
    assert found.model_version.id == versions[1].id
    assert [each.rank for each in found.candidates] == [1, 0, 0]
    assert found.candidates[1].reason == "It was not cross-validated (train it with folds)."


@refuses("ModelService/SelectModel")
def test_criteria_that_nothing_meets_are_refused_with_what_each_lacks(
    owner: Client, versions: list[model_pb2.ModelVersion]
) -> None:
    request = model_service_pb2.SelectModelRequest(
        project_id=versions[0].project_id, criteria=criteria(RMSE, max_size_bytes=1)
    )
    said = refusal(owner.models.SelectModel, request)
    assert said.short == ("FAILED_PRECONDITION", "NO_ELIGIBLE_MODEL")
    assert said.metadata == {"candidates": "3"}
    lacking = said.details["PreconditionFailure"].violations
    assert [each.subject for each in lacking] == ["bees:1", "birds:2", "birds:1", "candidates"]
    assert lacking[0].description.startswith("Rmse does not measure a classification; it has ")
    request.project_id = a_project_of(owner)
    said = refusal(owner.models.SelectModel, request)
    assert (said.short, said.metadata) == (("FAILED_PRECONDITION", "NO_ELIGIBLE_MODEL"), {"candidates": "0"})
    request.criteria.model_name = "none"
    assert refusal(owner.models.SelectModel, request).short == ("NOT_FOUND", "NOT_FOUND")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (pb.ModelSelectionCriteria(), "criteria.primary_metric"),
        (criteria(0), "criteria.primary_metric.metric"),
        (criteria(99), "criteria.primary_metric.metric"),
        (criteria(threshold=float("nan")), "criteria.primary_metric.threshold"),
        (criteria(max_size_bytes=-1), "criteria.max_size_bytes"),
        (criteria(max_inference_time_ms=float("inf")), "criteria.max_inference_time_ms"),
        (criteria(secondary_metrics=[pb.MetricCriterion(metric=RMSE)]), "criteria.secondary_metrics[0].metric"),
        (
            criteria(secondary_metrics=[pb.MetricCriterion(metric=LOSS), pb.MetricCriterion(metric=ACCURACY)]),
            "criteria.secondary_metrics[1].metric",
        ),
    ],
)
def test_criteria_that_are_none_are_refused_with_the_field(
    owner: Client, project_id: str, asked: pb.ModelSelectionCriteria, field: str
) -> None:
    request = model_service_pb2.SelectModelRequest(project_id=project_id, criteria=asked)
    said = refusal(owner.models.SelectModel, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), [field])


def test_a_deployment_serves_what_meets_its_criteria(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    poor, good, _ = versions
    request = deployments.CreateDeploymentRequest(
        project_id=poor.project_id,
        name=f"best-{uuid4()}",
        model_version=deployments.ModelVersionTarget(criteria=criteria(LOSS, model_name="birds")),
    )
    deployment: deployment_pb2.Deployment = owner.deployments.CreateDeployment(request).deployment
    try:
        revisions = deployments.ListRevisionsRequest(deployment_id=deployment.id)
        (revision,) = owner.deployments.ListRevisions(revisions).revisions
        assert revision.model_version_id == good.id
        update = deployments.UpdateDeploymentRequest(
            deployment_id=deployment.id,
            model_version=deployments.ModelVersionTarget(criteria=criteria(threshold=2)),
        )
        said = refusal(owner.deployments.UpdateDeployment, update)
        assert said.short == ("FAILED_PRECONDITION", "NO_ELIGIBLE_MODEL")
        update.model_version.criteria.CopyFrom(criteria(secondary_metrics=[pb.MetricCriterion(metric=RMSE)]))
        said = refusal(owner.deployments.UpdateDeployment, update)
        assert said.fields == ["model_version.criteria.secondary_metrics[0].metric"]
    finally:
        owner.deployments.DeleteDeployment(deployments.DeleteDeploymentRequest(deployment_id=deployment.id))
