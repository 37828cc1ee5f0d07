"""Deployments, their revisions and replicas."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from easyml.v1 import deployment_pb2 as pb
from easyml.v1 import deployment_service_pb2 as service_pb
from easyml_server.domain.containers import AS_IT_IS
from easyml_server.domain.deployment_configs import ConfigProblem
from easyml_server.domain.deployments import (
    Canary,
    CanaryAnalysis,
    CanaryProgress,
    CanaryStep,
    Condition,
    Deployment,
    DeploymentConfig,
    DeploymentEnvironment,
    DeploymentTarget,
    Probes,
    Replica,
    ReplicaFailure,
    Revision,
    RolloutStrategy,
)
from easyml_server.domain.errors import InvalidInput
from easyml_server.services.deployment_names import DeploymentName
from easyml_server.services.deployments import NewDeployment
from easyml_server.services.version_targets import VersionTarget
from easyml_server.transport.converters.containers import container_to_proto, to_container
from easyml_server.transport.converters.enums import (
    CONDITION_TYPE,
    DEPLOYMENT_ENVIRONMENT,
    DEPLOYMENT_STATE,
    DEPLOYMENT_TARGET,
    REPLICA_FAILURE_REASON,
    REPLICA_STATE,
    REVISION_STATE,
    ROLLOUT_STRATEGY,
)
from easyml_server.transport.converters.models import to_version_name
from easyml_server.transport.converters.scaling import scaling_to_proto, to_scaling
from easyml_server.transport.converters.selection import to_criteria
from easyml_server.transport.converters.values import text, timestamp

DEFAULTS = Probes()


def deployment_to_proto(deployment: Deployment) -> pb.Deployment:
    """A deployment as it is now."""
    return pb.Deployment(
        id=str(deployment.id),
        project_id=str(deployment.project_id),
        name=deployment.name,
        description=deployment.description,
        labels=deployment.labels,
        config=config_to_proto(deployment.config),
        state=DEPLOYMENT_STATE.to_proto(deployment.state),
        latest_revision=deployment.latest_revision,
        active_revision=deployment.active_revision,
        wanted_replicas=0 if deployment.stopped else deployment.config.replicas,
        ready_replicas=len(deployment.endpoints),
        replicas=[_replica_to_proto(replica) for replica in deployment.replicas],
        conditions=[_condition_to_proto(condition) for condition in deployment.conditions],
        creator_id=str(deployment.creator_id),
        create_time=timestamp(deployment.create_time),
        update_time=timestamp(deployment.update_time),
        etag=deployment.etag,
        sequence=deployment.sequence,
        traffic=[pb.TrafficShare(revision=share.revision, weight=share.weight) for share in deployment.shares],
        canary=None if deployment.canary is None else _progress_to_proto(deployment, deployment.canary),
    )


def revision_to_proto(revision: Revision) -> pb.Revision:
    """A revision and what became of it."""
    return pb.Revision(
        number=revision.number,
        model_version_id=text(revision.model_version_id),
        model_name=revision.model_name,
        model_version=revision.model_version,
        config=config_to_proto(revision.config),
        state=REVISION_STATE.to_proto(revision.state),
        creator_id=str(revision.creator_id),
        create_time=timestamp(revision.create_time),
        activate_time=timestamp(revision.activate_time),
        retire_time=timestamp(revision.retire_time),
        traffic=[
            pb.TrafficChange(weight=change.weight, change_time=timestamp(change.time)) for change in revision.traffic
        ],
        message=revision.message,
    )


def to_new_deployment(request: service_pb.CreateDeploymentRequest) -> NewDeployment:
    """What a request asks for."""
    return NewDeployment(
        project_id=UUID(request.project_id),
        name=request.name,
        description=request.description,
        labels=dict(request.labels),
        model_version=to_version_target(request.model_version),
        config=to_config(request.config),
    )


def to_version_target(message: service_pb.ModelVersionTarget) -> VersionTarget:
    """A model version by id or name, or what it must meet."""
    match message.WhichOneof("target"):
        case "name":
            return to_version_name(message.name)
        case "criteria":
            return to_criteria(message.criteria)
    return UUID(message.model_version_id)


def to_deployment_name(message: pb.DeploymentName) -> DeploymentName:
    """A deployment by what people call it."""
    return DeploymentName(UUID(message.project_id), message.name)


def to_config(message: pb.DeploymentConfig) -> DeploymentConfig:
    """How to serve; what was not set has its default."""
    probes = message.probes
    strategy = ROLLOUT_STRATEGY.find(message.strategy) or RolloutStrategy.ROLLING
    replicas, autoscaling = to_scaling(message.scaling)
    return DeploymentConfig(
        environment=to_environment(message.environment),
        target=DEPLOYMENT_TARGET.find(message.target) or DeploymentTarget.LOCAL,
        strategy=strategy,
        replicas=replicas,
        probes=Probes(
            startup_seconds=probes.startup_seconds or DEFAULTS.startup_seconds,
            period_seconds=probes.period_seconds or DEFAULTS.period_seconds,
            timeout_seconds=probes.timeout_seconds or DEFAULTS.timeout_seconds,
            failure_threshold=probes.failure_threshold or DEFAULTS.failure_threshold,
        ),
        canary=_to_canary(message, strategy),
        container=to_container(message.container),
        autoscaling=autoscaling,
    )


def problem_to_proto(problem: ConfigProblem) -> service_pb.ConfigProblem:
    """One thing that is wrong."""
    return service_pb.ConfigProblem(
        field=problem.field, message=problem.message, reason=problem.reason.value, metadata=problem.metadata
    )


def to_environment(number: int) -> DeploymentEnvironment:
    """What a deployment is for; development if it was not set."""
    return DEPLOYMENT_ENVIRONMENT.find(number) or DeploymentEnvironment.DEVELOPMENT


def to_traffic(shares: Iterable[pb.TrafficShare]) -> dict[int, int]:
    """Weights by revision."""
    traffic: dict[int, int] = {}
    for index, share in enumerate(shares):
        if share.revision in traffic:
            raise InvalidInput.at(f"traffic[{index}].revision", f"Revision {share.revision} has a share already.")
        traffic[share.revision] = share.weight
    return traffic


def _to_canary(message: pb.DeploymentConfig, strategy: RolloutStrategy) -> Canary | None:
    if strategy is not RolloutStrategy.CANARY and not message.HasField("canary"):
        return None
    return Canary(
        tuple(CanaryStep(step.weight, step.duration_seconds) for step in message.canary.steps) or Canary().steps,
        _to_analysis(message.canary.analysis) if message.canary.HasField("analysis") else None,
    )


def _to_analysis(message: pb.CanaryAnalysis) -> CanaryAnalysis:
    least = message.min_requests or CanaryAnalysis(0).min_requests
    return CanaryAnalysis(message.max_error_percent, message.max_latency_ratio, least)


def config_to_proto(config: DeploymentConfig) -> pb.DeploymentConfig:
    """How a version is served, with every default."""
    return pb.DeploymentConfig(
        environment=DEPLOYMENT_ENVIRONMENT.to_proto(config.environment),
        target=DEPLOYMENT_TARGET.to_proto(config.target),
        strategy=ROLLOUT_STRATEGY.to_proto(config.strategy),
        scaling=scaling_to_proto(config),
        probes=pb.Probes(
            startup_seconds=int(config.probes.startup_seconds),
            period_seconds=int(config.probes.period_seconds),
            timeout_seconds=int(config.probes.timeout_seconds),
            failure_threshold=config.probes.failure_threshold,
        ),
        canary=None if config.canary is None else _canary_to_proto(config.canary),
        container=None if config.container == AS_IT_IS else container_to_proto(config.container),
    )


def _canary_to_proto(canary: Canary) -> pb.Canary:
    steps = [pb.CanaryStep(weight=step.weight, duration_seconds=step.duration_seconds) for step in canary.steps]
    if canary.analysis is None:
        return pb.Canary(steps=steps)
    analysis = pb.CanaryAnalysis(
        max_error_percent=canary.analysis.max_error_percent,
        max_latency_ratio=canary.analysis.max_latency_ratio,
        min_requests=canary.analysis.min_requests,
    )
    return pb.Canary(steps=steps, analysis=analysis)


def _progress_to_proto(deployment: Deployment, progress: CanaryProgress) -> pb.CanaryProgress:
    return pb.CanaryProgress(
        step=progress.step,
        steps=len(deployment.config.canary.steps) if deployment.config.canary else 0,
        start_time=timestamp(progress.start_time),
        end_time=timestamp(progress.end_time),
    )


def _replica_to_proto(replica: Replica) -> pb.Replica:
    return pb.Replica(
        id=str(replica.id),
        revision=replica.revision,
        state=REPLICA_STATE.to_proto(replica.state),
        endpoint=replica.endpoint,
        restarts=replica.restarts,
        last_failure=None if replica.last_failure is None else _failure_to_proto(replica.last_failure),
    )


def _failure_to_proto(failure: ReplicaFailure) -> pb.ReplicaFailure:
    return pb.ReplicaFailure(
        reason=REPLICA_FAILURE_REASON.to_proto(failure.reason),
        message=failure.message,
        exit_code=failure.exit_code,
        log_lines=failure.log_lines,
        failure_time=timestamp(failure.time),
    )


def _condition_to_proto(condition: Condition) -> pb.Condition:
    return pb.Condition(
        type=CONDITION_TYPE.to_proto(condition.type),
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        transition_time=timestamp(condition.transition_time),
    )
