"""What there is on the cluster of ours, as the API server tells of it: a view of each kind, kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from easyml_server.deployers.kubernetes.api import APPLIED, EVENTS, PODS, Away, Kind, KubernetesApi, Object, Refused
from easyml_server.deployers.kubernetes.names import DEPLOYMENT, REVISION, id_in, selector_of
from easyml_server.deployers.kubernetes.replicas import FAILED_MOUNT, KILLING, Warned, is_ours, time_of
from easyml_server.deployers.kubernetes.watched import Watched

OF_PODS: Final = "involvedObject.kind=Pod"
WORDS: Final = frozenset({KILLING, FAILED_MOUNT})


class Views:
    """`pod_changed` hears of a pod, with True where it is gone; `object_changed` of a revision with other objects."""

    def __init__(
        self,
        api: KubernetesApi,
        owner: str,
        pod_changed: Callable[[Object, bool], None],
        object_changed: Callable[[UUID, bool], None],
        troubled: Callable[[], None],
    ) -> None:
        self._pod_changed = pod_changed
        self._object_changed = object_changed
        self._troubled = troubled
        self._in_trouble = asyncio.Event()
        ours = {"labelSelector": selector_of(owner)}
        self._pods = Watched(api, PODS, ours, self._hear_of_pod, self._hear_of_trouble)
        self._applied = {kind: Watched(api, kind, ours, self._hear, self._hear_of_trouble) for kind in APPLIED}
        self._events = Watched(api, EVENTS, {"fieldSelector": OF_PODS}, self._hear_warning, self._hear_of_trouble)
        self._warned: dict[UUID, Warned] = {}

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """They are kept up to date in this block."""
        watched = (self._pods, *self._applied.values(), self._events)
        tasks = [asyncio.create_task(each.run(), name=f"watch {each.kind.plural}") for each in watched]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    @property
    def known(self) -> bool:
        """Whether everything was listed once."""
        return all(each.synced.is_set() for each in (self._pods, *self._applied.values()))

    async def listed(self) -> None:
        """Wait until everything was listed."""
        for each in (self._pods, *self._applied.values()):
            await each.synced.wait()

    async def listed_unless_in_trouble(self) -> None:
        """Wait until everything was listed, or cannot be."""
        waiting = [asyncio.create_task(each) for each in (self.listed(), self._in_trouble.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    @property
    def trouble(self) -> Away | Refused | None:
        """Why not everything is heard of just now. Without events nothing is missed but why a pod ended."""
        watched = (self._pods, *self._applied.values())
        return next((each.trouble for each in watched if each.trouble is not None), None)

    def pods(self, label: str, identity: UUID) -> Sequence[Object]:
        """Those of a deployment or of a revision, the oldest first."""
        text = str(identity)
        found = [pod for pod in self._pods.objects.values() if pod["metadata"]["labels"].get(label) == text]
        ours = [pod for pod in found if is_ours(pod)]
        return sorted(ours, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def revisions(self) -> dict[UUID, UUID]:
        """Ids of the revisions that anything is there of, and of their deployments."""
        return {
            revision: deployment
            for _, found in self._all()
            if (revision := _id(found, REVISION)) and (deployment := _id(found, DEPLOYMENT))
        }

    def objects(self, revision_id: UUID) -> Sequence[tuple[Kind, Object]]:
        """What is there of a revision, without pods."""
        text = str(revision_id)
        return [(kind, found) for kind, found in self._all() if found["metadata"]["labels"].get(REVISION) == text]

    def find(self, kind: Kind, name: str) -> Object | None:
        """An object of ours, or None."""
        return self._applied[kind].objects.get(name)

    def put(self, kind: Kind, found: Object) -> None:
        """An object as it was answered."""
        self._applied[kind].put(found)

    def warned(self, pod: Object) -> Warned | None:
        """What an event last said of a pod."""
        return self._warned.get(UUID(pod["metadata"]["uid"]))

    def _all(self) -> Iterator[tuple[Kind, Object]]:
        return ((kind, found) for kind, watched in self._applied.items() for found in watched.objects.values())

    def _hear_of_trouble(self) -> None:
        self._in_trouble.set()
        self._troubled()

    def _hear(self, found: Object, gone: bool) -> None:
        if revision := _id(found, REVISION):
            self._object_changed(revision, gone)

    def _hear_of_pod(self, pod: Object, gone: bool) -> None:
        if gone:
            self._warned.pop(UUID(pod["metadata"]["uid"]), None)
        if _id(pod, DEPLOYMENT):
            self._pod_changed(pod, gone)

    def _hear_warning(self, event: Object, gone: bool) -> None:
        """Of whose pods ever: those of others are forgotten with the event."""
        try:
            uid = UUID(event["involvedObject"].get("uid", ""))
        except ValueError:
            return
        pod = next((pod for pod in self._pods.objects.values() if pod["metadata"]["uid"] == str(uid)), None)
        if gone or event.get("reason") not in WORDS or pod is None:
            return
        time = time_of(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
        before = self._warned.get(uid)
        if before is None or before.time <= time:
            self._warned[uid] = Warned(event["reason"], event.get("message", ""), time)
            self._pod_changed(pod, False)


def _id(found: Object, label: str) -> UUID | None:
    return id_in(found["metadata"].get("labels") or {}, label)
