"""Brings deployments about: looks what is wanted and what runs, takes the next step, and looks again.

It is level-triggered: a step depends on what is there now, so that none is lost by a restart, and each may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from easyml_server.domain.deployments import Deployment, DeploymentState, Replica, Revision
from easyml_server.domain.errors import EasyMLError, NotFound
from easyml_server.domain.inheritance import left_by_others, still_wanted
from easyml_server.domain.rollout import Step, next_step
from easyml_server.domain.traffic import CallCounts
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.deployer import Deployer, ServedRevision
from easyml_server.ports.model_servers import ServedModel
from easyml_server.ports.store import Store, UnitOfWork
from easyml_server.services.autoscaler import Autoscaler
from easyml_server.services.deployment_metrics import DeploymentMetrics
from easyml_server.services.deployment_watch import DeploymentWatch
from easyml_server.services.mirroring import Mirroring
from easyml_server.services.slow_replicas import SlowReplicas
from easyml_server.services.tenure import Tenure

LOOK_SECONDS = 5.0
"""How often all deployments are looked at, whatever was said."""
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class DeploymentReconciler:
    """Carries out what DeploymentService stores."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        deployer: Deployer,
        watch: DeploymentWatch,
        mirroring: Mirroring,
        metrics: DeploymentMetrics,
        autoscaler: Autoscaler,
        clock: Callable[[], datetime],
        tenure: Tenure,
    ) -> None:
        self._store = store
        self._tenure = tenure
        self._artifacts = artifacts
        self._deployer = deployer
        self._watch = watch
        self._mirroring = mirroring
        self._metrics = metrics
        self._slow = SlowReplicas(deployer, metrics)
        self._autoscaler = autoscaler
        self._clock = clock
        # Ids of the revisions that may have replicas, by deployment and number.
        self._applied: dict[UUID, dict[int, UUID]] = {}
        self._told: set[UUID] = set()
        # Those whose next step follows from what is counted.
        self._judged: set[UUID] = set()
        # Of those that another server left, the replicas that answered last.
        self._answering: dict[UUID, frozenset[UUID]] = {}
        self._wanted = asyncio.Event()

    def wake(self, deployment_id: UUID) -> None:
        """Something else is wanted of it."""
        self._told.add(deployment_id)
        self._wanted.set()

    def hear(self, deployment_id: UUID) -> None:
        """Another server stored something of it."""
        if self._tenure.holds(deployment_id) or deployment_id in self._applied:
            self.wake(deployment_id)

    def look_again(self) -> None:
        """Anything may have been stored."""
        for deployment_id in self._applied:
            self.wake(deployment_id)

    def judge(self) -> None:
        """Calls were counted anew."""
        for deployment_id in self._judged | self._slow.look(self._applied):
            self.wake(deployment_id)

    async def run(self) -> None:
        """Until cancelled."""
        listening = asyncio.create_task(self._listen(), name="replicas")
        try:
            await self._begin()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._wanted.wait()
                await self._look(everywhere=not self._wanted.is_set())
        finally:
            listening.cancel()

    async def _listen(self) -> None:
        while True:
            for deployment_id in await self._deployer.changed():
                self.wake(deployment_id)

    async def _begin(self) -> None:
        """Find again what ran before, and end what nobody wants."""
        while not (await self._tried(self._find_again()) and await self._look(everywhere=True)):  # noqa: ASYNC110 (a store tells nobody when it is back)
            await asyncio.sleep(RETRY_SECONDS)
        self._deployer.retain({revision for known in self._applied.values() for revision in known.values()})

    async def _look(self, *, everywhere: bool) -> bool:
        """Take a step of each deployment that something was said of; False if some are to be tried again."""
        self._wanted.clear()
        if everywhere and not await self._tried(self._tell_all()):
            return False
        told, self._told = self._told, set()
        failed = {deployment_id for deployment_id in told if not await self._tried(self._reconcile(deployment_id))}
        if failed:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._tell_again, failed)
        return not failed

    def _tell_again(self, failed: set[UUID]) -> None:
        for deployment_id in failed:
            self.wake(deployment_id)

    async def _tried(self, work: Coroutine[None, None, None]) -> bool:
        """Whether it was done; whatever is in the way of one deployment is not to be in the way of others."""
        try:
            await work
        except EasyMLError as error:
            log.warning("deployments_wait", error=error.message)
            return False
        except Exception:  # a defect that one of them meets must not end the work for all
            log.exception("deployments_wait")
            return False
        return True

    async def _tell_all(self) -> None:
        async with self._store.read() as work:
            unfinished = await work.deployments.unfinished()
        self._told |= {*self._applied, *(each for each in unfinished if self._tenure.holds(each))}

    async def _find_again(self) -> None:
        """Before any look: what runs and is not known yet would be taken for gone."""
        async with self._store.read() as work:
            for deployment_id in await work.deployments.unfinished():
                deployment = await work.deployments.load(deployment_id)
                ran = {replica.revision for replica in deployment.replicas}
                for revision in await work.deployments.revisions(deployment_id, ran):
                    replicas = sum(replica.revision == revision.number for replica in deployment.replicas)
                    if not self._tenure.shared:
                        self._apply(deployment, revision, replicas)
                    elif self._deployer.found(revision.id):
                        # They answer on; whether they stay is seen once it is known who looks after them.
                        self._applied.setdefault(deployment_id, {})[revision.number] = revision.id

    async def _reconcile(self, deployment_id: UUID) -> None:
        try:
            if not await self._tenure.take(deployment_id):
                await self._leave(deployment_id)
                return
            await self._ask_left(deployment_id)
            step = await self._step(deployment_id)
        except NotFound:
            for revision_id in self._applied.pop(deployment_id, {}).values():
                self._deployer.remove(revision_id)
            self._judged.discard(deployment_id)
            self._answering.pop(deployment_id, None)
            self._autoscaler.forget(deployment_id)
            self._watch.tell(deployment_id)
            return
        self._wake_at(deployment_id, step.next_time)
        if _is_judged(step.deployment):
            self._judged.add(deployment_id)
        else:
            self._judged.discard(deployment_id)
        for revision in step.revisions:
            self._apply(step.deployment, revision, step.wanted.get(revision.number, 0))
        if step.deployment.state is DeploymentState.STOPPED:
            await self._tenure.let_go(deployment_id)

    async def _leave(self, deployment_id: UUID) -> None:
        """Another server looks after it: end what runs of it here once calls no longer go there."""
        self._judged.discard(deployment_id)
        self._autoscaler.forget(deployment_id)
        self._answering.pop(deployment_id, None)
        async with self._store.read() as work:
            deployment = await work.deployments.load(deployment_id)
        listed = {replica.id for replica in deployment.replicas}
        for number, revision_id in list(self._applied.get(deployment_id, {}).items()):
            if not listed & self._here(revision_id):
                self._deployer.remove(revision_id)
                self._forget_gone(deployment_id, number, revision_id)

    def _here(self, revision_id: UUID) -> set[UUID]:
        running = (replica.id for replica in self._deployer.replicas(revision_id))
        return {*running, *self._deployer.found(revision_id)}

    async def _ask_left(self, deployment_id: UUID) -> None:
        """Which replicas that another server left still answer."""
        if not self._tenure.shared:
            return
        async with self._store.read() as work:
            deployment = await work.deployments.load(deployment_id)
        own = {each for revision in self._applied.get(deployment_id, {}).values() for each in self._here(revision)}
        left = [each for each in left_by_others(deployment, own) if self._deployer.reaches(each)]
        asked = await asyncio.gather(*(self._deployer.answers(deployment_id, each.endpoint) for each in left))
        answering = frozenset(replica.id for replica, answers in zip(left, asked, strict=True) if answers)
        self._answering[deployment_id] = answering

    def _wake_at(self, deployment_id: UUID, time: datetime | None) -> None:
        seconds = 0.0 if time is None else (time - self._clock()).total_seconds()
        # Longer ones are met on the way.
        if 0 < seconds < LOOK_SECONDS:
            asyncio.get_running_loop().call_later(seconds, self.wake, deployment_id)

    async def _step(self, deployment_id: UUID) -> Step:
        async with self._store.read() as work:
            deployment, step, revisions = await self._next(work, deployment_id)
        if step.deployment == deployment and set(step.revisions) == set(revisions):
            return step
        # Somebody may have changed it meanwhile: what is stored follows from what is there under the lock.
        async with self._store.begin() as work:
            deployment, step, _ = await self._next(work, deployment_id)
            await self._tenure.check(work, deployment_id)
            await work.deployments.save(replace(step.deployment, sequence=deployment.sequence + 1), "")
            for revision in step.revisions:
                await work.deployments.put_revision(revision)
            if step.activated is not None:
                await self._move_alias(work, step.activated)
            await work.commit()
        log.info("deployment", deployment_id=str(deployment_id), state=step.deployment.state)
        self._watch.tell(deployment_id)
        return step

    async def _next(self, work: UnitOfWork, deployment_id: UUID) -> tuple[Deployment, Step, tuple[Revision, ...]]:
        deployment = await work.deployments.load(deployment_id)
        numbers = {deployment.latest_revision, *self._applied.get(deployment_id, ())}
        if deployment.active_revision:
            numbers.add(deployment.active_revision)
        revisions = tuple(await work.deployments.revisions(deployment_id, numbers))
        replicas = self._replicas(deployment, revisions)
        counted = self._counted(deployment, revisions)
        recommended = self._autoscaler.recommend(deployment)
        slow = self._slow.of(deployment_id)
        step = next_step(deployment, revisions, replicas, self._clock(), counted, recommended, slow)
        return deployment, step, revisions

    def _replicas(self, deployment: Deployment, revisions: Sequence[Revision]) -> Sequence[Replica]:
        """Those that run here, and those that another server left as long as they are needed."""
        for revision in revisions:
            if found := self._deployer.found(revision.id):
                self._apply(deployment, revision, len(found))
        own = [replica for revision in revisions for replica in self._deployer.replicas(revision.id)]
        return [*own, *still_wanted(deployment, own, self._answering.get(deployment.id, ()))]

    def _counted(self, deployment: Deployment, revisions: Sequence[Revision]) -> Mapping[int, CallCounts]:
        """The calls of the current step of a canary."""
        if deployment.canary is None or not _is_judged(deployment):
            return {}
        since = deployment.canary.start_time
        return {revision.number: self._metrics.since(revision.id, since) for revision in revisions}

    def _apply(self, deployment: Deployment, revision: Revision, replicas: int) -> None:
        applied = self._applied.setdefault(deployment.id, {})
        if replicas and revision.model_version_id is not None:
            key = VersionKey.of_model(deployment.project_id, revision.model_version_id)
            model = ServedModel(revision.model_version_id, partial(self._artifacts.held, key))
            self._deployer.apply(
                ServedRevision(
                    id=revision.id,
                    deployment_id=deployment.id,
                    names=deployment.model_names,
                    number=revision.number,
                    model=model,
                    replicas=replicas,
                    probes=revision.config.probes,
                    container=revision.config.container,
                )
            )
            applied[revision.number] = revision.id
            return
        self._deployer.remove(revision.id)
        self._forget_gone(deployment.id, revision.number, revision.id)

    def _forget_gone(self, deployment_id: UUID, number: int, revision_id: UUID) -> None:
        if not self._here(revision_id):
            self._applied[deployment_id].pop(number, None)
            if not self._applied[deployment_id]:
                del self._applied[deployment_id]

    async def _move_alias(self, work: UnitOfWork, revision: Revision) -> None:
        """The alias of an environment points to what answers there."""
        if revision.model_version_id is not None:
            version = await work.models.load_version(revision.model_version_id)
            alias = revision.config.environment.alias
            await work.models.set_alias(version, alias, revision.creator_id, self._clock())
            await self._mirroring.changed(work, [version.model_id])


def _is_judged(deployment: Deployment) -> bool:
    """Whether a canary is under way that an analysis may take back."""
    if deployment.canary is None or deployment.config.canary is None:
        return False
    return deployment.config.canary.analysis is not None
