"""Deployments, their revisions and replicas."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from easyml.v1 import (
    auth_service_pb2,
    container_pb2,
    deployment_manifests_pb2,
    deployment_pb2,
    deployment_service_pb2,
)
from easyml_client.resources.base import Resource


class Scaling(Resource[deployment_pb2.Scaling]):
    """How many replicas run: `replicas`, or from `min_replicas` to `max_replicas` as the calls need."""

    replicas: int
    min_replicas: int | None
    max_replicas: int | None
    target_requests_in_flight: int | None
    target_cpu_percent: int | None
    cooldown_seconds: int | None


class Probes(Resource[deployment_pb2.Probes]):
    """How replicas are watched, in seconds."""

    startup_seconds: int
    period_seconds: int
    timeout_seconds: int
    failure_threshold: int


class CanaryStep(Resource[deployment_pb2.CanaryStep]):
    """So many calls of a hundred, for so many seconds; until it is promoted if 0."""

    weight: int
    duration_seconds: int


class CanaryAnalysis(Resource[deployment_pb2.CanaryAnalysis]):
    """What takes a canary back by itself."""

    max_error_percent: float
    max_latency_ratio: float
    min_requests: int


class Canary(Resource[deployment_pb2.Canary]):
    """How the share of a new revision grows."""

    steps: tuple[CanaryStep, ...]
    analysis: CanaryAnalysis | None


class SecretReference(Resource[container_pb2.SecretReference]):
    """A variable whose value the target keeps."""

    variable: str
    secret: str
    key: str


class ContainerConfig(Resource[container_pb2.ContainerConfig]):
    """What a replica has around it; quantities as Kubernetes writes them, None where the target decides."""

    base_image: str | None
    cpu_request: str | None
    cpu_limit: str | None
    memory_request: str | None
    memory_limit: str | None
    environment: Mapping[str, str]
    secrets: tuple[SecretReference, ...]


class DeploymentConfig(Resource[deployment_pb2.DeploymentConfig]):
    """How a model version is served."""

    environment: str | None
    target: str | None
    strategy: str | None
    scaling: Scaling | None
    probes: Probes | None
    canary: Canary | None
    container: ContainerConfig | None


class Manifests(Resource[deployment_manifests_pb2.RenderManifestsResponse]):
    """The objects of a revision on its cluster, as YAML."""

    revision: int
    manifests: str


class ConfigProblem(Resource[deployment_service_pb2.ConfigProblem]):
    """One thing that is wrong with a configuration; `field` is the path in the contract."""

    field: str
    message: str
    reason: str
    metadata: Mapping[str, str]


class ConfigValidation(Resource[deployment_service_pb2.ValidateDeploymentConfigResponse]):
    """All that is wrong with a configuration; without problems `config` has every default."""

    problems: tuple[ConfigProblem, ...]
    config: DeploymentConfig | None


class ReplicaFailure(Resource[deployment_pb2.ReplicaFailure]):
    """Why a replica last ended: a word, a sentence, and the last lines of its log."""

    reason: str | None
    message: str
    exit_code: int | None
    log_lines: tuple[str, ...]
    failure_time: dt.datetime | None


class Replica(Resource[deployment_pb2.Replica]):
    """One process; `endpoint` (host:port) while it is "ready"."""

    id: str
    revision: int
    state: str | None
    endpoint: str | None
    restarts: int
    last_failure: ReplicaFailure | None


class Condition(Resource[deployment_pb2.Condition]):
    """The answer to a question ("available", "progressing", "scaling_active" …), why, and since when."""

    type: str | None
    status: bool
    reason: str
    message: str
    transition_time: dt.datetime | None


class TrafficShare(Resource[deployment_pb2.TrafficShare]):
    """A revision answers so many calls of a hundred."""

    revision: int
    weight: int


class TrafficChange(Resource[deployment_pb2.TrafficChange]):
    """So many calls of a hundred, from then on."""

    weight: int
    change_time: dt.datetime


class CanaryProgress(Resource[deployment_pb2.CanaryProgress]):
    """Where a revision is in its canary; `step` is 0 if its share was set by hand."""

    step: int
    steps: int
    start_time: dt.datetime
    end_time: dt.datetime | None


class Deployment(Resource[deployment_pb2.Deployment]):
    """A model version made callable."""

    id: str
    project_id: str
    name: str
    description: str
    labels: Mapping[str, str]
    config: DeploymentConfig | None
    state: str | None
    latest_revision: int
    active_revision: int
    wanted_replicas: int
    ready_replicas: int
    replicas: tuple[Replica, ...]
    conditions: tuple[Condition, ...]
    creator_id: str
    create_time: dt.datetime
    update_time: dt.datetime
    etag: str
    sequence: int
    traffic: tuple[TrafficShare, ...]
    canary: CanaryProgress | None

    @property
    def awaits_promotion(self) -> bool:
        """Whether the newest revision stands by until it is promoted or rolled back."""
        progressing = self.condition("progressing")
        return progressing is not None and progressing.reason == "AwaitingPromotion"

    @property
    def rolled_back(self) -> bool:
        """Whether somebody took the newest revision back, and the one before it answers."""
        progressing = self.condition("progressing")
        return progressing is not None and progressing.reason == "RolledBack"

    @property
    def withdrawn(self) -> str:
        """Why the newest revision was taken back by its analysis; empty if it was not."""
        progressing = self.condition("progressing")
        if progressing is None or progressing.reason != "RevisionWithdrawn":
            return ""
        return progressing.message

    @property
    def idle(self) -> bool:
        """Whether no replica runs because nobody calls; the next call starts one, and waits for it."""
        available = self.condition("available")
        return available is not None and available.reason == "ScaledToZero"

    @property
    def arrived(self) -> bool:
        """Whether the newest revision answers, with all its replicas."""
        return self.state == "ready" and self.active_revision == self.latest_revision

    @property
    def settled(self) -> bool:
        """Whether nothing more happens until somebody asks for it, and nothing is wrong."""
        return self.arrived or self.awaits_promotion or (self.rolled_back and self.state == "ready")

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the revision that answers can be asked directly, with a token of `deployments.token`."""
        return tuple(
            replica.endpoint
            for replica in self.replicas
            if replica.endpoint and replica.revision == self.active_revision
        )

    def condition(self, type: str) -> Condition | None:
        """The answer to one question, such as condition("available")."""
        return next((condition for condition in self.conditions if condition.type == type), None)


class Revision(Resource[deployment_pb2.Revision]):
    """What a deployment served, or was to serve, at one time."""

    number: int
    model_version_id: str | None
    model_name: str
    model_version: int
    config: DeploymentConfig | None
    state: str | None
    creator_id: str
    create_time: dt.datetime
    activate_time: dt.datetime | None
    retire_time: dt.datetime | None
    traffic: tuple[TrafficChange, ...]
    message: str


class DeploymentToken(Resource[auth_service_pb2.ExchangeTokenResponse]):
    """What the endpoints of one deployment accept until it expires."""

    token: str
    expire_time: dt.datetime
    deployment_id: str
