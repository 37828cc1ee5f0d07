"""What is asked of the scaling of a deployment: whether it can be, and what is stored of it."""

from __future__ import annotations

from dataclasses import replace

from easyml_server.domain.deployments import Deployment, DeploymentState
from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.scaled import without_scaling
from easyml_server.domain.scaling import Autoscaling
from easyml_server.services.deployment_configs import DeploymentConfigService

Scaling = tuple[int, Autoscaling | None]
"""A number of replicas, and how they follow the calls."""


def rescaled(
    deployment: Deployment, replicas: int, scaling: Scaling | None, configs: DeploymentConfigService
) -> Deployment:
    """The deployment with a fixed number of replicas, or with the scaling as a whole; raises InvalidInput."""
    if (replicas > 0) == (scaling is not None):
        raise InvalidInput.at("replicas", "Say either replicas, a fixed number, or scaling.")
    number, autoscaling = scaling or (replicas, None)
    config = replace(deployment.config, replicas=number, autoscaling=autoscaling)
    configs.check(config, "" if scaling is None else "scaling.")
    if autoscaling is not None:
        config = replace(config, replicas=autoscaling.within(deployment.config.replicas))
    changes = config.replicas != deployment.config.replicas and not deployment.stopped
    return replace(
        deployment,
        config=config,
        conditions=without_scaling(deployment.conditions),
        state=DeploymentState.PROGRESSING if changes else deployment.state,
    )
