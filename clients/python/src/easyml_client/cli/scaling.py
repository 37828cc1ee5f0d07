"""How many replicas run, as `easyml deploy` and `easyml deployments scale` take and show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from easyml_client.resources.deployments import Scaling

_GROUP = "Replicas as the calls need"


@Parameter(name="*")
@dataclass(frozen=True)
class ScalingOptions:
    """Between which numbers replicas follow the calls."""

    least: Annotated[
        int | None,
        Parameter(
            name=["--min-replicas", "--min"],
            group=_GROUP,
            help="The fewest; with 0 none runs while nobody calls, and the first call waits for one.",
        ),
    ] = None
    most: Annotated[
        int | None,
        Parameter(name=["--max-replicas", "--max"], group=_GROUP, help="The most; what makes them follow the calls."),
    ] = None
    target: Annotated[
        int | None,
        Parameter(name="--target-in-flight", group=_GROUP, help="Calls in flight that each replica is to have; 8."),
    ] = None
    cooldown: Annotated[
        int | None,
        Parameter(
            name="--cooldown-seconds",
            group=_GROUP,
            help="For how long fewer must have been enough before any is taken away; 60.",
        ),
    ] = None


FIXED = ScalingOptions()


def scaling_of(options: ScalingOptions) -> dict[str, int] | None:
    """The settings of the scaling, if there are any."""
    given = {
        "min_replicas": options.least,
        "max_replicas": options.most,
        "target_requests_in_flight": options.target,
        "cooldown_seconds": options.cooldown,
    }
    return {name: value for name, value in given.items() if value is not None} or None


def told_scaling(scaling: Scaling | None) -> str:
    """How replicas follow the calls, in a line; empty if they do not."""
    if scaling is None or not scaling.max_replicas:
        return ""
    return (
        f"{scaling.min_replicas} to {scaling.max_replicas} replicas for {scaling.target_requests_in_flight} calls in "
        f"flight each, fewer after {scaling.cooldown_seconds} s"
    )
