"""One revision on the cluster: what is wanted of it, and the steps that bring it about, safe to repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from easyml_server.deployers.kubernetes.api import (
    DEPLOYMENTS,
    SERVICES,
    Kind,
    KubernetesApi,
    Object,
    Refused,
)
from easyml_server.deployers.kubernetes.manifests import manifests
from easyml_server.deployers.kubernetes.names import REVISION, deployment_name
from easyml_server.deployers.kubernetes.rehearsing import kind_of, source_of
from easyml_server.deployers.kubernetes.replicas import fault_of_error
from easyml_server.deployers.kubernetes.target import Target
from easyml_server.deployers.kubernetes.views import Views
from easyml_server.domain.deployments import ReplicaFailure, ReplicaFailureReason
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.deployer import ServedRevision

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 15.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Served:
    """`revision` is None where nothing is wanted of it; `failure` says why what is wanted could not be had.

    One that `may_run` already was there before this server looked.
    """

    id: UUID
    deployment_id: UUID
    revision: ServedRevision | None
    may_run: bool = False
    failure: ReplicaFailure | None = None
    source: StoredSource | None = None
    applied: dict[tuple[Kind, str], Object] = field(default_factory=dict)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def wants(self, revision: ServedRevision | None) -> None:
        """Something else is wanted of it."""
        before, self.revision = self.revision, revision
        if before is None or revision is None:
            different = before is not revision
        else:
            different = (before.replicas, before.active) != (revision.replicas, revision.active)
        if different:
            self.woken.set()


class Cluster:
    """Brings about what is wanted of revisions, one step after the other for each."""

    def __init__(
        self,
        api: KubernetesApi,
        target: Target,
        views: Views,
        clock: Callable[[], datetime],
        before_fewer: Callable[[Served], Awaitable[None]],
        changed: Callable[[Served], None],
    ) -> None:
        """`before_fewer` is waited for before pods of a revision are taken away."""
        self._api = api
        self._target = target
        self._views = views
        self._clock = clock
        self._before_fewer = before_fewer
        self._changed = changed
        self.served: dict[UUID, Served] = {}

    async def keep(self, served: Served) -> None:
        """Have it be as it is wanted, until nothing is wanted and nothing is left."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            served.woken.clear()
            try:
                await self._views.listed()
                await self._bring_about(served)
            except Exception as error:  # whatever is in the way of one revision, it is tried again
                self._fail(served, error)
                await _within(pause, served.woken)
                pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
                continue
            pause = FIRST_PAUSE_SECONDS
            if served.failure is not None:
                served.failure = None
                self._changed(served)
            if served.revision is None and not self._left_of(served):
                self.served.pop(served.id, None)
                self._changed(served)
                return
            await served.woken.wait()

    def _left_of(self, served: Served) -> bool:
        kept = self._of_others(served)
        found = ((kind, each["metadata"]["name"]) for kind, each in self._views.objects(served.id))
        return any(key not in kept for key in found) or bool(self._views.pods(REVISION, served.id))

    async def _bring_about(self, served: Served) -> None:
        wanted = await self._wanted(served)
        if self._takes_away(served, wanted):
            await self._before_fewer(served)
        for key, manifest in wanted.items():
            kind, name = key
            there = self._views.find(kind, name)
            if there is None or served.applied.get(key) != manifest:
                self._views.put(kind, await self._api.apply(kind, manifest))
                served.applied[key] = manifest
        needed = {*wanted, *self._of_others(served)}
        for kind, found in self._views.objects(served.id):
            key = (kind, found["metadata"]["name"])
            if key not in needed and not found["metadata"].get("deletionTimestamp"):
                await self._api.delete(kind, found)
                served.applied.pop(key, None)

    def _of_others(self, served: Served) -> set[tuple[Kind, str]]:
        """The Service of a deployment belongs to whichever revision answers: it passes from one to the next."""
        others = (other.revision for other in self.served.values() if other is not served)
        return {(SERVICES, deployment_name(other)) for other in others if other is not None and other.active}

    async def _wanted(self, served: Served) -> dict[tuple[Kind, str], Object]:
        revision = served.revision
        if revision is None:
            return {}
        # The files of a version never change.
        served.source = served.source or await source_of(revision)
        objects = manifests(revision, served.source, self._target)
        return {(kind_of(each), each["metadata"]["name"]): each for each in objects}

    def _takes_away(self, served: Served, wanted: dict[tuple[Kind, str], Object]) -> bool:
        """Whether pods are to end by this step."""
        for kind, found in self._views.objects(served.id):
            if kind is DEPLOYMENTS and not found["metadata"].get("deletionTimestamp"):
                manifest = wanted.get((kind, found["metadata"]["name"]))
                return manifest is None or manifest["spec"]["replicas"] < found["spec"].get("replicas", 0)
        return False

    def _fail(self, served: Served, error: Exception) -> None:
        fault = fault_of_error(error)
        if fault.reason is ReplicaFailureReason.CANNOT_START and not isinstance(error, Refused):
            log.exception("revision_not_applied", revision=str(served.id))
        before = served.failure
        if before is None or (before.reason, before.message) != (fault.reason, fault.message):
            log.warning("revision_not_applied", revision=str(served.id), reason=fault.reason, message=fault.message)
            served.failure = ReplicaFailure(fault.reason, fault.message, self._clock())
            self._changed(served)


async def _within(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
