"""Adds versions of datasets and models to DVC, brings them to the remote, and forgets deleted ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import structlog

from easyml_server.domain.errors import EasyMLError, NotFound, Unavailable
from easyml_server.domain.faults import fault_point
from easyml_server.domain.users import Caller
from easyml_server.domain.versioning import DvcPointer, DvcState, VersionKind
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.store import Intent, Store, UnitOfWork
from easyml_server.ports.versioner import Versioner
from easyml_server.services.outbox import Handler, take_off

ADD_DATASET_VERSION = "add_dataset_version"
ADD_MODEL_VERSION = "add_model_version"
FORGET_VERSION = "forget_version"
FORGET_PROJECT = "forget_project"

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Version:
    """What DVC is told of a version."""

    id: UUID
    project_id: UUID
    kind: VersionKind
    number: int
    key: VersionKey


async def follow_remote(store: Store, versioner: Versioner, time: datetime) -> None:
    """If versions were brought elsewhere until now, all of them come to the remote of now."""
    before = await store.dvc_remote()
    changed = await store.change_dvc_remote(versioner.place, ADD_DATASET_VERSION, ADD_MODEL_VERSION, time)
    if changed and before is not None:
        log.info("dvc_remote_changed", before=before, now=versioner.place)


class VersionService:
    """Where versions are in DVC; None as long as one is not added."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pointer_of_dataset(self, caller: Caller, dataset_id: UUID) -> DvcPointer | None:
        """Of the current version."""
        async with self._store.read() as work:
            dataset = await work.datasets.get(dataset_id, caller)
            pointer = await work.versions.find(dataset.current.id)
        return await self._now(pointer)

    async def pointer_of_model_version(self, caller: Caller, version_id: UUID) -> DvcPointer | None:
        """Of one version."""
        async with self._store.read() as work:
            await work.models.project_of_version(version_id, caller)
            pointer = await work.versions.find(version_id)
        return await self._now(pointer)

    async def _now(self, pointer: DvcPointer | None) -> DvcPointer | None:
        place = await self._store.dvc_remote()
        return pointer if pointer is None or place is None else pointer.at(place)


class VersionRecorder:
    """The handlers of the intents above."""

    def __init__(
        self, store: Store, artifacts: ArtifactStore, versioner: Versioner, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._versioner = versioner
        self._clock = clock

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By kind of intent."""
        return {
            ADD_DATASET_VERSION: self._add_dataset_version,
            ADD_MODEL_VERSION: self._add_model_version,
            FORGET_VERSION: self._forget_version,
            FORGET_PROJECT: self._forget_project,
        }

    async def _add_dataset_version(self, intent: Intent) -> None:
        version = await self._still(intent, lambda work: work.datasets.get_version(intent.subject_id))
        key = VersionKey.of_dataset(version.project_id, version.id)
        await self._record(intent, _Version(version.id, version.project_id, VersionKind.DATASET, version.version, key))

    async def _add_model_version(self, intent: Intent) -> None:
        version = await self._still(intent, lambda work: work.models.load_version(intent.subject_id))
        key = VersionKey.of_model(version.project_id, version.id)
        await self._record(intent, _Version(version.id, version.project_id, VersionKind.MODEL, version.version, key))

    async def _still(self, intent: Intent, load: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """The version, if it is still there; what a cut off try left of a deleted one is removed."""
        try:
            async with self._store.read() as work:
                return await load(work)
        except NotFound:
            await self._versioner.forget(intent.subject_id)
            raise

    async def _record(self, intent: Intent, version: _Version) -> None:
        await self._check_remote()
        if await self._is_pushed(version):
            await take_off(self._store, intent)
            return
        pointer = await self._added(version)
        fault_point("version.added")
        try:
            await self._versioner.push(version.project_id, version.kind, version.id)
        except EasyMLError as error:
            async with self._store.begin() as work:
                await work.projects.load(version.project_id)
                await work.versions.put(replace(pointer, problem=error.message))
                await work.commit()
            raise
        fault_point("version.pushed")
        async with self._store.begin() as work:
            await work.projects.load(version.project_id)
            await work.versions.put(replace(pointer, push_time=self._clock(), problem=None))
            await work.outbox.done(intent)
            await work.commit()

    async def _check_remote(self) -> None:
        """Of two servers with different settings the one that started last pushes."""
        place = await self._store.dvc_remote()
        if place != self._versioner.place:
            raise Unavailable(
                f"Another server on this database brings versions to {place}, this one to {self._versioner.place}; "
                "set EASYML_DVC_REMOTE alike on all of them."
            )

    async def _is_pushed(self, version: _Version) -> bool:
        async with self._store.read() as work:
            pointer = await work.versions.find(version.id)
        return pointer is not None and pointer.at(self._versioner.place).state is DvcState.PUSHED

    async def _added(self, version: _Version) -> DvcPointer:
        async with self._artifacts.held(version.key) as folder:
            added = await self._versioner.add(version.project_id, version.kind, version.id, version.number, folder)
        remote = self._versioner.remote(version.project_id)
        async with self._store.begin() as work:
            # Locked: a pointer must not come after the deletion of its project.
            await work.projects.load(version.project_id)
            before = await work.versions.find(version.id)
            pointer = DvcPointer(
                version_id=version.id,
                project_id=version.project_id,
                kind=version.kind,
                added=added,
                remote_name=remote.name,
                remote_url=remote.url,
                add_time=before.add_time if before else self._clock(),
            )
            await work.versions.put(pointer)
            await work.commit()
        return pointer

    async def _forget_version(self, intent: Intent) -> None:
        freed = await self._versioner.forget(intent.subject_id)
        log.info("version_forgotten", version_id=str(intent.subject_id), bytes_freed=freed)
        async with self._store.begin() as work:
            await work.versions.delete(intent.subject_id)
            await work.outbox.done(intent)
            await work.commit()

    async def _forget_project(self, intent: Intent) -> None:
        freed = await self._versioner.forget_project(intent.subject_id)
        log.info("project_forgotten", project_id=str(intent.subject_id), bytes_freed=freed)
        await take_off(self._store, intent)
