"""What pods have counted, read where each tells; once more of those that are taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from easyml_server.deployers.kubernetes.api import Object
from easyml_server.deployers.kubernetes.names import DEPLOYMENT, NUMBER, REVISION
from easyml_server.deployers.kubernetes.replicas import Resolve, metrics_of
from easyml_server.deployers.kubernetes.views import Views
from easyml_server.deployers.replica_counters import Unreadable, counters_at, read_call_seconds
from easyml_server.domain.counters import ReplicaCounters, ReplicaLoad, RevisionCounters


class PodCounters:
    """Reads pods by their addresses, so that an API server that is away takes nothing from it."""

    def __init__(self, views: Views, resolve: Resolve) -> None:
        self._views = views
        self._resolve = resolve
        # The last of pods that are to go, and of those that are gone, until somebody asks.
        self._last: dict[UUID, ReplicaCounters] = {}
        self._gone: list[RevisionCounters] = []

    async def read(self, revision_ids: Sequence[UUID]) -> Sequence[RevisionCounters]:
        """Of all their pods that answer, and the last of those that are gone since the last time."""
        gone, self._gone = self._gone, []
        found = [(identity, pods) for identity in revision_ids if (pods := self._views.pods(REVISION, identity))]
        told = await asyncio.gather(*(self._read(pods) for _, pods in found))
        return [*gone, *(_of_revision(pods[0], counters) for (_, pods), counters in zip(found, told, strict=True))]

    async def loads(self, deployment_id: UUID) -> Sequence[ReplicaLoad]:
        """How busy the pods of a deployment are, those that are ending too."""
        pods = self._views.pods(DEPLOYMENT, deployment_id)
        at = {_id(pod): address for pod in pods if (address := metrics_of(pod, self._resolve))}
        return await asyncio.gather(*(_load(identity, address) for identity, address in at.items()))

    async def remember(self, revision_id: UUID) -> None:
        """Read pods before some of them are told to end: nobody is sure to reach them afterwards."""
        for counters in await self._read(self._views.pods(REVISION, revision_id)):
            self._last[counters.replica_id] = counters

    def gone(self, pod: Object) -> None:
        """A pod is no more; what it counted is told once again."""
        last = self._last.pop(_id(pod), None)
        if last is not None:
            self._gone.append(_of_revision(pod, [replace(last, resident_bytes=0)]))

    async def _read(self, pods: Sequence[Object]) -> Sequence[ReplicaCounters]:
        at = {_id(pod): address for pod in pods if (address := metrics_of(pod, self._resolve))}
        return await counters_at(at)


async def _load(identity: UUID, address: str) -> ReplicaLoad:
    try:
        return ReplicaLoad(identity, await read_call_seconds(address))
    except Unreadable:
        return ReplicaLoad(identity, None)


def _of_revision(pod: Object, counters: Sequence[ReplicaCounters]) -> RevisionCounters:
    labels = pod["metadata"]["labels"]
    return RevisionCounters(UUID(labels[REVISION]), UUID(labels[DEPLOYMENT]), int(labels[NUMBER]), counters)


def _id(pod: Object) -> UUID:
    return UUID(pod["metadata"]["uid"])
