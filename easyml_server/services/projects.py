"""Use cases of projects, their members and configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid4

from easyml_server.domain.algorithms import Task
from easyml_server.domain.catalogue import find_algorithm
from easyml_server.domain.errors import InvalidInput, NotFound, Reason, Stale, Violation, WrongState
from easyml_server.domain.limits import Limits
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.projects import Deleted, Member, Project, ProjectConfig, Role
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.store import Store, UnitOfWork
from easyml_server.services.masks import check_mask
from easyml_server.services.mirroring import Mirroring
from easyml_server.services.requests import find_first_result, remember
from easyml_server.services.scopes import require_full_scope
from easyml_server.services.versions import FORGET_PROJECT

PROJECT_FIELDS = ("name", "description", "labels")
CONFIG_FIELDS = ("default_hyperparameters", "mlflow_experiment", "storage", "visibility")


@dataclass(frozen=True, slots=True)
class ProjectChange:
    """New values; the mask says which of them count. `etag` is the one that was read, or empty."""

    project_id: UUID
    name: str
    description: str
    labels: Mapping[str, str]
    etag: str


class ProjectService:
    """Use cases of ProjectService."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        mirroring: Mirroring,
        limits: Limits,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._mirroring = mirroring
        self._limits = limits
        self._clock = clock

    async def create(
        self, caller: Caller, key: RequestKey | None, name: str, description: str, labels: Mapping[str, str]
    ) -> Project:
        """Make a project that the caller owns."""
        # It would own the project, which is more than a limited key may do.
        require_full_scope(caller, "make projects")
        now = self._clock()
        name = checked_name(name)
        async with self._store.begin() as work:
            if first := await find_first_result(work, caller, key, now):
                return await work.projects.get(first, caller)
            project = Project(
                id=uuid4(),
                name=name,
                description=description,
                labels=labels,
                creator_id=caller.user_id,
                create_time=now,
                update_time=now,
                etag=uuid4().hex,
                role=Role.OWNER,
            )
            await work.projects.add(project, ProjectConfig(project.id, update_time=now, etag=uuid4().hex))
            await remember(work, caller, key, project.id, now)
            await work.commit()
        return project

    async def get(self, caller: Caller, project_id: UUID) -> Project:
        """One project."""
        async with self._store.read() as work:
            return await work.projects.get(project_id, caller)

    async def list(self, caller: Caller, page: PageRequest) -> Page[Project]:
        """The projects the caller can see."""
        async with self._store.read() as work:
            return await work.projects.list(caller, page)

    async def update(self, caller: Caller, new: ProjectChange, mask: Sequence[str]) -> Project:
        """Change the fields of the mask."""
        fields = check_mask(mask, PROJECT_FIELDS)
        async with self._store.begin() as work:
            project = await work.projects.get(new.project_id, caller)
            changed = replace(
                project,
                name=checked_name(new.name) if "name" in fields else project.name,
                description=new.description if "description" in fields else project.description,
                labels=new.labels if "labels" in fields else project.labels,
                update_time=self._clock(),
                etag=uuid4().hex,
            )
            await work.projects.save(changed, new.etag)
            await work.commit()
        return changed

    async def delete(self, caller: Caller, project_id: UUID, etag: str, *, force: bool, validate_only: bool) -> Deleted:
        """Delete a project, with `force` all that is in it; a training that has not ended is always in the way."""
        async with self._store.begin() as work:
            project = await work.projects.get(project_id, caller)
            if etag and etag != project.etag:
                raise Stale("The project was changed by somebody else; read it again, then repeat your change.")
            deleted = await self._contents(work, project_id)
            if deleted.datasets + deleted.experiments + deleted.model_versions and not force:
                raise WrongState(
                    f"The project still holds {deleted.datasets} datasets, {deleted.experiments} experiments and "
                    f"{deleted.model_versions} model versions; delete these first, or use force.",
                    Reason.IN_USE,
                    metadata={"datasets": str(deleted.datasets), "experiments": str(deleted.experiments)},
                )
            if active := await work.experiments.count_active(project_id):
                raise WrongState(
                    f"{active} trainings of the project have not ended; cancel them first.",
                    Reason.IN_USE,
                    metadata={"active_trainings": str(active)},
                )
            if validate_only:
                return deleted
            model_ids = await work.models.ids_of_project(project_id)
            await work.projects.delete(project_id, etag)
            await self._mirroring.changed(work, model_ids)
            await work.outbox.add(FORGET_PROJECT, project_id, self._clock())
            await work.commit()
        await self._artifacts.remove_project(project_id)
        return deleted

    async def get_config(self, caller: Caller, project_id: UUID) -> ProjectConfig:
        """The configuration of a project."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            return await work.projects.get_config(project_id)

    async def update_config(self, caller: Caller, new: ProjectConfig, mask: Sequence[str]) -> ProjectConfig:
        """Change the fields of the mask; `new.etag` is the one that was read, or empty."""
        fields = check_mask(mask, CONFIG_FIELDS)
        if "default_hyperparameters" in fields:
            _check_defaults(new)
        if "storage" in fields and new.storage_max_bytes > self._limits.project_storage_bytes:
            raise InvalidInput.at(
                "config.storage.max_bytes",
                f"A project stores at most {self._limits.project_storage_bytes} bytes on this server.",
            )
        async with self._store.begin() as work:
            await work.projects.get(new.project_id, caller)
            config = await work.projects.get_config(new.project_id)
            changed = replace(config, update_time=self._clock(), etag=uuid4().hex)
            if "default_hyperparameters" in fields:
                changed = replace(changed, default_hyperparameters=new.default_hyperparameters)
            if "mlflow_experiment" in fields:
                changed = replace(changed, mlflow_experiment=new.mlflow_experiment)
            if "storage" in fields:
                changed = replace(
                    changed, storage_max_bytes=new.storage_max_bytes, keep_original_files=new.keep_original_files
                )
            if "visibility" in fields:
                changed = replace(changed, visibility=new.visibility)
            await work.projects.save_config(changed, new.etag)
            await work.commit()
        return changed

    async def list_members(self, caller: Caller, project_id: UUID, page: PageRequest) -> Page[Member]:
        """The members of a project."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            return await work.projects.list_members(project_id, page)

    async def set_member(self, caller: Caller, project_id: UUID, email: str, role: Role) -> Member:
        """Add a user, or change the user's role."""
        async with self._store.begin() as work:
            await work.projects.get(project_id, caller)
            user = await work.users.find_by_email(email.strip().lower())
            if user is None:
                raise NotFound(f"There is no account {email} here.", resource=("user", email))
            if role is not Role.OWNER:
                await self._keep_an_owner(work, project_id, user.id)
            await work.projects.set_member(project_id, user.id, role, self._clock())
            member = await work.projects.find_member(project_id, user.id)
            await work.commit()
        if member is None:
            raise NotFound.of("member", user.id)
        return member

    async def remove_member(self, caller: Caller, project_id: UUID, user_id: UUID) -> None:
        """Take a user out of a project."""
        async with self._store.begin() as work:
            await work.projects.get(project_id, caller)
            if await work.projects.find_member(project_id, user_id) is None:
                raise NotFound.of("member", user_id)
            await self._keep_an_owner(work, project_id, user_id)
            await work.projects.remove_member(project_id, user_id)
            await work.commit()

    @staticmethod
    async def _keep_an_owner(work: UnitOfWork, project_id: UUID, user_id: UUID) -> None:
        member = await work.projects.find_member(project_id, user_id)
        if member is None or member.role is not Role.OWNER:
            return
        if await work.projects.count_owners(project_id) == 1:
            raise WrongState(
                "A project needs an owner, and this is the last one; make someone else an owner first.",
                Reason.LAST_OWNER,
            )

    @staticmethod
    async def _contents(work: UnitOfWork, project_id: UUID) -> Deleted:
        models, versions = await work.models.count_of_project(project_id)
        return Deleted(
            projects=1,
            datasets=len(await work.datasets.list_versions(project_id)),
            experiments=await work.experiments.count_of_project(project_id),
            models=models,
            model_versions=versions,
            bytes_freed=await work.datasets.stored_bytes(project_id),
        )


def checked_name(name: str) -> str:
    """A name is text that can be read: no control characters, not blank; returned without blanks around it."""
    stripped = name.strip()
    if not stripped or not stripped.isprintable():
        raise InvalidInput.at("name", "A name needs at least one visible character and no control characters.")
    return stripped


def _check_defaults(config: ProjectConfig) -> None:
    violations: list[Violation] = []
    for name, values in config.default_hyperparameters.items():
        field = f'config.default_hyperparameters["{name}"]'
        found = [algorithm for task in Task if (algorithm := find_algorithm(task, name))]
        if not found:
            violations.append(Violation(field, f"There is no algorithm {name!r}; ListAlgorithms names all."))
        elif all(list(algorithm.violations(values, field)) for algorithm in found):
            violations.extend(found[0].violations(values, field))
    if violations:
        raise InvalidInput(violations[0].description, Reason.INVALID_HYPERPARAMETER, violations=violations)
