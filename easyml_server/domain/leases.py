"""Who runs a training or looks after a deployment, and how long the others leave it to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server takes trainings and deployments under; it renews in time, or the others take them over."""

    owner: UUID
    seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Held:
    """A training whose lease was renewed; `fencing` tells this claim of it from a later one."""

    experiment_id: UUID
    fencing: int
    cancelling: bool


@dataclass(frozen=True, slots=True)
class HeldDeployment:
    """A deployment that a server looks after; `fencing` tells this hold of it from a later one."""

    deployment_id: UUID
    fencing: int


class Abandoned(Enum):
    """Which trainings are taken from whoever ran them."""

    UNOWNED = auto()
    """That nobody runs: cancelled in the queue."""
    LAPSED = auto()
    """And those whose lease has ended."""
    ALL = auto()
    """All: no other server lives."""
