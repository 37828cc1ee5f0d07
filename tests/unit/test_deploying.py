"""The targets that a server has, as its settings say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from easyml_server.deploying import barred_targets
from easyml_server.domain.containers import Container
from easyml_server.domain.deployment_configs import problems_of
from easyml_server.domain.deployments import DeploymentConfig, DeploymentTarget
from easyml_server.domain.scaling import Autoscaling
from easyml_server.settings import Settings

CLUSTER: dict[str, Any] = {"kubernetes_namespace": "models", "kubernetes_image": "registry.example/easyml:1"}
ON_A_CLUSTER = DeploymentConfig(target=DeploymentTarget.KUBERNETES)


@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        ({}, "EASYML_KUBERNETES_NAMESPACE"),
        ({"artifact_url": "s3://bucket/folder"}, "EASYML_KUBERNETES_NAMESPACE"),
        (CLUSTER, "EASYML_ARTIFACT_URL"),
        ({**CLUSTER, "artifact_url": "file:///srv/easyml"}, "EASYML_ARTIFACT_URL"),
    ],
)
def test_a_cluster_that_a_server_cannot_use_is_refused_with_the_way_out(settings: dict[str, Any], way_out: str) -> None:
    barred = barred_targets(Settings(**settings))
    (problem,) = problems_of(ON_A_CLUSTER, barred, 20)
    assert problem.field == "config.target"
    assert way_out in problem.message
    assert list(problems_of(DeploymentConfig(), barred, 20)) == []


def test_a_cluster_with_a_store_that_pods_reach_is_a_target() -> None:
    assert barred_targets(Settings(**CLUSTER, artifact_url="s3://bucket/folder")) == {}


def test_what_a_cluster_does_not_do_is_named_by_its_field() -> None:
    config = DeploymentConfig(
        target=DeploymentTarget.KUBERNETES,
        container=Container(base_image="an image", cpu_limit="2x"),
        autoscaling=Autoscaling(1, 3, target_cpu_percent=50),
        replicas=0,
    )
    fields = [each.field for each in problems_of(config, {}, 20)]
    assert fields == [
        "config.scaling.target_cpu_percent",
        "config.container.cpu_limit",
        "config.container.base_image",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kubernetes_namespace": "models"},
        {**CLUSTER, "kubernetes_namespace": "Models"},
        {**CLUSTER, "kubernetes_namespace": "m" * 64},
        {**CLUSTER, "kubernetes_image": "easyml :1"},
        {**CLUSTER, "kubernetes_image_pull_policy": "Sometimes"},
        {**CLUSTER, "kubernetes_store_secret": "a secret"},
    ],
)
def test_settings_of_a_cluster_that_cannot_be_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"(?i)kubernetes_"):
        Settings(**wrong)
