"""Templates, and all that is wrong with a configuration, as callers see them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from easyml.v1 import algorithm_pb2, container_pb2, deployment_pb2, selection_pb2
from easyml.v1 import deployment_service_pb2 as pb
from tests.builders import a_project_of
from tests.conftest import World
from tests.marks import answers, refuses
from tests.servers import Client, refusal

CANARY, ROLLING = deployment_pb2.ROLLOUT_STRATEGY_CANARY, deployment_pb2.ROLLOUT_STRATEGY_ROLLING
PRODUCTION = deployment_pb2.DEPLOYMENT_ENVIRONMENT_PRODUCTION
VALUES = deployment_pb2.DeploymentEnvironment.DESCRIPTOR.values_by_number


def validated(client: Client, project_id: str, **request: Any) -> pb.ValidateDeploymentConfigResponse:
    asked = pb.ValidateDeploymentConfigRequest(project_id=project_id, **request)
    answer: pb.ValidateDeploymentConfigResponse = client.deployments.ValidateDeploymentConfig(asked)
    return answer


def version_of(world: World) -> pb.ModelVersionTarget:
    return pb.ModelVersionTarget(model_version_id=world.model_version_id)


@answers("DeploymentService/GetDeploymentTemplate")
def test_each_environment_has_a_template_that_is_accepted(owner: Client, world: World) -> None:
    for environment in VALUES:
        request = pb.GetDeploymentTemplateRequest(environment=environment)  # type: ignore[arg-type]  # a number of it
        config = owner.deployments.GetDeploymentTemplate(request).config
        assert config.environment == (environment or deployment_pb2.DEPLOYMENT_ENVIRONMENT_DEVELOPMENT)
        answer = validated(owner, world.project_id, config=config, model_version=version_of(world))
        assert (list(answer.problems), answer.config) == ([], config)
        create = pb.CreateDeploymentRequest(
            project_id=world.project_id, name=f"t-{uuid4()}", model_version=version_of(world), validate_only=True
        )
        create.config.CopyFrom(config)
        assert owner.deployments.CreateDeployment(create).deployment.config == config
    request = pb.GetDeploymentTemplateRequest(environment=PRODUCTION)
    config = owner.deployments.GetDeploymentTemplate(request).config
    assert (config.scaling.replicas, config.strategy) == (2, CANARY)
    assert [step.weight for step in config.canary.steps] == [10, 50]
    assert config.canary.analysis.max_error_percent == 1


@refuses("DeploymentService/GetDeploymentTemplate")
def test_an_environment_that_there_is_not_has_no_template(owner: Client) -> None:
    request = pb.GetDeploymentTemplateRequest(environment=99)  # type: ignore[arg-type]  # on purpose
    said = refusal(owner.deployments.GetDeploymentTemplate, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["environment"])


@answers("DeploymentService/ValidateDeploymentConfig")
def test_all_that_is_wrong_is_named_at_once(owner: Client, world: World) -> None:
    steps = [deployment_pb2.CanaryStep(weight=weight) for weight in (50, 40, 200)]
    config = deployment_pb2.DeploymentConfig(
        environment=99,  # type: ignore[arg-type]  # on purpose
        strategy=ROLLING,
        scaling=deployment_pb2.Scaling(replicas=1000),
        probes=deployment_pb2.Probes(startup_seconds=-1),
        canary=deployment_pb2.Canary(steps=steps),
    )
    missing = pb.ModelVersionTarget(model_version_id=str(uuid4()))
    answer = validated(owner, world.project_id, config=config, model_version=missing)
    assert {problem.field: problem.reason for problem in answer.problems} == {
        "config.environment": "INVALID_FIELD",
        "config.probes.startup_seconds": "INVALID_FIELD",
        "config.canary.steps[2].weight": "INVALID_FIELD",
        "config.scaling.replicas": "TOO_LARGE",
        "config.canary": "INVALID_FIELD",
        "config.canary.steps[1].weight": "INVALID_FIELD",
        "model_version": "NOT_FOUND",
    }
    assert all(problem.message.endswith(".") for problem in answer.problems)
    large = next(each for each in answer.problems if each.field == "config.scaling.replicas")
    assert large.metadata["limit"] == "EASYML_REPLICAS"
    assert not answer.HasField("config")
    create = pb.CreateDeploymentRequest(
        project_id=world.project_id, name="never made", model_version=version_of(world), validate_only=True
    )
    create.config.canary.steps.extend(steps[:2])
    create.config.scaling.replicas = 1000
    said = refusal(owner.deployments.CreateDeployment, create)
    assert said.short == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert said.fields == ["config.scaling.replicas", "config.canary", "config.canary.steps[1].weight"]


def test_a_version_that_cannot_be_served_is_a_problem_too(owner: Client, world: World) -> None:
    best = selection_pb2.MetricCriterion(metric=algorithm_pb2.METRIC_ACCURACY, threshold=2)
    target = pb.ModelVersionTarget(criteria=selection_pb2.ModelSelectionCriteria(primary_metric=best))
    (problem,) = validated(owner, world.project_id, model_version=target).problems
    assert (problem.field, problem.reason) == ("model_version", "NO_ELIGIBLE_MODEL")
    (problem,) = validated(owner, a_project_of(owner), model_version=version_of(world)).problems
    assert "belongs to another project" in problem.message


def test_what_this_machine_cannot_do_is_refused_by_name(owner: Client, world: World) -> None:
    container = container_pb2.ContainerConfig(
        base_image="python:3",
        cpu_request="2x",
        cpu_limit="500m",
        memory_request="1Gi",
        memory_limit="97Mi",
        environment={"TZ": "UTC", "EASYML_FAULT": "x", "1A": ""},
        secrets=[container_pb2.SecretReference(variable="TOKEN", secret="keys", key="token")],
    )
    answer = validated(
        owner,
        world.project_id,
        config=deployment_pb2.DeploymentConfig(container=container),
        model_version=version_of(world),
    )
    said = {problem.field.removeprefix("config.container."): problem.message for problem in answer.problems}
    assert set(said) == {
        "base_image", "cpu_request", "cpu_limit", "memory_request", "secrets",
        'environment["EASYML_FAULT"]', 'environment["1A"]',
    }  # fmt: skip
    assert said["cpu_request"] == "'2x' is no quantity of processors; write 2, 0.5 or 500m."
    assert all(message.endswith(".") for message in said.values())


def test_memory_below_what_the_model_needs_is_refused(owner: Client, world: World) -> None:
    container = container_pb2.ContainerConfig(memory_limit="96Mi")
    config = deployment_pb2.DeploymentConfig(container=container)
    (problem,) = validated(owner, world.project_id, config=config, model_version=version_of(world)).problems
    assert problem.field == "config.container.memory_limit"
    assert "cannot be served in less than" in problem.message
    assert not validated(owner, world.project_id, config=config).problems
    create = pb.CreateDeploymentRequest(
        project_id=world.project_id, name="never made", model_version=version_of(world), config=config
    )
    said = refusal(owner.deployments.CreateDeployment, create)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["config.container.memory_limit"])
    update = pb.UpdateDeploymentRequest(deployment_id=world.deployment_id, config=config)
    said = refusal(owner.deployments.UpdateDeployment, update)
    assert said.fields == ["config.container.memory_limit"]


@refuses("DeploymentService/ValidateDeploymentConfig")
def test_a_project_that_is_not_there_is_refused(owner: Client) -> None:
    request = pb.ValidateDeploymentConfigRequest(project_id=str(uuid4()))
    assert refusal(owner.deployments.ValidateDeploymentConfig, request).short == ("NOT_FOUND", "NOT_FOUND")
    request.project_id = "nothing"
    said = refusal(owner.deployments.ValidateDeploymentConfig, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["project_id"])
