"""Deployments and their revisions as rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain import deployments as domain
from easyml_server.domain.errors import NotFound, Stale
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.users import Caller
from easyml_server.repositories.sql.base import (
    Base,
    JsonType,
    UtcDateTime,
    locked,
    one_of,
    ordered,
    paged,
    to_json,
    with_labels,
    with_prefix,
)
from easyml_server.repositories.sql.errors import named
from easyml_server.repositories.sql.projects import IDENTITY, Project, find_visible

_CONFIG = TypeAdapter(domain.DeploymentConfig)
_REPLICAS = TypeAdapter(tuple[domain.Replica, ...])
_CONDITIONS = TypeAdapter(tuple[domain.Condition, ...])
_TRAFFIC = TypeAdapter(dict[int, int])
_CANARY = TypeAdapter(domain.CanaryProgress | None)
_CHANGES = TypeAdapter(tuple[domain.TrafficChange, ...])
_AT_WORK = [state.value for state in domain.DeploymentState if state is not domain.DeploymentState.STOPPED]


class ModelDeployment(Base):
    """A name under which predictions are made."""

    __tablename__ = "model_deployments"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index("ix_model_deployments_project_id_create_time", "project_id", "create_time", "id"),
        Index("ix_model_deployments_state", "state"),
        CheckConstraint(one_of("state", list(domain.DeploymentState)), name="state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(4000))
    labels: Mapped[Mapping[str, str]] = mapped_column(JsonType)
    config: Mapped[Any] = mapped_column(JsonType)
    stopped: Mapped[bool]
    state: Mapped[str] = mapped_column(String(16))
    latest_revision: Mapped[int]
    active_revision: Mapped[int]
    replicas: Mapped[Any] = mapped_column(JsonType)
    conditions: Mapped[Any] = mapped_column(JsonType)
    creator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime)
    etag: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int]
    traffic: Mapped[Any] = mapped_column(JsonType)
    canary: Mapped[Any | None] = mapped_column(JsonType)


class DeploymentRevision(Base):
    """What a deployment serves at one time; a model version that only others replaced may be deleted."""

    __tablename__ = "deployment_revisions"
    __table_args__ = (
        UniqueConstraint("deployment_id", "number"),
        CheckConstraint(one_of("state", list(domain.RevisionState)), name="state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    deployment_id: Mapped[UUID] = mapped_column(ForeignKey("model_deployments.id", ondelete="CASCADE"))
    number: Mapped[int]
    model_version_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("model_versions.id", ondelete="SET NULL"), index=True
    )
    model_name: Mapped[str] = mapped_column(String(255))
    model_version: Mapped[int]
    config: Mapped[Any] = mapped_column(JsonType)
    state: Mapped[str] = mapped_column(String(16))
    creator_id: Mapped[UUID]
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    activate_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    retire_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    traffic: Mapped[Any] = mapped_column(JsonType)
    message: Mapped[str] = mapped_column(String(1000))


_VISIBLE = (
    select(ModelDeployment)
    .join(Project, Project.id == ModelDeployment.project_id)
    .where(ModelDeployment.id == IDENTITY)
)


class SqlDeploymentRepository:
    """Fulfils `ports.store.DeploymentRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, deployment: domain.Deployment) -> None:
        """Raises AlreadyExists."""
        row = ModelDeployment(id=deployment.id, project_id=deployment.project_id)
        row.creator_id, row.create_time = deployment.creator_id, deployment.create_time
        _fill(row, deployment)
        self._session.add(row)
        with named("deployment", deployment.name):
            await self._session.flush()

    async def get(self, deployment_id: UUID, caller: Caller) -> domain.Deployment:
        """Only what the caller can see; the role is held against what the method needs."""
        found = await find_visible(self._session, _VISIBLE, deployment_id, caller, "deployment", of=ModelDeployment)
        return _deployment(found[0])

    async def load(self, deployment_id: UUID) -> domain.Deployment:
        """For the server's own work."""
        return _deployment(await self._current(deployment_id))

    async def find_by_name(self, project_id: UUID, name: str) -> domain.Deployment | None:
        """The deployment of that name."""
        statement = select(ModelDeployment).where(
            ModelDeployment.project_id == project_id, ModelDeployment.name == name
        )
        row = await self._session.scalar(statement)
        return None if row is None else _deployment(row)

    async def list(self, project_id: UUID, page: PageRequest) -> Page[domain.Deployment]:
        """The deployments of a project."""
        statement = select(ModelDeployment).where(ModelDeployment.project_id == project_id)
        statement = with_prefix(statement, ModelDeployment.name, page)
        statement = with_labels(statement, ModelDeployment.labels, page)
        statement = ordered(statement, page, ModelDeployment.create_time, ModelDeployment.id)
        rows = (await self._session.scalars(statement)).all()
        return paged(rows, page, _deployment, lambda row: (row.create_time.isoformat(), str(row.id)))

    async def unfinished(self) -> Sequence[UUID]:
        """Of all projects, those of which something runs or is to run."""
        return (
            await self._session.scalars(select(ModelDeployment.id).where(ModelDeployment.state.in_(_AT_WORK)))
        ).all()

    async def names_serving(self, model_version_id: UUID) -> Sequence[str]:
        """Deployments whose newest or active revision serves this version."""
        statement = (
            select(ModelDeployment.name)
            .join(DeploymentRevision, DeploymentRevision.deployment_id == ModelDeployment.id)
            .where(
                DeploymentRevision.model_version_id == model_version_id,
                (DeploymentRevision.number == ModelDeployment.latest_revision)
                | (DeploymentRevision.number == ModelDeployment.active_revision),
            )
        )
        return (await self._session.scalars(statement.distinct())).all()

    async def save(self, deployment: domain.Deployment, etag: str) -> None:
        """Store a changed deployment; raises Stale."""
        row = await self._current(deployment.id)
        if etag and etag != row.etag:
            raise Stale("The deployment was changed by somebody else; read it again, then repeat your change.")
        _fill(row, deployment)
        await self._session.flush()

    async def delete(self, deployment_id: UUID, etag: str) -> None:
        """Its revisions go by foreign key."""
        row = await self._current(deployment_id)
        if etag and etag != row.etag:
            raise Stale("The deployment was changed by somebody else; read it again, then repeat your change.")
        await self._session.delete(row)
        await self._session.flush()

    async def put_revision(self, revision: domain.Revision) -> None:
        """A new revision, or what became of one."""
        row = await self._session.get(DeploymentRevision, revision.id)
        if row is None:
            row = DeploymentRevision(id=revision.id, deployment_id=revision.deployment_id, number=revision.number)
            row.model_version_id, row.creator_id = revision.model_version_id, revision.creator_id
            row.model_name, row.model_version = revision.model_name, revision.model_version
            row.config, row.create_time = to_json(_CONFIG, revision.config), revision.create_time
            self._session.add(row)
        row.state = revision.state.value
        row.activate_time, row.retire_time = revision.activate_time, revision.retire_time
        row.traffic, row.message = to_json(_CHANGES, revision.traffic), revision.message
        await self._session.flush()

    async def revisions(self, deployment_id: UUID, numbers: Collection[int]) -> Sequence[domain.Revision]:
        """Those of these numbers, oldest first."""
        statement = (
            select(DeploymentRevision)
            .where(DeploymentRevision.deployment_id == deployment_id, DeploymentRevision.number.in_(numbers))
            .order_by(DeploymentRevision.number)
        )
        return [_revision(row) for row in await self._session.scalars(statement)]

    async def active_before(self, deployment_id: UUID, number: int) -> domain.Revision | None:
        """The revision that answered last before the one of this number did."""
        statement = (
            select(DeploymentRevision)
            .where(
                DeploymentRevision.deployment_id == deployment_id,
                DeploymentRevision.number != number,
                DeploymentRevision.activate_time.is_not(None),
            )
            .order_by(DeploymentRevision.activate_time.desc(), DeploymentRevision.number.desc())
            .limit(1)
        )
        row = await self._session.scalar(statement)
        return None if row is None else _revision(row)

    async def list_revisions(self, deployment_id: UUID, page: PageRequest) -> Page[domain.Revision]:
        """Newest first."""
        statement = select(DeploymentRevision).where(DeploymentRevision.deployment_id == deployment_id)
        if page.after is not None:
            statement = statement.where(DeploymentRevision.number < int(page.after[0]))
        statement = statement.order_by(DeploymentRevision.number.desc()).limit(page.size + 1)
        rows = (await self._session.scalars(statement)).all()
        return paged(rows, page, _revision, lambda row: (str(row.number), str(row.id)))

    async def _current(self, deployment_id: UUID) -> ModelDeployment:
        statement = select(ModelDeployment).where(ModelDeployment.id == deployment_id)
        row: ModelDeployment | None = await self._session.scalar(locked(self._session, statement, ModelDeployment))
        if row is None:
            raise NotFound.of("deployment", deployment_id)
        return row


def _fill(row: ModelDeployment, deployment: domain.Deployment) -> None:
    row.name, row.description, row.labels = deployment.name, deployment.description, dict(deployment.labels)
    row.config, row.stopped = to_json(_CONFIG, deployment.config), deployment.stopped
    row.state, row.sequence = deployment.state.value, deployment.sequence
    row.latest_revision, row.active_revision = deployment.latest_revision, deployment.active_revision
    row.replicas = to_json(_REPLICAS, deployment.replicas)
    row.conditions = to_json(_CONDITIONS, deployment.conditions)
    row.update_time, row.etag = deployment.update_time, deployment.etag
    row.traffic, row.canary = to_json(_TRAFFIC, deployment.traffic), to_json(_CANARY, deployment.canary)


def _deployment(row: ModelDeployment) -> domain.Deployment:
    return domain.Deployment(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        description=row.description,
        labels=dict(row.labels),
        config=_CONFIG.validate_python(row.config),
        stopped=row.stopped,
        state=domain.DeploymentState(row.state),
        latest_revision=row.latest_revision,
        active_revision=row.active_revision,
        replicas=_REPLICAS.validate_python(row.replicas),
        conditions=_CONDITIONS.validate_python(row.conditions),
        creator_id=row.creator_id,
        create_time=row.create_time,
        update_time=row.update_time,
        etag=row.etag,
        sequence=row.sequence,
        traffic=_TRAFFIC.validate_python(row.traffic),
        canary=_CANARY.validate_python(row.canary),
    )


def _revision(row: DeploymentRevision) -> domain.Revision:
    return domain.Revision(
        id=row.id,
        deployment_id=row.deployment_id,
        number=row.number,
        model_version_id=row.model_version_id,
        model_name=row.model_name,
        model_version=row.model_version,
        config=_CONFIG.validate_python(row.config),
        state=domain.RevisionState(row.state),
        creator_id=row.creator_id,
        create_time=row.create_time,
        activate_time=row.activate_time,
        retire_time=row.retire_time,
        traffic=_CHANGES.validate_python(row.traffic),
        message=row.message,
    )
