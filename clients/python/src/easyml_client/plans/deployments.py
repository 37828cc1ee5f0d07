"""Deployments: made, revised, watched, scaled, rolled back, stopped."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Mapping
from typing import Any

from easyml.v1 import (
    auth_service_pb2,
    deployment_logs_pb2,
    deployment_manifests_pb2,
    deployment_metrics_pb2,
    deployment_pb2,
)
from easyml.v1 import deployment_service_pb2 as pb
from easyml_client.errors import DeadlineExceeded, DeploymentFailed, LimitReached, NotFound, Unavailable
from easyml_client.plans.deployment_configs import ServedRef, asked_config, asked_scaling, served
from easyml_client.plans.paging import pages
from easyml_client.plans.references import ProjectRef, project_id, project_of
from easyml_client.plans.waiting import Patience
from easyml_client.resources.deployment_logs import LogLine
from easyml_client.resources.deployment_metrics import DeploymentMetrics
from easyml_client.resources.deployments import Deployment, DeploymentConfig, DeploymentToken, Manifests, Revision
from easyml_client.steps import Emit, Opened, Plan, Stream, call, opened
from easyml_client.values import is_id, to_duration

DeploymentRef = str | Deployment


def create(
    project: ProjectRef,
    name: str,
    model: ServedRef,
    *,
    config: DeploymentConfig | None = None,
    environment: str | None = None,
    target: str | None = None,
    strategy: str | None = None,
    replicas: int = 0,
    probes: Mapping[str, int] | None = None,
    canary: Mapping[str, Any] | None = None,
    container: Mapping[str, Any] | None = None,
    scaling: Mapping[str, int] | None = None,
    description: str = "",
    labels: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> Plan[Deployment]:
    """Serve a model version ("churn", "churn:3", "churn@champion", an id, or the best by criteria) under a name.

    `environment` is "development", "staging" or "production", `target` "local" or "kubernetes", `strategy` "rolling",
    "recreate", "blue_green" or "canary"; `probes`, `canary`, `container` and `scaling` are those of the contract, such
    as {"startup_seconds": 120}, {"steps": [{"weight": 10, "duration_seconds": 60}], "analysis": {"max_error_percent":
    5}}, {"memory_limit": "512Mi", "environment": {"TZ": "UTC"}} and, for as many replicas as the calls need,
    {"min_replicas": 0, "max_replicas": 3}. They change `config`, such as that of `template`. The same `request_id`
    makes it once.
    """
    asked = asked_config(config, environment, target, strategy, replicas, probes, canary, container, scaling)
    request = yield from _new(project, name, model, asked, description, labels, request_id)
    return Deployment.of((yield from call(request, pb.CreateDeploymentResponse)).deployment)


def validate(
    project: ProjectRef,
    name: str,
    model: ServedRef,
    *,
    config: DeploymentConfig | None = None,
    environment: str | None = None,
    target: str | None = None,
    strategy: str | None = None,
    replicas: int = 0,
    probes: Mapping[str, int] | None = None,
    canary: Mapping[str, Any] | None = None,
    container: Mapping[str, Any] | None = None,
    scaling: Mapping[str, int] | None = None,
    description: str = "",
    labels: Mapping[str, str] | None = None,
) -> Plan[Deployment]:
    """Every check of `create`, and what it would make; nothing is started."""
    asked = asked_config(config, environment, target, strategy, replicas, probes, canary, container, scaling)
    request = yield from _new(project, name, model, asked, description, labels, None)
    request.validate_only = True
    return Deployment.of((yield from call(request, pb.CreateDeploymentResponse)).deployment)


def update(
    deployment: DeploymentRef,
    model: ServedRef | None = None,
    *,
    project: ProjectRef | None = None,
    config: DeploymentConfig | None = None,
    environment: str | None = None,
    target: str | None = None,
    strategy: str | None = None,
    replicas: int | None = None,
    probes: Mapping[str, int] | None = None,
    canary: Mapping[str, Any] | None = None,
    container: Mapping[str, Any] | None = None,
    scaling: Mapping[str, int] | None = None,
    etag: str = "",
    validate_only: bool = False,
    request_id: str | None = None,
) -> Plan[Deployment]:
    """Make a new revision: another model version, other settings, or both; what is None stays as it is.

    `validate_only` checks, says what would be, and changes nothing.
    """
    found = yield from get(deployment, project=project)
    request = pb.UpdateDeploymentRequest(
        request_id=request_id or str(uuid.uuid4()), deployment_id=found.id, etag=etag, validate_only=validate_only
    )
    if model is not None:
        request.model_version.CopyFrom((yield from served(model, project or found.project_id)))
    settings = (config, environment, target, strategy, replicas, probes, canary, container, scaling)
    if any(each is not None for each in settings):
        base = config or found.config
        request.config.CopyFrom(
            asked_config(base, environment, target, strategy, replicas or 0, probes, canary, container, scaling)
        )
    return Deployment.of((yield from call(request, pb.UpdateDeploymentResponse)).deployment)


def get(deployment: DeploymentRef, *, project: ProjectRef | None = None) -> Plan[Deployment]:
    """One deployment, by id or name; names need the project."""
    identity = deployment if isinstance(deployment, str) else deployment.id
    if is_id(identity):
        request = pb.GetDeploymentRequest(deployment_id=identity)
    else:
        of_project = yield from project_id(project_of("Deployment", identity, project))
        request = pb.GetDeploymentRequest(name=deployment_pb2.DeploymentName(project_id=of_project, name=identity))
    return Deployment.of((yield from call(request, pb.GetDeploymentResponse)).deployment)


def list_(
    project: ProjectRef, *, name_prefix: str = "", labels: Mapping[str, str] | None = None, page_size: int = 0
) -> Stream[Deployment]:
    """The deployments of a project, newest first."""
    request = pb.ListDeploymentsRequest(
        project_id=(yield from project_id(project)),
        name_prefix=name_prefix,
        labels=labels or {},
        page_size=page_size,
    )
    yield from pages(request, pb.ListDeploymentsResponse, lambda page: map(Deployment.of, page.deployments))


def revisions(deployment: DeploymentRef, *, project: ProjectRef | None = None, page_size: int = 0) -> Stream[Revision]:
    """Its revisions, newest first."""
    request = pb.ListRevisionsRequest(
        deployment_id=(yield from deployment_id(deployment, project)), page_size=page_size
    )
    yield from pages(request, pb.ListRevisionsResponse, lambda page: map(Revision.of, page.revisions))


def scale(
    deployment: DeploymentRef,
    replicas: int = 0,
    *,
    scaling: Mapping[str, int] | None = None,
    project: ProjectRef | None = None,
    etag: str = "",
) -> Plan[Deployment]:
    """Change the number of replicas, or how they follow the calls; this makes no revision.

    `scaling` is that of the contract, such as {"min_replicas": 0, "max_replicas": 3}; what it does not say stays as it
    is, and a change of somebody else meanwhile is not overwritten.
    """
    if scaling is None:
        request = pb.ScaleDeploymentRequest(
            deployment_id=(yield from deployment_id(deployment, project)), replicas=replicas, etag=etag
        )
    else:
        found = yield from get(deployment, project=project)
        whole = asked_scaling(found.config.scaling if found.config else None, replicas, scaling)
        request = pb.ScaleDeploymentRequest(deployment_id=found.id, scaling=whole, etag=etag or found.etag)
    return Deployment.of((yield from call(request, pb.ScaleDeploymentResponse)).deployment)


def rollback(
    deployment: DeploymentRef,
    revision: int = 0,
    *,
    project: ProjectRef | None = None,
    etag: str = "",
    request_id: str | None = None,
) -> Plan[Deployment]:
    """Take back a revision that is on its way, or make a new one like an earlier one.

    Without a number: the one that answers while a newer one is on its way, else the one before it.
    """
    request = pb.RollbackDeploymentRequest(
        request_id=request_id or str(uuid.uuid4()),
        deployment_id=(yield from deployment_id(deployment, project)),
        revision=revision,
        etag=etag,
    )
    return Deployment.of((yield from call(request, pb.RollbackDeploymentResponse)).deployment)


def traffic(
    deployment: DeploymentRef, weights: Mapping[int, int], *, project: ProjectRef | None = None, etag: str = ""
) -> Plan[Deployment]:
    """Share the calls by hand between the revision that answers and a newer one that stands by: {1: 90, 2: 10}."""
    request = pb.SetTrafficRequest(
        deployment_id=(yield from deployment_id(deployment, project)),
        traffic=[deployment_pb2.TrafficShare(revision=each, weight=weight) for each, weight in weights.items()],
        etag=etag,
    )
    return Deployment.of((yield from call(request, pb.SetTrafficResponse)).deployment)


def promote(
    deployment: DeploymentRef,
    *,
    full: bool = False,
    project: ProjectRef | None = None,
    etag: str = "",
    request_id: str | None = None,
) -> Plan[Deployment]:
    """Give a revision that stands by the calls of its next step, or all of them at once."""
    request = pb.PromoteDeploymentRequest(
        request_id=request_id or str(uuid.uuid4()),
        deployment_id=(yield from deployment_id(deployment, project)),
        full=full,
        etag=etag,
    )
    return Deployment.of((yield from call(request, pb.PromoteDeploymentResponse)).deployment)


def stop(deployment: DeploymentRef, *, project: ProjectRef | None = None, etag: str = "") -> Plan[Deployment]:
    """Stop all replicas; `update` and `rollback` start them again."""
    request = pb.StopDeploymentRequest(deployment_id=(yield from deployment_id(deployment, project)), etag=etag)
    return Deployment.of((yield from call(request, pb.StopDeploymentResponse)).deployment)


def delete(deployment: DeploymentRef, *, project: ProjectRef | None = None, etag: str = "") -> Plan[None]:
    """Stop all replicas, and forget the deployment with its revisions."""
    request = pb.DeleteDeploymentRequest(deployment_id=(yield from deployment_id(deployment, project)), etag=etag)
    yield from call(request, pb.DeleteDeploymentResponse)


def manifests(deployment: DeploymentRef, *, project: ProjectRef | None = None, revision: int = 0) -> Plan[Manifests]:
    """The objects that a revision, the newest if none is named, has on its cluster, as YAML; nothing is changed."""
    request = deployment_manifests_pb2.RenderManifestsRequest(
        deployment_id=(yield from deployment_id(deployment, project)), revision=revision
    )
    return Manifests.of((yield from call(request, deployment_manifests_pb2.RenderManifestsResponse)))


def metrics(
    deployment: DeploymentRef, *, project: ProjectRef | None = None, window: dt.timedelta | float | None = None
) -> Plan[DeploymentMetrics]:
    """What its replicas counted in the last while, by revision: calls, errors, latencies, batches, processors, memory.

    `window` is a timedelta or seconds, from a second to an hour; five minutes if left out.
    """
    request = deployment_metrics_pb2.GetDeploymentMetricsRequest(
        deployment_id=(yield from deployment_id(deployment, project)),
        window=None if window is None else to_duration(window),
    )
    return DeploymentMetrics.of((yield from call(request, deployment_metrics_pb2.GetDeploymentMetricsResponse)))


def logs(
    deployment: DeploymentRef, *, project: ProjectRef | None = None, tail: int = 100, follow: bool = False
) -> Stream[LogLine]:
    """What its replicas wrote, by time: so many of the last lines of each, then new ones if they are wanted.

    With `follow` it goes on until the deployment is deleted. A connection that breaks ends it: what was written
    meanwhile can only be found among the last lines.
    """
    request = deployment_logs_pb2.WatchDeploymentLogsRequest(
        deployment_id=(yield from deployment_id(deployment, project)), tail_lines=tail, follow=follow
    )
    stream = yield from opened(request, deployment_logs_pb2.WatchDeploymentLogsResponse)
    while (message := (yield from stream.receive())) is not None:
        for line in message.lines.lines:
            yield Emit(LogLine.of(line))


def token(deployment: DeploymentRef, *, project: ProjectRef | None = None) -> Plan[DeploymentToken]:
    """A short token for calls to the endpoints of one deployment, which need no server."""
    request = auth_service_pb2.ExchangeTokenRequest(deployment_id=(yield from deployment_id(deployment, project)))
    return DeploymentToken.of((yield from call(request, auth_service_pb2.ExchangeTokenResponse)))


def watch(
    deployment: DeploymentRef, *, project: ProjectRef | None = None, after_sequence: int = 0
) -> Stream[Deployment]:
    """The deployment as it is now, and again whenever anything of it changes, until it is deleted.

    A broken connection is taken up again after the last change that came.
    """
    watching = _Watching((yield from deployment_id(deployment, project)), after_sequence)
    while (found := (yield from watching.next())) is not None:
        yield Emit(found)


def result(
    deployment: DeploymentRef, *, project: ProjectRef | None = None, timeout: float | None = None
) -> Plan[Deployment]:
    """Wait until the newest revision answers with all its replicas, awaits its promotion, or was rolled back.

    Raises DeploymentFailed when one of its replicas cannot be had (it is still tried), when its analysis took it back,
    or when it was stopped; DeadlineExceeded when it takes more than `timeout` seconds, which it then does.
    """
    found = yield from get(deployment, project=project)
    watching = _Watching(found.id, 0, timeout)
    try:
        while True:
            if found.settled:
                return found
            _raise_failure(found)
            changed = yield from watching.next()
            if changed is None:
                raise NotFound(f"Deployment {found.name!r} was deleted meanwhile.")
            found = changed
    except DeadlineExceeded as error:
        message = (
            f"Deployment {found.name!r} is not ready after {timeout:g} s; it goes on, and can be waited for again."
        )
        raise DeadlineExceeded(message, call_id=error.call_id) from error


def deployment_id(deployment: DeploymentRef, project: ProjectRef | None) -> Plan[str]:
    """The id of a deployment; a name needs its project."""
    identity = deployment if isinstance(deployment, str) else deployment.id
    if is_id(identity):
        return identity
    return (yield from get(identity, project=project)).id


def _raise_failure(found: Deployment) -> None:
    failing = found.condition("replica_failure")
    if found.state in ("stopping", "stopped"):
        raise DeploymentFailed(found, "it was stopped.")
    if found.withdrawn:
        raise DeploymentFailed(found, found.withdrawn)
    if failing is not None and failing.status:
        raise DeploymentFailed(found, failing.message)


def _new(
    project: ProjectRef,
    name: str,
    model: ServedRef,
    config: deployment_pb2.DeploymentConfig,
    description: str,
    labels: Mapping[str, str] | None,
    request_id: str | None,
) -> Plan[pb.CreateDeploymentRequest]:
    of_project = yield from project_id(project)
    return pb.CreateDeploymentRequest(
        request_id=request_id or str(uuid.uuid4()),
        project_id=of_project,
        name=name,
        description=description,
        labels=labels or {},
        model_version=(yield from served(model, of_project)),
        config=config,
    )


class _Watching:
    """A watch that outlives its connections."""

    def __init__(self, deployment: str, after_sequence: int, timeout: float | None = None) -> None:
        self._deployment = deployment
        self._sequence = after_sequence
        self._end = None if timeout is None else time.monotonic() + timeout
        self._patience = Patience()
        self._stream: Opened[pb.WatchDeploymentResponse] | None = None

    def next(self) -> Plan[Deployment | None]:
        """The deployment when something has changed; None once it is deleted."""
        while True:
            try:
                message = yield from self._receive()
            except (Unavailable, LimitReached) as error:
                self._stream = None
                yield from self._patience.wait(error)
                continue
            self._patience.restored()
            match message.WhichOneof("message"):
                case "deleted":
                    return None
                case "deployment" if message.deployment.sequence > self._sequence:
                    self._sequence = message.deployment.sequence
                    return Deployment.of(message.deployment)

    def _receive(self) -> Plan[pb.WatchDeploymentResponse]:
        stream = self._stream or (yield from self._open())
        self._stream = stream
        message = yield from stream.receive()
        if message is None:
            # The last message says that it is deleted; a stream that ends without it was cut off.
            raise Unavailable("The server ended the watch early.")
        return message

    def _open(self) -> Plan[Opened[pb.WatchDeploymentResponse]]:
        request = pb.WatchDeploymentRequest(deployment_id=self._deployment, after_sequence=self._sequence)
        left = None if self._end is None else max(self._end - time.monotonic(), 0)
        return (yield from opened(request, pb.WatchDeploymentResponse, left))
