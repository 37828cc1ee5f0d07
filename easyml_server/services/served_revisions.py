"""A revision as deployers take it: with where its model is, and what its deployment wants now."""

from __future__ import annotations

from functools import partial

from easyml_server.domain.deployments import Deployment, Revision
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.deployer import ServedRevision
from easyml_server.ports.model_servers import ServedModel


def served_revision(
    artifacts: ArtifactStore, deployment: Deployment, revision: Revision, replicas: int
) -> ServedRevision | None:
    """So many replicas of it; None if its model version was deleted."""
    if revision.model_version_id is None:
        return None
    key = VersionKey.of_model(deployment.project_id, revision.model_version_id)
    return ServedRevision(
        id=revision.id,
        deployment_id=deployment.id,
        names=deployment.model_names,
        number=revision.number,
        model=ServedModel(revision.model_version_id, partial(artifacts.held, key), partial(artifacts.source, key)),
        replicas=replicas,
        probes=revision.config.probes,
        container=revision.config.container,
        target=revision.config.target,
        active=revision.number == deployment.active_revision,
    )
