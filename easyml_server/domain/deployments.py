"""Deployments: a model version made callable, the revisions it went through, and the processes that answer."""

from __future__ import annotations

from collections.abc import Container as Group
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from easyml_server.domain.containers import AS_IT_IS, Container
from easyml_server.domain.scaling import Autoscaling


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
    BLUE_GREEN = "blue_green"
    CANARY = "canary"


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
    STANDBY = "standby"
    WITHDRAWN = "withdrawn"


class ReplicaState(StrEnum):
    """What one process does."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"
    STOPPING = "stopping"

    @property
    def awaited(self) -> bool:
        """Whether it is to become ready."""
        return self in (ReplicaState.STARTING, ReplicaState.BACKING_OFF)


class ReplicaFailureReason(StrEnum):
    """Why a process ended or could not start."""

    EXITED = "exited"
    MODEL_REFUSED = "model_refused"
    START_TIMEOUT = "start_timeout"
    UNRESPONSIVE = "unresponsive"
    ARTIFACT_UNAVAILABLE = "artifact_unavailable"
    CANNOT_START = "cannot_start"
    OUT_OF_MEMORY = "out_of_memory"


class ConditionType(StrEnum):
    """A question about a deployment, as Kubernetes asks it."""

    AVAILABLE = "available"
    PROGRESSING = "progressing"
    REPLICA_FAILURE = "replica_failure"
    REPLICA_SLOW = "replica_slow"
    SCALING_ACTIVE = "scaling_active"
    SCALING_LIMITED = "scaling_limited"


@dataclass(frozen=True, slots=True)
class Probes:
    """How replicas are watched, in seconds; `failure_threshold` questions in a row without an answer end one."""

    startup_seconds: float = 60
    period_seconds: float = 5
    timeout_seconds: float = 2
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class CanaryStep:
    """So many calls of a hundred, for so many seconds; until somebody promotes it if 0."""

    weight: int
    duration_seconds: int = 0


@dataclass(frozen=True, slots=True)
class CanaryAnalysis:
    """What takes a canary back: so many calls of a hundred more that fail, or a p99 so many times that of the other.

    Nothing is concluded from fewer than `min_requests` calls of a step; latencies are not compared if the ratio is 0.
    """

    max_error_percent: float
    max_latency_ratio: float = 0
    min_requests: int = 20


@dataclass(frozen=True, slots=True)
class Canary:
    """How the share of a new revision grows."""

    steps: tuple[CanaryStep, ...] = (CanaryStep(10),)
    analysis: CanaryAnalysis | None = None


@dataclass(frozen=True, slots=True)
class CanaryProgress:
    """The step (1, 2, 3 …) that a canary is in, since when, and when it ends by itself.

    0 if its share was set by hand.
    """

    step: int
    start_time: datetime
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class TrafficChange:
    """So many calls of a hundred, from then on."""

    weight: int
    time: datetime


@dataclass(frozen=True, slots=True)
class TrafficShare:
    """A revision answers so many calls of a hundred, at these endpoints (host:port)."""

    revision: int
    weight: int
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeploymentConfig:
    """How a model version is served.

    With `autoscaling` the number of `replicas` is the server's, and what it wants now; 0 where it was not asked yet.
    """

    environment: DeploymentEnvironment = DeploymentEnvironment.DEVELOPMENT
    target: DeploymentTarget = DeploymentTarget.LOCAL
    strategy: RolloutStrategy = RolloutStrategy.ROLLING
    replicas: int = 1
    probes: Probes = Probes()
    canary: Canary | None = None
    container: Container = AS_IT_IS
    autoscaling: Autoscaling | None = None

    def beginning(self, running: int) -> DeploymentConfig:
        """How a new revision begins where so many replicas run."""
        if self.autoscaling is None:
            return self
        return replace(self, replicas=self.autoscaling.beginning(running))


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
    """One process of a revision; `endpoint` (host:port), and where it tells what it counts, while it is READY.

    `machine` is where its endpoints can be reached; empty if everywhere.
    """

    id: UUID
    revision: int
    state: ReplicaState
    endpoint: str = ""
    restarts: int = 0
    last_failure: ReplicaFailure | None = None
    metrics_endpoint: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """The answer to one question, and since when."""

    type: ConditionType
    status: bool
    reason: str
    message: str
    transition_time: datetime

    def following(self, before: Condition | None) -> Condition:
        """This one after another: the time tells when the answer changed, not when its reason did."""
        if before is not None and before.status == self.status:
            return replace(self, transition_time=before.transition_time)
        return self


@dataclass(frozen=True, slots=True)
class Revision:
    """What a deployment serves at one time; only its state, its traffic and the times when it answered change.

    The model version of one that another replaced may have been deleted since. `message` says why its
    analysis took it back.
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
    traffic: tuple[TrafficChange, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A name under which predictions are made.

    `etag` and `update_time` change with what people want of it; `sequence` also with what is seen of it.
    `active_revision` is 0 while none answers; `traffic` are calls of a hundred by revision.
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
    traffic: Mapping[int, int] = field(default_factory=dict)
    canary: CanaryProgress | None = None

    @property
    def model_names(self) -> tuple[str, ...]:
        """By what clients of the Open Inference Protocol ask for its model; by name alone at a replica only."""
        return str(self.id), f"{self.project_id}/{self.name}", self.name

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the active revision can be asked."""
        return self.endpoints_of(self.active_revision)

    @property
    def idle(self) -> bool:
        """Whether no replica is to run, because nobody calls."""
        return not self.stopped and self.config.replicas == 0

    @property
    def waits_for_calls(self) -> bool:
        """Whether it may be idle, so that calls wait for its first replica."""
        scaling = self.config.autoscaling
        return not self.stopped and scaling is not None and scaling.min_replicas == 0

    @property
    def shares(self) -> tuple[TrafficShare, ...]:
        """Who answers how many calls, and where; nowhere while it is idle, as what still runs then is ending."""
        return tuple(
            TrafficShare(number, weight, () if self.idle else self.endpoints_of(number))
            for number, weight in sorted(self.traffic.items())
        )

    def failure_of(self, numbers: Group[int]) -> ReplicaFailure | None:
        """Why a replica of these revisions is not ready; the latest of several."""
        failures = (
            replica.last_failure
            for replica in self.replicas
            if replica.revision in numbers and replica.last_failure is not None and replica.state.awaited
        )
        return max(failures, key=lambda failure: failure.time, default=None)

    def endpoints_of(self, number: int) -> tuple[str, ...]:
        """Where a revision can be asked."""
        return tuple(
            replica.endpoint
            for replica in self.replicas
            if replica.revision == number and replica.state is ReplicaState.READY
        )
