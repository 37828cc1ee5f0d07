"""What is sensible for an environment, and what is said of a configuration that cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from easyml_server.domain.deployment_configs import CAREFUL, ConfigProblem, problems_of, refuse, template
from easyml_server.domain.deployments import (
    Canary,
    CanaryStep,
    DeploymentConfig,
    DeploymentEnvironment,
    DeploymentTarget,
    RolloutStrategy,
)
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.domain.scaling import Autoscaling

HERE: dict[DeploymentTarget, str] = {}


@pytest.mark.parametrize("environment", DeploymentEnvironment)
@pytest.mark.parametrize("max_replicas", [1, 20])
def test_a_template_is_accepted_by_the_server_that_gives_it(
    environment: DeploymentEnvironment, max_replicas: int
) -> None:
    config = template(environment, max_replicas)
    assert config.environment is environment
    assert list(problems_of(config, HERE, max_replicas)) == []


def test_production_is_more_careful_than_development() -> None:
    development, staging, production = (template(environment, 20) for environment in DeploymentEnvironment)
    assert [each.replicas for each in (development, staging, production)] == [1, 2, 2]
    assert [each.strategy for each in (development, staging)] == [RolloutStrategy.ROLLING] * 2
    assert (production.strategy, production.canary) == (RolloutStrategy.CANARY, CAREFUL)


def test_every_problem_is_named() -> None:
    steps = (CanaryStep(50), CanaryStep(50), CanaryStep(10))
    config = DeploymentConfig(replicas=9, canary=Canary(steps))
    problems = list(problems_of(config, {DeploymentTarget.LOCAL: "Not here."}, 3))
    assert [each.field for each in problems] == [
        "config.target",
        "config.scaling.replicas",
        "config.canary",
        "config.canary.steps[1].weight",
        "config.canary.steps[2].weight",
    ]
    assert (problems[1].reason, problems[1].metadata["maximum"]) == (Reason.TOO_LARGE, "3")
    right = replace(config, replicas=3, strategy=RolloutStrategy.CANARY, canary=CAREFUL)
    assert list(problems_of(right, HERE, 3)) == []


@pytest.mark.parametrize(
    ("replicas", "scaling", "fields"),
    [
        (0, Autoscaling(1, 3), []),
        (0, Autoscaling(0, 3, 1, cooldown_seconds=1), []),
        (2, Autoscaling(1, 3), ["replicas"]),
        (0, Autoscaling(3, 2), ["min_replicas", "max_replicas"]),
        (0, Autoscaling(1, 9), ["max_replicas"]),
        (0, Autoscaling(9, 8), ["min_replicas", "max_replicas", "max_replicas"]),
        (2, Autoscaling(2, 0), ["max_replicas"]),
        (0, Autoscaling(1, 3, target_cpu_percent=80), ["target_cpu_percent"]),
    ],
)
def test_a_scaling_that_cannot_be_is_named_by_its_fields(
    replicas: int, scaling: Autoscaling, fields: list[str]
) -> None:
    config = DeploymentConfig(replicas=replicas, autoscaling=scaling)
    assert [each.field for each in problems_of(config, HERE, 5)] == [f"config.scaling.{field}" for field in fields]
    assert [each.field for each in problems_of(config, HERE, 5, "scaling.")] == [f"scaling.{each}" for each in fields]


def test_one_problem_is_refused_by_its_own_reason_and_several_together() -> None:
    large = ConfigProblem("config.scaling.replicas", "Too many.", Reason.TOO_LARGE, {"maximum": "3"})
    other = ConfigProblem("config.canary", "It says nothing.")
    refuse([])
    with pytest.raises(InvalidInput, match=r"^Too many\.$") as one:
        refuse([large])
    assert (one.value.reason, one.value.metadata) == (Reason.TOO_LARGE, {"maximum": "3"})
    with pytest.raises(InvalidInput, match="And 1 more, each named by its field") as both:
        refuse([large, other])
    assert both.value.reason is Reason.INVALID_FIELD
    assert [each.field for each in both.value.violations] == ["config.scaling.replicas", "config.canary"]
