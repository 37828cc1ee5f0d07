"""Use cases of deployments: what is wanted of them, and how they are. The reconciler brings it about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid4

from easyml_server.domain.conditions import requested
from easyml_server.domain.deployments import (
    CanaryProgress,
    Deployment,
    DeploymentConfig,
    DeploymentState,
    Revision,
    RevisionState,
)
from easyml_server.domain.errors import (
    InvalidInput,
    LimitReached,
    NotFound,
    WrongState,
)
from easyml_server.domain.limits import Limits
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.traffic import as_rolling, going_back, promoted, shares
from easyml_server.domain.users import Caller
from easyml_server.ports.security import IDENTITY_LIFETIME, TokenSigner
from easyml_server.ports.store import Store, UnitOfWork
from easyml_server.services.deployment_configs import DeploymentConfigService
from easyml_server.services.deployment_manifests import DeploymentManifests
from easyml_server.services.deployment_names import DeploymentName, find_deployment
from easyml_server.services.deployment_watch import DeploymentWatch
from easyml_server.services.projects import checked_name
from easyml_server.services.requests import find_first_result, remember
from easyml_server.services.scaling import Scaling, rescaled
from easyml_server.services.traffic import (
    check_shares,
    check_standing_by,
    is_on_its_way,
    save_traffic,
    without_newest,
)
from easyml_server.services.version_targets import VersionTarget, version_to_serve


class Reconciler(Protocol):
    """Who brings deployments about; see `services.reconciler`."""

    def wake(self, deployment_id: UUID) -> None:
        """Something else is wanted of it."""
        ...


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """What is to be served, and how."""

    project_id: UUID
    name: str
    description: str
    labels: Mapping[str, str]
    model_version: VersionTarget
    config: DeploymentConfig


@dataclass(frozen=True, slots=True)
class DeploymentToken:
    """What the replicas of one deployment accept until then."""

    deployment_id: UUID
    token: str
    expire_time: datetime


class DeploymentService:
    """Use cases of DeploymentService."""

    def __init__(
        self,
        store: Store,
        reconciler: Reconciler,
        watch: DeploymentWatch,
        limits: Limits,
        clock: Callable[[], datetime],
        configs: DeploymentConfigService,
        signer: TokenSigner,
        manifests: DeploymentManifests,
    ) -> None:
        self._store = store
        self._reconciler = reconciler
        self._watch = watch
        self._limits = limits
        self._clock = clock
        self._configs = configs
        self._signer = signer
        self._manifests = manifests

    async def create(
        self, caller: Caller, key: RequestKey | None, new: NewDeployment, *, validate_only: bool
    ) -> Deployment:
        """Serve a model version under a name."""
        self._configs.check(new.config)
        now = self._clock()
        async with self._store.begin() as work:
            await work.projects.get(new.project_id, caller)
            first = await find_first_result(work, caller, key, now)
            if first is not None:
                return await work.deployments.get(first, caller)
            version = await version_to_serve(work, caller, new.project_id, new.model_version)
            self._configs.check_with(new.config, version)
            await self._check_room(work)
            deployment = self._made(caller, new, now)
            await work.deployments.add(deployment)
            revision = _revision(deployment, version, caller, now)
            await work.deployments.put_revision(revision)
            if not validate_only:
                await remember(work, caller, key, deployment.id, now)
                await work.commit()
        if validate_only:
            await self._manifests.rehearse(deployment, revision)
            return deployment
        self._changed(deployment.id)
        return deployment

    async def update(
        self,
        caller: Caller,
        key: RequestKey | None,
        deployment_id: UUID,
        target: VersionTarget | None,
        config: DeploymentConfig | None,
        etag: str,
        *,
        validate_only: bool,
    ) -> Deployment:
        """Make a new revision: another model version, another configuration, or both."""
        if target is None and config is None:
            raise InvalidInput.at("model_version", "Say what changes: model_version, config, or both.")
        if config is not None:
            self._configs.check(config)
        async with self._store.begin() as work:
            deployment = await work.deployments.get(deployment_id, caller)
            if await find_first_result(work, caller, key, self._clock()) is not None:
                return deployment
            (latest,) = await work.deployments.revisions(deployment_id, [deployment.latest_revision])
            version = await version_to_serve(work, caller, deployment.project_id, target or _still_there(latest))
            self._configs.check_with(config or deployment.config, version)
            changed = await self._revise(work, caller, deployment, version, config or deployment.config, etag)
            if not validate_only:
                await remember(work, caller, key, deployment_id, self._clock())
                await work.commit()
        if validate_only:
            await self._manifests.rehearse(changed, _revision(changed, version, caller, changed.update_time))
            return changed
        self._changed(deployment_id)
        return changed

    async def rollback(
        self, caller: Caller, key: RequestKey | None, deployment_id: UUID, number: int, etag: str
    ) -> Deployment:
        """Take back one that is on its way, or make one like an earlier one; the number of replicas stays."""
        async with self._store.begin() as work:
            deployment = await work.deployments.get(deployment_id, caller)
            if await find_first_result(work, caller, key, self._clock()) is not None:
                return deployment
            if await is_on_its_way(work, deployment, number):
                kept = await without_newest(work, deployment, self._clock())
                changed = self._touched(kept)
                await work.deployments.save(changed, etag)
            else:
                revision = await self._earlier(work, deployment, number)
                version = await version_to_serve(work, caller, deployment.project_id, _still_there(revision))
                config = going_back(deployment, revision)
                changed = await self._revise(work, caller, deployment, version, config, etag, at_once=True)
            await remember(work, caller, key, deployment_id, self._clock())
            await work.commit()
        self._changed(deployment_id)
        return changed

    async def set_traffic(
        self, caller: Caller, deployment_id: UUID, traffic: Mapping[int, int], etag: str
    ) -> Deployment:
        """Share the calls by hand; a canary no longer goes on by itself."""
        async with self._store.begin() as work:
            deployment = await work.deployments.get(deployment_id, caller)
            await check_standing_by(work, deployment)
            check_shares(deployment, traffic)
            by_hand = None if deployment.config.canary is None else CanaryProgress(0, self._clock())
            whole = shares(deployment, traffic.get(deployment.latest_revision, 0))
            changed = self._touched(deployment, traffic=whole, canary=by_hand)
            await save_traffic(work, deployment, changed, etag)
            await work.commit()
        self._changed(deployment_id)
        return changed

    async def promote(
        self, caller: Caller, key: RequestKey | None, deployment_id: UUID, etag: str, *, full: bool
    ) -> Deployment:
        """Give a revision that stands by more of the calls, or all."""
        async with self._store.begin() as work:
            deployment = await work.deployments.get(deployment_id, caller)
            if await find_first_result(work, caller, key, self._clock()) is not None:
                return deployment
            await check_standing_by(work, deployment)
            changed = self._touched(promoted(deployment, self._clock(), full=full))
            await save_traffic(work, deployment, changed, etag)
            await remember(work, caller, key, deployment_id, self._clock())
            await work.commit()
        self._changed(deployment_id)
        return changed

    async def scale(
        self, caller: Caller, deployment_id: UUID, replicas: int, scaling: Scaling | None, etag: str
    ) -> Deployment:
        """Change the number of replicas, which is a fixed one, or the whole scaling."""
        async with self._store.begin() as work:
            deployment = await work.deployments.get(deployment_id, caller)
            changed = self._touched(rescaled(deployment, replicas, scaling, self._configs))
            await work.deployments.save(changed, etag)
            await work.commit()
        self._changed(deployment_id)
        return changed

    async def stop(self, caller: Caller, deployment_id: UUID, etag: str) -> Deployment:
        """Have nothing run; a stopped one is returned as it is."""
        async with self._store.begin() as work:
            deployment = await work.deployments.get(deployment_id, caller)
            if deployment.stopped:
                return deployment
            changed = self._touched(deployment, stopped=True, state=DeploymentState.STOPPING)
            await work.deployments.save(changed, etag)
            await work.commit()
        self._changed(deployment_id)
        return changed

    async def delete(self, caller: Caller, deployment_id: UUID, etag: str) -> None:
        """Have nothing run, and forget it."""
        async with self._store.begin() as work:
            await work.deployments.get(deployment_id, caller)
            await work.deployments.delete(deployment_id, etag)
            await work.commit()
        self._changed(deployment_id)

    async def get(self, caller: Caller, target: UUID | DeploymentName) -> Deployment:
        """One deployment, by id or name."""
        async with self._store.read() as work:
            return await find_deployment(work, caller, target)

    async def exchange_token(self, caller: Caller, target: UUID | DeploymentName) -> DeploymentToken:
        """A short token that the replicas of one deployment accept."""
        deployment = await self.get(caller, target)
        now = self._clock()
        token = self._signer.sign_identity(caller.user_id, str(deployment.id), now)
        return DeploymentToken(deployment.id, token, now + IDENTITY_LIFETIME)

    async def list(self, caller: Caller, project_id: UUID, page: PageRequest) -> Page[Deployment]:
        """The deployments of a project."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            return await work.deployments.list(project_id, page)

    async def list_revisions(self, caller: Caller, deployment_id: UUID, page: PageRequest) -> Page[Revision]:
        """Its revisions, newest first."""
        async with self._store.read() as work:
            await work.deployments.get(deployment_id, caller)
            return await work.deployments.list_revisions(deployment_id, page)

    async def _check_room(self, work: UnitOfWork) -> None:
        if len(await work.deployments.unfinished()) >= self._limits.deployments:
            raise LimitReached(
                f"{self._limits.deployments} deployments run already (EASYML_DEPLOYMENTS); stop or delete one first.",
                metadata={"limit": "EASYML_DEPLOYMENTS", "maximum": str(self._limits.deployments)},
            )

    async def _earlier(self, work: UnitOfWork, deployment: Deployment, number: int) -> Revision:
        if number:
            found = await work.deployments.revisions(deployment.id, [number])
            if not found:
                raise NotFound(
                    f"Deployment {deployment.name!r} has no revision {number}; list_revisions says which there are.",
                    resource=("revision", str(number)),
                )
            return found[0]
        before = await work.deployments.active_before(
            deployment.id, deployment.active_revision or deployment.latest_revision
        )
        if before is None:
            raise WrongState(
                "No other revision has answered before; name the one to go back to.",
                metadata={"state": deployment.state.value},
            )
        return before

    async def _revise(
        self,
        work: UnitOfWork,
        caller: Caller,
        deployment: Deployment,
        version: ModelVersion,
        config: DeploymentConfig,
        etag: str,
        *,
        at_once: bool = False,
    ) -> Deployment:
        """What answered before does not wait for anybody, whatever the strategy of others to come."""
        if deployment.stopped:
            await self._check_room(work)
        config = config.beginning(0 if deployment.stopped else deployment.config.replicas)
        changed = self._touched(
            deployment,
            config=config,
            stopped=False,
            state=DeploymentState.PROGRESSING,
            latest_revision=deployment.latest_revision + 1,
        )
        await work.deployments.save(changed, etag)
        revision = _revision(changed, version, caller, changed.update_time)
        await work.deployments.put_revision(replace(revision, config=as_rolling(config)) if at_once else revision)
        return changed

    def _made(self, caller: Caller, new: NewDeployment, now: datetime) -> Deployment:
        return Deployment(
            id=uuid4(),
            project_id=new.project_id,
            name=checked_name(new.name),
            description=new.description,
            labels=new.labels,
            config=new.config.beginning(0),
            stopped=False,
            state=DeploymentState.PROGRESSING,
            latest_revision=1,
            active_revision=0,
            replicas=(),
            conditions=(),
            creator_id=caller.user_id,
            create_time=now,
            update_time=now,
            etag=uuid4().hex,
            sequence=1,
        )

    def _touched(self, deployment: Deployment, **changes: object) -> Deployment:
        now = self._clock()
        return replace(
            deployment,
            conditions=requested(deployment.conditions, now),
            update_time=now,
            etag=uuid4().hex,
            sequence=deployment.sequence + 1,
            **changes,  # type: ignore[arg-type]  # fields of Deployment
        )

    def _changed(self, deployment_id: UUID) -> None:
        self._watch.tell(deployment_id)
        self._reconciler.wake(deployment_id)


def _revision(deployment: Deployment, version: ModelVersion, caller: Caller, now: datetime) -> Revision:
    return Revision(
        id=uuid4(),
        deployment_id=deployment.id,
        number=deployment.latest_revision,
        model_version_id=version.id,
        model_name=version.model_name,
        model_version=version.version,
        config=deployment.config,
        state=RevisionState.PROGRESSING,
        creator_id=caller.user_id,
        create_time=now,
    )


def _still_there(revision: Revision) -> UUID:
    if revision.model_version_id is None:
        raise WrongState(
            f"Revision {revision.number} served {revision.model_name}:{revision.model_version}, which was deleted;"
            " name a model version that is there.",
            metadata={"state": "deleted"},
        )
    return revision.model_version_id
