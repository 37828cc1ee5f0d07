"""Deployments on a cluster: a Deployment for each revision, whose pods the cluster keeps running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

import structlog

from easyml_server.deployers.kubernetes.api import DEPLOYMENTS, Away, Client, KubernetesApi, Object, Refused
from easyml_server.deployers.kubernetes.counting import PodCounters
from easyml_server.deployers.kubernetes.logs import PodLogs, last_lines
from easyml_server.deployers.kubernetes.names import DEPLOYMENT, REVISION, id_in, revision_name
from easyml_server.deployers.kubernetes.rehearsing import as_yaml, objects_of, rehearse
from easyml_server.deployers.kubernetes.replicas import (
    Fault,
    Resolve,
    ended_before,
    fault_of,
    fault_of_deployment,
    fault_of_error,
    replica_of,
)
from easyml_server.deployers.kubernetes.served import Cluster, Served
from easyml_server.deployers.kubernetes.target import Target
from easyml_server.deployers.kubernetes.views import Views
from easyml_server.deployers.replica_counters import counters_at
from easyml_server.deployers.replica_process import answers
from easyml_server.domain.counters import ReplicaCounters, ReplicaLoad, RevisionCounters
from easyml_server.domain.deployments import Replica, ReplicaFailure, ReplicaState
from easyml_server.domain.errors import Unavailable
from easyml_server.ports.deployer import ServedRevision

ANSWER_SECONDS: Final = 1.0
FIRST_LOOK_SECONDS: Final = 10.0
"""A server that starts waits so long for the cluster; then it goes on without."""
RETRY_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


class KubernetesDeployer:
    """Fulfils `ports.deployer.Deployer` and `ports.manifests.Manifests`."""

    def __init__(
        self, api: KubernetesApi, target: Target, clock: Callable[[], datetime], resolve: Resolve = str
    ) -> None:
        self._api = api
        self._target = target
        self._clock = clock
        self._resolve = resolve
        self._views = Views(api, target.owner, self._hear_of_pod, self._hear_of_revision, self._hear_of_trouble)
        self._cluster = Cluster(api, target, self._views, clock, self._before_fewer, self._tell)
        self._counters = PodCounters(self._views, resolve)
        # Why each pod was not ready when that was last so, and what its container had said.
        self._faults: dict[UUID, tuple[Fault, ReplicaFailure]] = {}
        self._begun = False
        self._changed: set[UUID] = set()
        self._waking = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The cluster is followed in this block; at the end what runs there is left running."""
        async with aclosing(self._api), self._views.followed():
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    await self._views.listed_unless_in_trouble()
            try:
                yield
            finally:
                tasks = [*self._background, *(each.task for each in self._cluster.served.values() if each.task)]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def render(self, revision: ServedRevision) -> str:
        """See Manifests."""
        return as_yaml(await objects_of(revision, self._target))

    async def rehearse(self, revision: ServedRevision) -> None:
        """See Manifests."""
        await rehearse(self._api, await objects_of(revision, self._target))

    def apply(self, revision: ServedRevision) -> None:
        """See Deployer."""
        self._want(revision.id, revision.deployment_id, revision)

    def remove(self, revision_id: UUID) -> None:
        """See Deployer."""
        served = self._cluster.served.get(revision_id)
        if served is not None:
            served.wants(None)
        elif deployment_id := self._views.revisions().get(revision_id):
            self._want(revision_id, deployment_id, None)

    def retain(self, revision_ids: Collection[UUID]) -> None:
        """See Deployer. What is not known yet, as the cluster is away, is left for the next start."""
        self._begun = True
        for revision_id in (self._cluster.served.keys() | self._views.revisions().keys()) - set(revision_ids):
            self.remove(revision_id)

    def replicas(self, revision_id: UUID) -> Sequence[Replica]:
        """See Deployer. Raises Unavailable where replicas may run and the cluster has not said so yet."""
        served = self._cluster.served.get(revision_id)
        if served is None:
            return ()
        if served.may_run and not self._views.known:
            why = self._views.trouble or "it has not answered yet."
            raise Unavailable(
                f"What runs on the cluster is not known yet: {why}",
                retry_after=RETRY_SECONDS,
                metadata={"part": "kubernetes"},
            )
        there = [self._replica(pod, served) for pod in self._views.pods(REVISION, revision_id)]
        wanted = 0 if served.revision is None else served.revision.replicas
        missing = wanted - sum(replica.state is not ReplicaState.STOPPING for replica in there)
        return (*there, *(self._missing(served, index) for index in range(missing)))

    def found(self, revision_id: UUID) -> Collection[UUID]:
        """See Deployer."""
        if revision_id in self._cluster.served:
            return ()
        return [UUID(pod["metadata"]["uid"]) for pod in self._views.pods(REVISION, revision_id)]

    def reaches(self, replica: Replica) -> bool:
        """See Deployer. Pods have addresses of their own."""
        return not replica.machine

    async def answers(self, deployment_id: UUID, endpoint: str) -> bool:
        """See Deployer."""
        return await answers(endpoint, str(deployment_id), ANSWER_SECONDS)

    async def counters(self) -> Sequence[RevisionCounters]:
        """See Deployer."""
        return await self._counters.read([each.id for each in self._cluster.served.values()])

    async def counters_at(self, endpoints: Mapping[UUID, str]) -> Sequence[ReplicaCounters]:
        """See Deployer."""
        return await counters_at(endpoints)

    async def loads(self, deployment_id: UUID) -> Sequence[ReplicaLoad]:
        """See Deployer."""
        return await self._counters.loads(deployment_id)

    def logs(self, deployment_id: UUID, tail_lines: int) -> PodLogs:
        """See Deployer."""
        return PodLogs(self._api, lambda: self._views.pods(DEPLOYMENT, deployment_id), tail_lines)

    async def changed(self) -> Collection[UUID]:
        """See Deployer."""
        await self._waking.wait()
        self._waking.clear()
        changed, self._changed = self._changed, set()
        return changed

    async def settled(self) -> None:
        """Wait until everything that nobody wants is gone."""
        while ending := [each.task for each in self._cluster.served.values() if each.revision is None and each.task]:
            await asyncio.wait(ending)

    def _want(self, revision_id: UUID, deployment_id: UUID, revision: ServedRevision | None) -> None:
        served = self._cluster.served.get(revision_id)
        if served is not None:
            served.wants(revision)
            return
        served = self._cluster.served[revision_id] = Served(revision_id, deployment_id, revision, not self._begun)
        served.task = asyncio.create_task(self._cluster.keep(served), name=f"revision {revision_id}")
        self._tell(served)

    def _replica(self, pod: Object, served: Served) -> Replica:
        _, failure = self._faults.get(UUID(pod["metadata"]["uid"]), (None, None))
        replica = replica_of(pod, failure, self._resolve)
        if replica.state.awaited and failure is None:
            stuck = self._stuck(served)
            replica = replace(replica, last_failure=stuck)
        return replica

    def _missing(self, served: Served, index: int) -> Replica:
        """One that has no pod yet."""
        stuck = self._stuck(served)
        state = ReplicaState.STARTING if stuck is None else ReplicaState.BACKING_OFF
        number = 0 if served.revision is None else served.revision.number
        return Replica(uuid5(served.id, str(index)), number, state, last_failure=stuck)

    def _stuck(self, served: Served) -> ReplicaFailure | None:
        """Why a revision does not get on, whatever its pods say."""
        if served.failure is not None or served.revision is None:
            return served.failure
        deployment = self._views.find(DEPLOYMENTS, revision_name(served.revision))
        if self._views.trouble is not None:
            fault: Fault | None = fault_of_error(self._views.trouble)
        else:
            fault = None if deployment is None else fault_of_deployment(deployment)
        return None if fault is None else self._failure(fault)

    def _hear_of_pod(self, pod: Object, gone: bool) -> None:
        identity = UUID(pod["metadata"]["uid"])
        if gone:
            self._faults.pop(identity, None)
            self._counters.gone(pod)
        else:
            fault = fault_of(pod, self._views.warned(pod))
            before, _ = self._faults.get(identity, (None, None))
            if fault is not None and fault != before:
                self._faults[identity] = fault, self._failure(fault)
                if fault.exit_code is not None:
                    self._in_background(self._add_lines(pod, fault))
        self._tell_of(pod)
        if (revision := id_in(pod["metadata"]["labels"], REVISION)) in self._cluster.served and gone:
            self._cluster.served[revision].woken.set()

    async def _add_lines(self, pod: Object, fault: Fault) -> None:
        """What the container said last, once that is known."""
        try:
            lines = await last_lines(self._api, pod, previous=ended_before(pod))
        except (Away, Refused) as error:
            log.warning("log_unread", pod=pod["metadata"]["name"], error=str(error))
            return
        identity = UUID(pod["metadata"]["uid"])
        known, failure = self._faults.get(identity, (None, None))
        if known == fault and failure is not None:
            self._faults[identity] = fault, replace(failure, log_lines=lines)
            self._tell_of(pod)

    def _hear_of_revision(self, revision_id: UUID, gone: bool) -> None:
        """Something of it changed; what is gone may have to be made again."""
        served = self._cluster.served.get(revision_id)
        if served is not None:
            if gone:
                served.woken.set()
            self._tell(served)

    def _hear_of_trouble(self) -> None:
        for served in self._cluster.served.values():
            self._tell(served)

    def _failure(self, fault: Fault) -> ReplicaFailure:
        return ReplicaFailure(fault.reason, fault.message, self._clock(), fault.exit_code)

    async def _before_fewer(self, served: Served) -> None:
        await self._counters.remember(served.id)

    def _tell(self, served: Served) -> None:
        self._changed.add(served.deployment_id)
        self._waking.set()

    def _tell_of(self, pod: Object) -> None:
        deployment_id = id_in(pod["metadata"]["labels"], DEPLOYMENT)
        if deployment_id is not None:
            self._changed.add(deployment_id)
            self._waking.set()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


@asynccontextmanager
async def start_deployer(
    connect: Callable[[], Awaitable[Client]], target: Target, clock: Callable[[], datetime], resolve: Resolve = str
) -> AsyncIterator[KubernetesDeployer]:
    """A deployer on one namespace; what it has there outlives it."""
    deployer = KubernetesDeployer(KubernetesApi(connect, target.namespace), target, clock, resolve)
    async with deployer.running():
        yield deployer
