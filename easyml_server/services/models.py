"""Use cases of models, their versions and aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

from easyml_server.domain.errors import NotFound, Reason, WrongState
from easyml_server.domain.local_files import file_sha256, read_chunks
from easyml_server.domain.models import AliasHistoryEntry, ArtifactFormat, Model, ModelVersion
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.projects import Deleted
from easyml_server.domain.results import ModelResults
from easyml_server.domain.selection import SelectionCriteria
from easyml_server.domain.spelling import way_out
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.model_servers import ModelServers
from easyml_server.ports.store import Store, UnitOfWork
from easyml_server.ports.tracker import Tracker
from easyml_server.services.masks import check_mask
from easyml_server.services.mirroring import Mirroring
from easyml_server.services.selection import Selection, select_version
from easyml_server.services.versions import FORGET_VERSION

FIELDS = ("description", "labels")


@dataclass(frozen=True, slots=True)
class VersionName:
    """A version by what people call it: the newest if neither number nor alias is given."""

    project_id: UUID
    model_name: str
    version: int = 0
    alias: str = ""

    def __str__(self) -> str:
        """As written in messages and file names."""
        if self.alias:
            return f"{self.model_name}@{self.alias}"
        return f"{self.model_name}:{self.version}" if self.version else self.model_name


async def _no_version(work: UnitOfWork, name: VersionName) -> NotFound:
    """The error for a name that is none, with the ones that exist."""
    models = (await work.models.list(name.project_id, PageRequest())).items
    model = next((each for each in models if each.name == name.model_name), None)
    if model is not None:
        aliases = ", ".join(f"{model.name}@{each.alias}" for each in model.aliases)
        known = f"the newest is {model.name}:{model.latest_version}" + (f", aliases are {aliases}." if aliases else ".")
    elif models:
        known = way_out(name.model_name, (each.name for each in models))
    else:
        known = "the project has no models yet."
    return NotFound(
        f"There is no model version {name} that you can see; {known}", resource=("model version", str(name))
    )


async def _check_undeployed(work: UnitOfWork, version_id: UUID) -> None:
    names = await work.deployments.names_serving(version_id)
    if names:
        raise WrongState(
            f"The deployments {', '.join(names)} serve this version; update or delete them first.",
            Reason.IN_USE,
            metadata={"deployments": ",".join(names)},
        )


async def find_version(work: UnitOfWork, caller: Caller, target: UUID | VersionName) -> ModelVersion:
    """One version that the caller can see, by id or name."""
    if isinstance(target, UUID):
        return await work.models.get_version(target, caller)
    await work.projects.get(target.project_id, caller)
    found = await work.models.find_version(
        target.project_id, target.model_name, version=target.version, alias=target.alias
    )
    if found is None:
        raise await _no_version(work, target)
    return found


@dataclass(frozen=True, slots=True)
class DescribedVersion:
    """A version and how it did in detail; None for one of a release that did not look."""

    version: ModelVersion
    results: ModelResults | None


@dataclass(frozen=True, slots=True)
class Export:
    """A file that is ready to be sent; `temporary` is removed afterwards."""

    content: AsyncIterator[bytes]
    filename: str
    format: ArtifactFormat
    size_bytes: int
    sha256: str
    temporary: Path | None


class ModelService:
    """Use cases of ModelService."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        tracker: Tracker,
        model_servers: ModelServers,
        mirroring: Mirroring,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._tracker = tracker
        self._model_servers = model_servers
        self._mirroring = mirroring
        self._clock = clock

    async def list(self, caller: Caller, project_id: UUID, page: PageRequest) -> Page[Model]:
        """The models of a project."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            return await work.models.list(project_id, page)

    async def list_versions(
        self, caller: Caller, project_id: UUID, page: PageRequest, model_name: str, alias: str
    ) -> Page[ModelVersion]:
        """The versions of a model, or of all models of a project."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            if model_name:
                await work.models.get_model(project_id, model_name)
            return await work.models.list_versions(project_id, page, model_name, alias)

    async def get_version(self, caller: Caller, target: UUID | VersionName) -> ModelVersion:
        """One version, by id or name."""
        async with self._store.read() as work:
            return await find_version(work, caller, target)

    async def describe_version(self, caller: Caller, target: UUID | VersionName) -> DescribedVersion:
        """One version, by id or name, and how it did in detail."""
        async with self._store.read() as work:
            version = await find_version(work, caller, target)
            return DescribedVersion(version, await work.models.find_results(version.id))

    async def select(self, caller: Caller, project_id: UUID, criteria: SelectionCriteria) -> Selection:
        """The version that meets criteria best, and how the others compare."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            return await select_version(work, project_id, criteria)

    async def locate_version(self, caller: Caller, target: UUID | VersionName) -> tuple[UUID, UUID]:
        """(project, version) of what `get_version` finds, without reading all that is known of it."""
        if not isinstance(target, UUID):
            version = await self.get_version(caller, target)
            return version.project_id, version.id
        async with self._store.read() as work:
            return await work.models.project_of_version(target, caller), target

    async def update_version(
        self,
        caller: Caller,
        version_id: UUID,
        description: str,
        labels: Mapping[str, str],
        mask: Sequence[str],
        etag: str,
    ) -> ModelVersion:
        """Change description or labels."""
        fields = check_mask(mask, FIELDS)
        async with self._store.begin() as work:
            version = await work.models.get_version(version_id, caller)
            changed = replace(
                version,
                description=description if "description" in fields else version.description,
                labels=labels if "labels" in fields else version.labels,
                update_time=self._clock(),
                etag=uuid4().hex,
            )
            await work.models.save_version(changed, etag)
            if changed.description != version.description:
                await self._mirroring.changed(work, [version.model_id])
            await work.commit()
        return changed

    async def delete_version(
        self, caller: Caller, version_id: UUID, etag: str, *, force: bool, validate_only: bool
    ) -> Deleted:
        """Delete a version and its files."""
        async with self._store.begin() as work:
            version = await work.models.get_version(version_id, caller)
            if version.aliases and not force:
                raise WrongState(
                    f"The aliases {', '.join(version.aliases)} point to this version; move them first, or use force.",
                    Reason.IN_USE,
                    metadata={"aliases": ",".join(version.aliases)},
                )
            await _check_undeployed(work, version_id)
            key = VersionKey.of_model(version.project_id, version.id)
            freed = await self._artifacts.size(key)
            # Also in a dry run, whose unit of work is left without commit: it tells whether the model goes too.
            model_gone = await work.models.delete_version(version, etag, self._clock())
            deleted = Deleted(model_versions=1, models=int(model_gone), bytes_freed=freed)
            if validate_only:
                return deleted
            await work.outbox.add(FORGET_VERSION, version_id, self._clock())
            await self._mirroring.changed(work, [version.model_id])
            await work.commit()
        await self._model_servers.forget(version_id)
        await self._artifacts.remove(key)
        return deleted

    async def set_alias(self, caller: Caller, version_id: UUID, alias: str) -> ModelVersion:
        """Point an alias to a version."""
        async with self._store.begin() as work:
            version = await work.models.get_version(version_id, caller)
            await work.models.set_alias(version, alias, caller.user_id, self._clock())
            changed = await work.models.get_version(version_id, caller)
            await self._mirroring.changed(work, [version.model_id])
            await work.commit()
        return changed

    async def delete_alias(self, caller: Caller, project_id: UUID, model_name: str, alias: str) -> None:
        """Take an alias away."""
        async with self._store.begin() as work:
            await work.projects.get(project_id, caller)
            model = await work.models.get_model(project_id, model_name)
            await work.models.delete_alias(model.id, alias, self._clock())
            await self._mirroring.changed(work, [model.id])
            await work.commit()

    async def list_alias_history(
        self,
        caller: Caller,
        project_id: UUID,
        model_name: str,
        page: PageRequest,
        alias: str,
        at: datetime | None,
    ) -> Page[AliasHistoryEntry]:
        """Which version an alias pointed to, and when."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            model = await work.models.get_model(project_id, model_name)
            return await work.models.list_alias_history(model.id, page, alias, at)

    async def export(self, caller: Caller, version_id: UUID, format: ArtifactFormat) -> Export:
        """The file to send."""
        version = await self.get_version(caller, version_id)
        key = VersionKey.of_model(version.project_id, version.id)
        stem = f"{version.model_name}-{version.version}"
        if format is ArtifactFormat.MLFLOW:
            return await self._export_mlflow(key, stem)
        artifact = next((a for a in version.manifest.artifacts if a.format is format), None)
        if artifact is None:
            cause = version.manifest.parity.cause or "it was not made"
            raise WrongState(
                f"This version has no {format.value} artefact: {cause}",
                Reason.FORMAT_UNAVAILABLE,
                metadata={"format": format.value, "cause": cause},
            )
        return Export(
            self._artifacts.read(key, artifact.filename),
            f"{stem}.{format.value}",
            format,
            artifact.size_bytes,
            artifact.sha256,
            None,
        )

    async def discard(self, export: Export) -> None:
        """Remove what was written for an export."""
        if export.temporary is not None:
            await self._artifacts.discard(export.temporary)

    async def _export_mlflow(self, key: VersionKey, stem: str) -> Export:
        work_path = self._artifacts.new_work_path()
        target = work_path / "mlflow.zip"
        try:
            async with self._artifacts.held(key) as folder:
                await self._tracker.export_model(folder, target)
            sha256 = await file_sha256(target)
        except BaseException:
            await self._artifacts.discard(work_path)
            raise
        content, size = read_chunks(target), target.stat().st_size
        return Export(content, f"{stem}.mlflow.zip", ArtifactFormat.MLFLOW, size, sha256, work_path)
