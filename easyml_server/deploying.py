"""Joins what deployments need: the deployers, calls to replicas, and who brings them about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from easyml_server.data_folder import DataFolder
from easyml_server.deployers.deployments import start_deployer
from easyml_server.deployers.endpoints import Endpoints
from easyml_server.deployers.identities import Identities
from easyml_server.deployers.kubernetes.target import Target, read_keys
from easyml_server.deployers.limits import ModelServerLimits
from easyml_server.deployers.targets import Targets
from easyml_server.domain.deployments import DeploymentTarget, Replica
from easyml_server.domain.errors import EasyMLError
from easyml_server.domain.leases import Lease
from easyml_server.files import object_url
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.signals import Signals
from easyml_server.ports.store import Store
from easyml_server.security.tokens import Ed25519Signer
from easyml_server.services.auth import AuthService
from easyml_server.services.autoscaler import Autoscaler
from easyml_server.services.cold_starts import ColdStarts
from easyml_server.services.counters_elsewhere import CountersElsewhere
from easyml_server.services.deployment_changes import DeploymentChanges
from easyml_server.services.deployment_configs import DeploymentConfigService
from easyml_server.services.deployment_logs import DeploymentLogs
from easyml_server.services.deployment_manifests import DeploymentManifests
from easyml_server.services.deployment_metrics import DeploymentMetrics
from easyml_server.services.deployment_watch import DeploymentWatch
from easyml_server.services.deployments import DeploymentService
from easyml_server.services.mirroring import Mirroring
from easyml_server.services.reconciler import DeploymentReconciler
from easyml_server.services.tenure import Leased, Sole
from easyml_server.settings import Settings

if TYPE_CHECKING:
    from easyml_server.deployers.kubernetes.deployer import KubernetesDeployer

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
    manifests: DeploymentManifests
    leased: Leased | None
    """Where there may be other servers."""
    reaches: Callable[[Replica], bool]
    """Whether calls may go to a replica; a server that is alone has started all of them."""

    def hear(self, deployment_id: UUID) -> None:
        """Another server stored something of a deployment."""
        self.watch.hear(deployment_id)
        self.reconciler.hear(deployment_id)

    def look_again(self) -> None:
        """Other servers may have stored anything."""
        self.watch.look_again()
        self.reconciler.look_again()


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
    lease: Lease,
    signals: Signals,
) -> AsyncIterator[Deployments]:
    """At the end replicas are left running, unless somebody interrupted the server."""
    watch = DeploymentWatch(signals)
    leased = None if settings.database_url is None else Leased(store, lease)
    endpoints = Endpoints(Identities(signer, clock))
    async with (
        start_deployer(
            folder.deployments,
            signer.jwks_path,
            model_server_limits(settings),
            orphan_seconds=settings.deployment_orphan_seconds,
            clock=clock,
        ) as local,
        clusters(settings, signer, clock) as others,
    ):
        deployer = Targets({DeploymentTarget.LOCAL: local, **others}) if others else local
        reaches = _everything if leased is None else deployer.reaches
        elsewhere = None if leased is None else CountersElsewhere(store, deployer)
        metrics = DeploymentMetrics(store, deployer, clock, elsewhere)
        autoscaler = Autoscaler(deployer)
        reconciler = DeploymentReconciler(
            store, artifacts, deployer, watch, mirroring, metrics, autoscaler, clock, leased or Sole()
        )
        calls = ColdStarts(
            endpoints,
            store,
            autoscaler,
            watch,
            reconciler.wake,
            reaches,
            clock,
            max_waiting=settings.max_waiting_predictions,
            default_seconds=settings.default_deadline_seconds,
        )
        configs = DeploymentConfigService(store, settings.limits(), barred_targets(settings))
        manifests = DeploymentManifests(store, artifacts, others)
        service = DeploymentService(store, reconciler, watch, settings.limits(), clock, configs, signer, manifests)
        changes = DeploymentChanges(store, auth, watch, clock)
        logs = DeploymentLogs(store, auth, deployer, watch, clock, leased or Sole())
        try:
            yield Deployments(
                calls,
                watch,
                changes,
                metrics,
                logs,
                autoscaler,
                reconciler,
                service,
                configs,
                manifests,
                leased,
                reaches,
            )
        finally:
            await endpoints.close()
            if leased is not None:
                # Else the others wait for the end of its leases.
                with suppress(EasyMLError):
                    await leased.let_all_go()
            if interrupted.is_set():
                await local.stop(INTERRUPTED_GRACE_SECONDS)


def _everything(_replica: Replica) -> bool:
    return True


def barred_targets(settings: Settings) -> Mapping[DeploymentTarget, str]:
    """The targets that a server with these settings has not, and why."""
    if settings.kubernetes_namespace is None:
        return {
            DeploymentTarget.KUBERNETES: "This server was given no cluster; whoever runs it names a namespace of"
            " one with EASYML_KUBERNETES_NAMESPACE. Leave the target out to deploy beside the server."
        }
    if object_url(settings) is None:
        return {
            DeploymentTarget.KUBERNETES: "The models of this server are in a folder of its machine, which pods do not"
            " reach; whoever runs it sets EASYML_ARTIFACT_URL to a store that both reach, such as s3://bucket/folder."
        }
    return {}


@asynccontextmanager
async def clusters(
    settings: Settings, signer: Ed25519Signer, clock: Callable[[], datetime]
) -> AsyncIterator[Mapping[DeploymentTarget, KubernetesDeployer]]:
    """Deployers on clusters, as the settings say; their package is imported only then."""
    if settings.kubernetes_namespace is None or object_url(settings) is None:
        yield {}
        return
    from easyml_server.deployers.kubernetes import deployer as kubernetes
    from easyml_server.deployers.kubernetes.connection import connecting

    connect = connecting(settings.kubeconfig_file, settings.kubernetes_context or "")
    async with kubernetes.start_deployer(connect, kubernetes_target(settings, signer), clock) as deployer:
        yield {DeploymentTarget.KUBERNETES: deployer}


def kubernetes_target(settings: Settings, signer: Ed25519Signer) -> Target:
    """What all pods have in common."""
    keys, owner = read_keys(signer.jwks_path)
    return Target(
        namespace=settings.kubernetes_namespace or "",
        image=settings.kubernetes_image or "",
        keys=keys,
        owner=owner,
        arguments=model_server_limits(settings).arguments(),
        image_pull_policy=settings.kubernetes_image_pull_policy,
        image_pull_secret=settings.kubernetes_image_pull_secret or "",
        service_account=settings.kubernetes_service_account or "",
        store_secret=settings.kubernetes_store_secret or "",
    )


def model_server_limits(settings: Settings) -> ModelServerLimits:
    """The settings that model servers keep to as well."""
    return ModelServerLimits(**{field.name: getattr(settings, field.name) for field in fields(ModelServerLimits)})
