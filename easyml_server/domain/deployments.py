"""Deployments: a model version made callable, the revisions it went through, and the processes that answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class DeploymentTarget(StrEnum):
    """Where a deployment runs."""

    LOCAL = "local"


class DeploymentEnvironment(StrEnum):
    """What a deployment is for."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"

    @property
    def alias(self) -> str:
        """The alias of the model that moves with deployments of this environment."""
        return self.value


class RolloutStrategy(StrEnum):
    """How a new revision takes the place of the one before."""

    ROLLING = "rolling"
    RECREATE = "recreate"


class DeploymentState(StrEnum):
    """What a deployment does as a whole."""

    PROGRESSING = "progressing"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class RevisionState(StrEnum):
    """What became of one revision."""

    PROGRESSING = "progressing"
    ACTIVE = "active"
    FAILED = "failed"
    RETIRED = "retired"


class ReplicaState(StrEnum):
    """What one process does."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"
    STOPPING = "stopping"


class ReplicaFailureReason(StrEnum):
    """Why a process ended or could not start."""

    EXITED = "exited"
    MODEL_REFUSED = "model_refused"
    START_TIMEOUT = "start_timeout"
    UNRESPONSIVE = "unresponsive"
    ARTIFACT_UNAVAILABLE = "artifact_unavailable"
    CANNOT_START = "cannot_start"


class ConditionType(StrEnum):
    """A question about a deployment, as Kubernetes asks it."""

    AVAILABLE = "available"
    PROGRESSING = "progressing"
    REPLICA_FAILURE = "replica_failure"


@dataclass(frozen=True, slots=True)
class Probes:
    """How replicas are watched, in seconds; `failure_threshold` questions in a row without an answer end one."""

    startup_seconds: float = 60
    period_seconds: float = 5
    timeout_seconds: float = 2
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class DeploymentConfig:
    """How a model version is served."""

    environment: DeploymentEnvironment = DeploymentEnvironment.DEVELOPMENT
    target: DeploymentTarget = DeploymentTarget.LOCAL
    strategy: RolloutStrategy = RolloutStrategy.ROLLING
    replicas: int = 1
    probes: Probes = Probes()


@dataclass(frozen=True, slots=True)
class ReplicaFailure:
    """Why a process ended: its exit code, negative for a signal, where that is known, and the last lines of its log."""

    reason: ReplicaFailureReason
    message: str
    time: datetime
    exit_code: int | None = None
    log_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of a revision; `endpoint` (host:port) while it is READY."""

    id: UUID
    revision: int
    state: ReplicaState
    endpoint: str = ""
    restarts: int = 0
    last_failure: ReplicaFailure | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """The answer to one question, and since when."""

    type: ConditionType
    status: bool
    reason: str
    message: str
    transition_time: datetime


@dataclass(frozen=True, slots=True)
class Revision:
    """What a deployment serves at one time; only `state` and the times when it answered change.

    The model version of one that another replaced may have been deleted since.
    """

    id: UUID
    deployment_id: UUID
    number: int
    model_version_id: UUID | None
    model_name: str
    model_version: int
    config: DeploymentConfig
    state: RevisionState
    creator_id: UUID
    create_time: datetime
    activate_time: datetime | None = None
    retire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A name under which predictions are made.

    `etag` and `update_time` change with what people want of it; `sequence` also with what is seen of it.
    `active_revision` is 0 while none answers.
    """

    id: UUID
    project_id: UUID
    name: str
    description: str
    labels: Mapping[str, str]
    config: DeploymentConfig
    stopped: bool
    state: DeploymentState
    latest_revision: int
    active_revision: int
    replicas: tuple[Replica, ...]
    conditions: tuple[Condition, ...]
    creator_id: UUID
    create_time: datetime
    update_time: datetime
    etag: str
    sequence: int

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the revision that answers can be asked."""
        return tuple(
            replica.endpoint
            for replica in self.replicas
            if replica.revision == self.active_revision and replica.state is ReplicaState.READY
        )
