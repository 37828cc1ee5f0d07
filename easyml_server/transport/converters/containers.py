"""What replicas have around them."""

from __future__ import annotations

from easyml.v1 import container_pb2 as pb
from easyml_server.domain.containers import Container, SecretReference


def to_container(message: pb.ContainerConfig) -> Container:
    """What is asked for."""
    return Container(
        base_image=message.base_image,
        cpu_request=message.cpu_request,
        cpu_limit=message.cpu_limit,
        memory_request=message.memory_request,
        memory_limit=message.memory_limit,
        environment=tuple(sorted(message.environment.items())),
        secrets=tuple(SecretReference(each.variable, each.secret, each.key) for each in message.secrets),
    )


def container_to_proto(container: Container) -> pb.ContainerConfig:
    """As it was asked for."""
    return pb.ContainerConfig(
        base_image=container.base_image,
        cpu_request=container.cpu_request,
        cpu_limit=container.cpu_limit,
        memory_request=container.memory_request,
        memory_limit=container.memory_limit,
        environment=dict(container.environment),
        secrets=[
            pb.SecretReference(variable=each.variable, secret=each.secret, key=each.key) for each in container.secrets
        ],
    )
