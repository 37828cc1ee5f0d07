"""Use cases of the objects that a revision has on a cluster: shown, held against the cluster, and never made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from easyml_server.domain.deployments import Deployment, DeploymentTarget, Revision
from easyml_server.domain.errors import NotFound, WrongState
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.manifests import Manifests
from easyml_server.ports.store import Store
from easyml_server.services.deployment_names import DeploymentName, find_deployment
from easyml_server.services.served_revisions import served_revision


@dataclass(frozen=True, slots=True)
class RenderedRevision:
    """The objects of a revision, as YAML."""

    number: int
    manifests: str


class DeploymentManifests:
    """What targets that have objects would have made."""

    def __init__(self, store: Store, artifacts: ArtifactStore, targets: Mapping[DeploymentTarget, Manifests]) -> None:
        self._store = store
        self._artifacts = artifacts
        self._targets = targets

    async def render(self, caller: Caller, target: UUID | DeploymentName, number: int) -> RenderedRevision:
        """The objects of a revision, of the newest if the number is 0."""
        async with self._store.read() as work:
            deployment = await find_deployment(work, caller, target)
            found = await work.deployments.revisions(deployment.id, [number or deployment.latest_revision])
        if not found:
            raise NotFound(
                f"Deployment {deployment.name!r} has no revision {number}; list_revisions says which there are.",
                resource=("revision", str(number)),
            )
        (revision,) = found
        manifests = self._targets.get(revision.config.target)
        if manifests is None:
            raise WrongState(
                f"Revision {revision.number} has the target {revision.config.target}, which has no manifests; "
                "one with the target kubernetes has.",
                metadata={"target": revision.config.target.value},
            )
        served = served_revision(self._artifacts, deployment, revision, deployment.config.replicas)
        if served is None:
            raise WrongState(
                f"The model version of revision {revision.number} was deleted; name a revision that has one.",
                metadata={"revision": str(revision.number)},
            )
        return RenderedRevision(revision.number, await manifests.render(served))

    async def rehearse(self, deployment: Deployment, revision: Revision) -> None:
        """Raise what the target would refuse of a revision that is not stored."""
        manifests = self._targets.get(revision.config.target)
        served = served_revision(self._artifacts, deployment, revision, deployment.config.replicas)
        if manifests is not None and served is not None:
            await manifests.rehearse(served)
