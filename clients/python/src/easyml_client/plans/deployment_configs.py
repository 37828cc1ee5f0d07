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
from easyml_client.resources.deployments import ConfigValidation, DeploymentConfig
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
    strategy: str | None = None,
    replicas: int = 0,
    probes: Mapping[str, int] | None = None,
    canary: Mapping[str, Any] | None = None,
    container: Mapping[str, Any] | None = None,
) -> Plan[ConfigValidation]:
    """All that `create` would refuse of these settings, not only the first; nothing is started."""
    of_project = yield from project_id(project)
    request = pb.ValidateDeploymentConfigRequest(
        project_id=of_project,
        model_version=None if model is None else (yield from served(model, of_project)),
        config=asked_config(config, environment, strategy, replicas, probes, canary, container),
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
    strategy: str | None,
    replicas: int,
    probes: Mapping[str, int] | None,
    canary: Mapping[str, Any] | None,
    container: Mapping[str, Any] | None,
) -> deployment_pb2.DeploymentConfig:
    """`base` with what is given beside it; variables are added to those of `base`."""
    known = deployment_pb2.Probes.DESCRIPTOR.fields_by_name
    for name in probes or {}:
        if name not in known:
            raise InvalidInput.at("probes", f"There is no probe setting {name!r}; there are {', '.join(known)}.")
    changes = deployment_pb2.DeploymentConfig(
        environment=_environment(environment),
        strategy=enum_number(
            "strategy", deployment_pb2.RolloutStrategy, strategy or (None if canary is None else "canary")
        ),
        scaling=deployment_pb2.Scaling(replicas=replicas) if replicas else None,
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
    config.MergeFrom(changes)
    return config


def _environment(word: str | None) -> Any:
    return enum_number("environment", deployment_pb2.DeploymentEnvironment, word)


def _parsed(what: str, settings: Mapping[str, Any], message: M) -> M:
    try:
        return json_format.ParseDict(dict(settings), message)
    except json_format.ParseError as error:
        raise InvalidInput.at(what, f"These are no settings of a {what}: {error}") from error
