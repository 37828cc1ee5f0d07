"""Joins what deployments need: the deployer of this machine, calls to replicas, and who brings them about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime

from easyml_server.data_folder import DataFolder
from easyml_server.deployers.deployments import start_deployer
from easyml_server.deployers.endpoints import Endpoints
from easyml_server.deployers.identities import Identities
from easyml_server.deployers.limits import ModelServerLimits
from easyml_server.domain.deployments import DeploymentTarget
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.store import Store
from easyml_server.security.tokens import Ed25519Signer
from easyml_server.services.auth import AuthService
from easyml_server.services.autoscaler import Autoscaler
from easyml_server.services.cold_starts import ColdStarts
from easyml_server.services.deployment_changes import DeploymentChanges
from easyml_server.services.deployment_configs import DeploymentConfigService
from easyml_server.services.deployment_logs import DeploymentLogs
from easyml_server.services.deployment_metrics import DeploymentMetrics
from easyml_server.services.deployment_watch import DeploymentWatch
from easyml_server.services.deployments import DeploymentService
from easyml_server.services.mirroring import Mirroring
from easyml_server.services.reconciler import DeploymentReconciler
from easyml_server.settings import Settings

INTERRUPTED_GRACE_SECONDS = 2.0
"""For calls in flight at replicas when somebody presses Ctrl-C, who does not want to wait."""


@dataclass(frozen=True, slots=True)
class Deployments:
    """Everything of a server that serves deployments."""

    calls: ColdStarts
    watch: DeploymentWatch
    changes: DeploymentChanges
    metrics: DeploymentMetrics
    logs: DeploymentLogs
    autoscaler: Autoscaler
    reconciler: DeploymentReconciler
    service: DeploymentService
    configs: DeploymentConfigService
    targets: frozenset[DeploymentTarget]


@asynccontextmanager
async def open_deployments(
    settings: Settings,
    folder: DataFolder,
    store: Store,
    artifacts: ArtifactStore,
    auth: AuthService,
    signer: Ed25519Signer,
    mirroring: Mirroring,
    clock: Callable[[], datetime],
    interrupted: asyncio.Event,
) -> AsyncIterator[Deployments]:
    """At the end replicas are left running, unless somebody interrupted the server."""
    watch = DeploymentWatch()
    endpoints = Endpoints(Identities(signer, clock))
    async with start_deployer(
        folder.deployments,
        signer.jwks_path,
        model_server_limits(settings),
        orphan_seconds=settings.deployment_orphan_seconds,
        clock=clock,
    ) as deployer:
        metrics = DeploymentMetrics(store, deployer, clock)
        autoscaler = Autoscaler(deployer)
        reconciler = DeploymentReconciler(store, artifacts, deployer, watch, mirroring, metrics, autoscaler, clock)
        calls = ColdStarts(
            endpoints,
            store,
            autoscaler,
            watch,
            reconciler.wake,
            max_waiting=settings.max_waiting_predictions,
            default_seconds=settings.default_deadline_seconds,
        )
        configs = DeploymentConfigService(store, settings.limits(), targets(settings))
        service = DeploymentService(store, reconciler, watch, settings.limits(), clock, configs, signer)
        changes = DeploymentChanges(store, auth, watch, clock)
        logs = DeploymentLogs(store, auth, deployer, watch, clock)
        try:
            yield Deployments(
                calls, watch, changes, metrics, logs, autoscaler, reconciler, service, configs, targets(settings)
            )
        finally:
            await endpoints.close()
            if interrupted.is_set():
                await deployer.stop(INTERRUPTED_GRACE_SECONDS)


def targets(settings: Settings) -> frozenset[DeploymentTarget]:
    """Processes beside one of several servers would be out of reach of the others."""
    return frozenset() if settings.database_url else frozenset({DeploymentTarget.LOCAL})


def model_server_limits(settings: Settings) -> ModelServerLimits:
    """The settings that model servers keep to as well."""
    return ModelServerLimits(**{field.name: getattr(settings, field.name) for field in fields(ModelServerLimits)})
