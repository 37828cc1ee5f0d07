"""How a model version is served: what is asked for, what is sensible, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from easyml.v1 import container_pb2, deployment_pb2
from easyml.v1 import deployment_service_pb2 as pb
from easyml_client.errors import InvalidInput
from easyml_client.plans.references import ModelRef, ProjectRef, model_version, project_id
from easyml_client.plans.selection import ModelSelectionCriteria
from easyml_client.resources.deployments import ConfigValidation, DeploymentConfig, Scaling
from easyml_client.steps import Plan, call
from easyml_client.values import enum_number

M = TypeVar("M", bound=Message)
ServedRef = ModelRef | ModelSelectionCriteria


def template(environment: str | None = None) -> Plan[DeploymentConfig]:
    """What is sensible for "development", "staging" or "production"; `create` takes it as `config`."""
    request = pb.GetDeploymentTemplateRequest(environment=_environment(environment))
    return DeploymentConfig.of((yield from call(request, pb.GetDeploymentTemplateResponse)).config)


def validate_config(
    project: ProjectRef,
    model: ServedRef | None = None,
    *,
    config: DeploymentConfig | None = None,
    environment: str | None = None,
    target: str | None = None,
    strategy: str | None = None,
    replicas: int = 0,
    probes: Mapping[str, int] | None = None,
    canary: Mapping[str, Any] | None = None,
    container: Mapping[str, Any] | None = None,
    scaling: Mapping[str, int] | None = None,
) -> Plan[ConfigValidation]:
    """All that `create` would refuse of these settings, not only the first; nothing is started."""
    of_project = yield from project_id(project)
    request = pb.ValidateDeploymentConfigRequest(
        project_id=of_project,
        model_version=None if model is None else (yield from served(model, of_project)),
        config=asked_config(config, environment, target, strategy, replicas, probes, canary, container, scaling),
    )
    return ConfigValidation.of((yield from call(request, pb.ValidateDeploymentConfigResponse)))


def served(model: ServedRef, project: ProjectRef) -> Plan[pb.ModelVersionTarget]:
    """A version, or what it must meet, as the contract has it."""
    if isinstance(model, ModelSelectionCriteria):
        return pb.ModelVersionTarget(criteria=model.message())
    return pb.ModelVersionTarget(**(yield from model_version(model, project)))


def asked_config(
    base: DeploymentConfig | None,
    environment: str | None,
    target: str | None,
    strategy: str | None,
    replicas: int,
    probes: Mapping[str, int] | None,
    canary: Mapping[str, Any] | None,
    container: Mapping[str, Any] | None,
    scaling: Mapping[str, int] | None,
) -> deployment_pb2.DeploymentConfig:
    """`base` with what is given beside it; variables are added to those of `base`."""
    _check_names("probes", "probe", probes, deployment_pb2.Probes)
    changes = deployment_pb2.DeploymentConfig(
        environment=_environment(environment),
        target=enum_number("target", deployment_pb2.DeploymentTarget, target),
        strategy=enum_number(
            "strategy", deployment_pb2.RolloutStrategy, strategy or (None if canary is None else "canary")
        ),
        scaling=asked_scaling(base.scaling if base else None, replicas, scaling) if replicas or scaling else None,
        probes=deployment_pb2.Probes(**probes) if probes else None,
        canary=None if canary is None else _parsed("canary", canary, deployment_pb2.Canary()),
        container=None if container is None else _parsed("container", container, container_pb2.ContainerConfig()),
    )
    if base is None:
        return changes
    config = deployment_pb2.DeploymentConfig()
    config.CopyFrom(base.proto)
    if changes.strategy:
        # The steps of a canary are for that strategy alone, and are replaced as a whole.
        config.ClearField("canary")
    if changes.HasField("scaling"):
        config.ClearField("scaling")
    config.MergeFrom(changes)
    return config


def asked_scaling(base: Scaling | None, replicas: int, scaling: Mapping[str, int] | None) -> deployment_pb2.Scaling:
    """A fixed number; or `base`, if calls decide there, with what is given beside it."""
    _check_names("scaling", "scaling", scaling, deployment_pb2.Scaling)
    message = deployment_pb2.Scaling()
    if scaling and base is not None and base.max_replicas:
        message.CopyFrom(base.proto)
    message.MergeFrom(deployment_pb2.Scaling(replicas=replicas, **(scaling or {})))
    return message


def _check_names(argument: str, kind: str, given: Mapping[str, int] | None, message: type[Message]) -> None:
    known = message.DESCRIPTOR.fields_by_name
    for name in given or {}:
        if name not in known:
            raise InvalidInput.at(argument, f"There is no {kind} setting {name!r}; there are {', '.join(known)}.")


def _environment(word: str | None) -> Any:
    return enum_number("environment", deployment_pb2.DeploymentEnvironment, word)


def _parsed(what: str, settings: Mapping[str, Any], message: M) -> M:
    try:
        return json_format.ParseDict(dict(settings), message)
    except json_format.ParseError as error:
        raise InvalidInput.at(what, f"These are no settings of a {what}: {error}") from error
