"""What replicas have around them, as `easyml deploy` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.common import pairs
from easyml_client.cli.output import UsageError

_GROUP = "What a replica has around it"


@Parameter(name="*")
@dataclass(frozen=True)
class ContainerOptions:
    """All but --memory-limit and --env are for Kubernetes."""

    memory: Annotated[
        str | None,
        Parameter(
            name="--memory-limit",
            group=_GROUP,
            help="Memory a replica may have, such as 512Mi; above it it is ended, and started again.",
        ),
    ] = None
    env: Annotated[
        tuple[str, ...],
        Parameter(
            name="--env", negative=(), group=_GROUP, help="KEY=VALUE, a variable of its environment; can be repeated."
        ),
    ] = ()
    image: Annotated[
        str | None, Parameter(name="--image", group=_GROUP, help="Image instead of the server's; Kubernetes only.")
    ] = None
    memory_request: Annotated[
        str | None, Parameter(name="--memory-request", group=_GROUP, help="Memory set aside; Kubernetes only.")
    ] = None
    cpu_limit: Annotated[
        str | None,
        Parameter(name="--cpu-limit", group=_GROUP, help="Processors it may use, such as 2 or 500m; Kubernetes only."),
    ] = None
    cpu_request: Annotated[
        str | None, Parameter(name="--cpu-request", group=_GROUP, help="Processors set aside; Kubernetes only.")
    ] = None
    secret: Annotated[
        tuple[str, ...],
        Parameter(
            name="--secret",
            negative=(),
            group=_GROUP,
            help="KEY=SECRET/ENTRY, a variable with an entry of a secret there; can be repeated. Kubernetes only.",
        ),
    ] = ()


BARE = ContainerOptions()


def container_of(options: ContainerOptions) -> dict[str, Any] | None:
    """The settings of the container, if anything was said."""
    given = {
        "base_image": options.image,
        "cpu_request": options.cpu_request,
        "cpu_limit": options.cpu_limit,
        "memory_request": options.memory_request,
        "memory_limit": options.memory,
        "environment": pairs("--env", options.env),
        "secrets": [_secret(variable, place) for variable, place in pairs("--secret", options.secret).items()],
    }
    return {name: value for name, value in given.items() if value} or None


def _secret(variable: str, place: str) -> dict[str, str]:
    secret, slash, key = place.partition("/")
    if not slash:
        raise UsageError(f"--secret takes KEY=SECRET/ENTRY; {variable}={place} is not of that form.")
    return {"variable": variable, "secret": secret, "key": key}
