"""How many replicas run: a fixed number, or as many as the calls need."""

from __future__ import annotations

from easyml.v1 import deployment_pb2 as pb
from easyml_server.domain.deployments import DeploymentConfig
from easyml_server.domain.scaling import Autoscaling

DEFAULTS = Autoscaling()


def to_scaling(message: pb.Scaling) -> tuple[int, Autoscaling | None]:
    """The number that was asked for, 0 where calls decide; and how they do."""
    follows = (
        message.HasField("min_replicas")
        or message.max_replicas
        or message.target_requests_in_flight
        or message.target_cpu_percent
        or message.cooldown_seconds
    )
    if not follows:
        return message.replicas or 1, None
    return message.replicas, Autoscaling(
        min_replicas=message.min_replicas if message.HasField("min_replicas") else DEFAULTS.min_replicas,
        max_replicas=message.max_replicas,
        target_requests_in_flight=message.target_requests_in_flight or DEFAULTS.target_requests_in_flight,
        target_cpu_percent=message.target_cpu_percent,
        cooldown_seconds=message.cooldown_seconds or DEFAULTS.cooldown_seconds,
    )


def scaling_to_proto(config: DeploymentConfig) -> pb.Scaling:
    """How replicas are scaled, with every default."""
    scaling = config.autoscaling
    if scaling is None:
        return pb.Scaling(replicas=config.replicas)
    return pb.Scaling(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_requests_in_flight=scaling.target_requests_in_flight,
        target_cpu_percent=scaling.target_cpu_percent,
        cooldown_seconds=scaling.cooldown_seconds,
    )
