"""The objects of a revision before they are made: as YAML, and held against the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from easyml_server.deployers.kubernetes.api import APPLIED, Away, Kind, KubernetesApi, Object, Refused
from easyml_server.deployers.kubernetes.manifests import manifests
from easyml_server.deployers.kubernetes.replicas import fault_of_error
from easyml_server.deployers.kubernetes.target import Target
from easyml_server.domain.errors import Unavailable, WrongState
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.deployer import ServedRevision

RETRY_SECONDS: Final = 2.0
KIND_OF: Final = {(kind.version, kind.name): kind for kind in APPLIED}


def kind_of(found: Object) -> Kind:
    """The kind of an object that we make."""
    return KIND_OF[found["apiVersion"], found["kind"]]


async def objects_of(revision: ServedRevision, target: Target) -> Sequence[Object]:
    """All of them. Raises as `source_of` does."""
    return manifests(revision, await source_of(revision), target)


async def source_of(revision: ServedRevision) -> StoredSource:
    """Where pods have its model from. Raises as ArtifactStore does, and WrongState where they do not reach it."""
    source = await revision.model.source()
    if source is None:
        raise WrongState(
            "The files of this server are in a folder, which pods do not reach; set EASYML_ARTIFACT_URL to a store.",
            metadata={"setting": "EASYML_ARTIFACT_URL"},
        )
    return source


def as_yaml(objects: Sequence[Object]) -> str:
    """A document each."""
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True, allow_unicode=True)
    return text


async def rehearse(api: KubernetesApi, objects: Sequence[Object]) -> None:
    """Ask the cluster whether it would take them. Raises WrongState and Unavailable."""
    try:
        await asyncio.gather(*(api.apply(kind_of(each), each, dry_run=True) for each in objects))
    except Refused as error:
        fault = fault_of_error(error)
        raise WrongState(fault.message, metadata={"cluster": fault.reason.value}) from error
    except Away as error:
        raise Unavailable(str(error), retry_after=RETRY_SECONDS, metadata={"part": "kubernetes"}) from error
