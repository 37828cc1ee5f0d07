"""Models, their versions and aliases as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import TypeAdapter
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain import models as domain
from easyml_server.domain.errors import NotFound, Stale
from easyml_server.domain.experiments import Metric, MetricValue
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.results import ModelResults
from easyml_server.domain.users import Caller
from easyml_server.repositories.documents.details import ModelResultDocument
from easyml_server.repositories.documents.port import Documents
from easyml_server.repositories.sql.base import (
    Base,
    JsonType,
    UtcDateTime,
    locked,
    one_of,
    ordered,
    paged,
    to_json,
    with_floats,
    with_labels,
    with_prefix,
)
from easyml_server.repositories.sql.errors import key_is_there
from easyml_server.repositories.sql.experiments import MLExperiment
from easyml_server.repositories.sql.projects import IDENTITY, Project, find_visible

_METRICS = TypeAdapter(tuple[MetricValue, ...])
_MANIFEST = TypeAdapter(domain.ModelManifest)


class Model(Base):
    """A named line of versions."""

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index("ix_models_project_id_create_time", "project_id", "create_time", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    latest_version: Mapped[int]
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime)


class ModelVersion(Base):
    """A fitted pipeline; its files lie in the version's folder."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("model_id", "version"),
        Index("ix_model_versions_project_id_create_time", "project_id", "create_time", "id"),
        CheckConstraint(one_of("primary_metric", list(Metric)), name="primary_metric"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    version: Mapped[int]
    description: Mapped[str] = mapped_column(String(4000))
    labels: Mapped[Mapping[str, str]] = mapped_column(JsonType)
    experiment_id: Mapped[UUID | None] = mapped_column(ForeignKey("ml_experiments.id", ondelete="SET NULL"), index=True)
    dataset_version_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("dataset_versions.id", ondelete="SET NULL"), index=True
    )
    hyperparameters: Mapped[Any] = mapped_column(JsonType)
    primary_metric: Mapped[str] = mapped_column(String(32))
    metrics: Mapped[Any] = mapped_column(JsonType)
    manifest: Mapped[Any] = mapped_column(JsonType)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    inference_time_ms: Mapped[float | None]
    creator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime)
    etag: Mapped[str] = mapped_column(String(64))


class AliasHistory(Base):
    """A time during which an alias pointed to a version; the one without an end is the alias."""

    __tablename__ = "alias_history"
    __table_args__ = (
        Index("ix_alias_history_model_id_start_time", "model_id", "start_time", "id"),
        Index(
            "uq_alias_history_current",
            "model_id",
            "alias",
            unique=True,
            sqlite_where=text("end_time IS NULL"),
            postgresql_where=text("end_time IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    alias: Mapped[str] = mapped_column(String(63))
    model_version_id: Mapped[UUID] = mapped_column(index=True)
    version: Mapped[int]
    set_by: Mapped[UUID]
    start_time: Mapped[datetime] = mapped_column(UtcDateTime)
    end_time: Mapped[datetime | None] = mapped_column(UtcDateTime)


def _version(row: ModelVersion, name: str, aliases: tuple[str, ...] = ()) -> domain.ModelVersion:
    return domain.ModelVersion(
        id=row.id,
        project_id=row.project_id,
        model_id=row.model_id,
        model_name=name,
        version=row.version,
        description=row.description,
        labels=dict(row.labels),
        experiment_id=row.experiment_id,
        dataset_version_id=row.dataset_version_id,
        hyperparameters=with_floats(row.hyperparameters),
        primary_metric=Metric(row.primary_metric),
        metrics=_METRICS.validate_python(row.metrics),
        manifest=_MANIFEST.validate_python(row.manifest),
        creator_id=row.creator_id,
        create_time=row.create_time,
        update_time=row.update_time,
        etag=row.etag,
        aliases=aliases,
        inference_time_ms=row.inference_time_ms,
    )


def _entry(row: AliasHistory) -> domain.AliasHistoryEntry:
    return domain.AliasHistoryEntry(
        row.id, row.model_id, row.alias, row.model_version_id, row.version, row.set_by, row.start_time, row.end_time
    )


_VISIBLE = (
    select(ModelVersion, Model.name)
    .join(Model, Model.id == ModelVersion.model_id)
    .join(Project, Project.id == ModelVersion.project_id)
    .where(ModelVersion.id == IDENTITY)
)
_PROJECT = (
    select(ModelVersion.project_id)
    .join(Project, Project.id == ModelVersion.project_id)
    .where(ModelVersion.id == IDENTITY)
)


class SqlModelRepository:
    """Fulfils `ports.store.ModelRepository`."""

    def __init__(self, session: AsyncSession, documents: Documents) -> None:
        self._session = session
        self._documents = documents

    async def add_version(self, version: domain.ModelVersion) -> domain.ModelVersion:
        """Numbers are given under the write lock, so they have no gaps unless a version is deleted."""
        named = select(Model).where(Model.project_id == version.project_id, Model.name == version.model_name)
        model: Model | None = await self._session.scalar(locked(self._session, named, Model))
        if model is None:
            await self._make_model(version)
            model = (await self._session.scalars(locked(self._session, named, Model))).one()
        model.latest_version += 1
        model.update_time = version.create_time
        await self._session.flush()
        stored = replace(version, model_id=model.id, version=model.latest_version)
        self._session.add(
            ModelVersion(
                id=stored.id,
                project_id=stored.project_id,
                model_id=stored.model_id,
                version=stored.version,
                description=stored.description,
                labels=dict(stored.labels),
                experiment_id=stored.experiment_id,
                dataset_version_id=stored.dataset_version_id,
                hyperparameters=dict(stored.hyperparameters),
                primary_metric=stored.primary_metric.value,
                metrics=to_json(_METRICS, stored.metrics),
                manifest=to_json(_MANIFEST, stored.manifest),
                size_bytes=sum(artifact.size_bytes for artifact in stored.manifest.artifacts),
                inference_time_ms=stored.inference_time_ms,
                creator_id=stored.creator_id,
                create_time=stored.create_time,
                update_time=stored.update_time,
                etag=stored.etag,
            )
        )
        await self._session.flush()
        return stored

    async def put_results(self, version: domain.ModelVersion, results: ModelResults) -> None:
        """Written once, by who added the version."""
        await self._documents.put(ModelResultDocument.of(version.id, results), version.project_id)

    async def find_results(self, version_id: UUID) -> ModelResults | None:
        """How the version did in detail."""
        document = await self._documents.find(ModelResultDocument, version_id)
        return None if document is None else document.to_domain()

    async def get_version(self, version_id: UUID, caller: Caller) -> domain.ModelVersion:
        """Only what the caller can see; the role is held against what the method needs."""
        found = await find_visible(self._session, _VISIBLE, version_id, caller, "model version", of=ModelVersion)
        aliases = await self._aliases([found[0].id])
        return _version(found[0], found[1], aliases.get(found[0].id, ()))

    async def load_version(self, version_id: UUID) -> domain.ModelVersion:
        """For the server's own work."""
        statement = select(ModelVersion, Model.name).join(Model).where(ModelVersion.id == version_id)
        found = (await self._session.execute(statement)).one_or_none()
        if found is None:
            raise NotFound.of("model version", version_id)
        aliases = await self._aliases([version_id])
        return _version(found[0], found[1], aliases.get(version_id, ()))

    async def project_of_version(self, version_id: UUID, caller: Caller) -> UUID:
        """Only what the caller can see, as in `get_version`."""
        found = await find_visible(self._session, _PROJECT, version_id, caller, "model version")
        project_id: UUID = found[0]
        return project_id

    async def find_version(
        self, project_id: UUID, model_name: str, *, version: int = 0, alias: str = ""
    ) -> domain.ModelVersion | None:
        """By number or alias; the newest if neither is given."""
        statement = (
            select(ModelVersion, Model.name)
            .join(Model, Model.id == ModelVersion.model_id)
            .where(Model.project_id == project_id, Model.name == model_name)
            .order_by(ModelVersion.version.desc())
            .limit(1)
        )
        if version:
            statement = statement.where(ModelVersion.version == version)
        if alias:
            statement = statement.join(AliasHistory, AliasHistory.model_version_id == ModelVersion.id).where(
                AliasHistory.alias == alias, AliasHistory.end_time.is_(None)
            )
        row = (await self._session.execute(statement)).one_or_none()
        if row is None:
            return None
        aliases = await self._aliases([row[0].id])
        return _version(row[0], row[1], aliases.get(row[0].id, ()))

    async def get_model(self, project_id: UUID, name: str) -> domain.Model:
        """The model of that name."""
        row = await self._session.scalar(select(Model).where(Model.project_id == project_id, Model.name == name))
        if row is None:
            raise NotFound.of("model", name)
        return await self._with_aliases(row)

    async def load_model(self, model_id: UUID) -> domain.Model:
        """For the server's own work."""
        row = await self._session.get(Model, model_id)
        if row is None:
            raise NotFound.of("model", model_id)
        return await self._with_aliases(row)

    async def recorded_versions(self, model_id: UUID) -> Sequence[domain.RecordedVersion]:
        """All versions of a model with their MLflow runs, oldest first."""
        rows = await self._session.execute(
            select(ModelVersion.id, ModelVersion.version, ModelVersion.description, MLExperiment.mlflow_run_id)
            .outerjoin(MLExperiment, MLExperiment.id == ModelVersion.experiment_id)
            .where(ModelVersion.model_id == model_id)
            .order_by(ModelVersion.version)
        )
        return [domain.RecordedVersion(*row[:3], row.mlflow_run_id or None, row.mlflow_run_id == "") for row in rows]

    async def ids_of_project(self, project_id: UUID) -> Sequence[UUID]:
        """The models of a project."""
        return (await self._session.scalars(select(Model.id).where(Model.project_id == project_id))).all()

    async def list(self, project_id: UUID, page: PageRequest) -> Page[domain.Model]:
        """The models of a project."""
        statement = with_prefix(select(Model).where(Model.project_id == project_id), Model.name, page)
        statement = ordered(statement, page, Model.create_time, Model.id)
        rows = (await self._session.scalars(statement)).all()
        models = {row.id: await self._with_aliases(row) for row in rows[: page.size]}
        return paged(rows, page, lambda row: models[row.id], lambda row: (row.create_time.isoformat(), str(row.id)))

    async def list_versions(
        self, project_id: UUID, page: PageRequest, model_name: str = "", alias: str = ""
    ) -> Page[domain.ModelVersion]:
        """The versions of a model or of all models."""
        statement = (
            select(ModelVersion, Model.name)
            .join(Model, Model.id == ModelVersion.model_id)
            .where(ModelVersion.project_id == project_id)
        )
        if model_name:
            statement = statement.where(Model.name == model_name)
        if alias:
            statement = statement.join(AliasHistory, AliasHistory.model_version_id == ModelVersion.id).where(
                AliasHistory.alias == alias, AliasHistory.end_time.is_(None)
            )
        statement = ordered(
            with_labels(statement, ModelVersion.labels, page), page, ModelVersion.create_time, ModelVersion.id
        )
        rows = (await self._session.execute(statement)).all()
        aliases = await self._aliases([row[0].id for row in rows])
        return paged(
            rows,
            page,
            lambda row: _version(row[0], row[1], aliases.get(row[0].id, ())),
            lambda row: (row[0].create_time.isoformat(), str(row[0].id)),
        )

    async def count_of_project(self, project_id: UUID) -> tuple[int, int]:
        """(models, versions)."""
        models = await self._session.scalar(
            select(func.count()).select_from(Model).where(Model.project_id == project_id)
        )
        versions = await self._session.scalar(
            select(func.count()).select_from(ModelVersion).where(ModelVersion.project_id == project_id)
        )
        return models or 0, versions or 0

    async def save_version(self, version: domain.ModelVersion, etag: str) -> None:
        """Description and labels change; all else is as it was trained."""
        row = await self._current(version.id, etag)
        row.description = version.description
        row.labels = dict(version.labels)
        row.update_time = version.update_time
        row.etag = version.etag
        await self._session.flush()

    async def delete_version(self, version: domain.ModelVersion, etag: str, time: datetime) -> bool:
        """The history of its aliases stays while the model does."""
        row = await self._current(version.id, etag)
        await self._lock(version.model_id)
        await self._session.execute(
            update(AliasHistory)
            .where(AliasHistory.model_version_id == version.id, AliasHistory.end_time.is_(None))
            .values(end_time=time)
        )
        await self._documents.delete(version.id)
        await self._session.delete(row)
        await self._session.flush()
        left = await self._session.scalar(
            select(func.count()).select_from(ModelVersion).where(ModelVersion.model_id == version.model_id)
        )
        if left:
            return False
        await self._session.delete(await self._session.get_one(Model, version.model_id))
        await self._session.flush()
        return True

    async def set_alias(self, version: domain.ModelVersion, alias: str, user_id: UUID, time: datetime) -> None:
        """Ends where it pointed and begins where it points, in one transaction."""
        await self._lock(version.model_id)
        current = await self._session.scalar(self._current_alias(version.model_id, alias))
        if current is not None and current.model_version_id == version.id:
            return
        if current is not None:
            current.end_time = time
            await self._session.flush()
        self._session.add(
            AliasHistory(
                id=uuid4(),
                model_id=version.model_id,
                alias=alias,
                model_version_id=version.id,
                version=version.version,
                set_by=user_id,
                start_time=time,
                end_time=None,
            )
        )
        await self._session.flush()

    async def delete_alias(self, model_id: UUID, alias: str, time: datetime) -> None:
        """Its history stays."""
        await self._lock(model_id)
        current = await self._session.scalar(self._current_alias(model_id, alias))
        if current is None:
            raise NotFound.of("alias", alias)
        current.end_time = time
        await self._session.flush()

    async def list_alias_history(
        self, model_id: UUID, page: PageRequest, alias: str = "", at: datetime | None = None
    ) -> Page[domain.AliasHistoryEntry]:
        """Newest first."""
        statement = select(AliasHistory).where(AliasHistory.model_id == model_id)
        if alias:
            statement = statement.where(AliasHistory.alias == alias)
        if at is not None:
            statement = statement.where(
                AliasHistory.start_time <= at, or_(AliasHistory.end_time.is_(None), AliasHistory.end_time > at)
            )
        statement = ordered(statement, page, AliasHistory.start_time, AliasHistory.id)
        rows = (await self._session.scalars(statement)).all()
        return paged(rows, page, _entry, lambda row: (row.start_time.isoformat(), str(row.id)))

    async def _make_model(self, version: domain.ModelVersion) -> None:
        """An empty model; somebody else's of the same name, made in the same moment, is as good."""
        model = Model(
            id=uuid4(),
            project_id=version.project_id,
            name=version.model_name,
            latest_version=0,
            create_time=version.create_time,
            update_time=version.create_time,
        )
        try:
            async with self._session.begin_nested():
                self._session.add(model)
        except IntegrityError as error:
            if not key_is_there(error):
                raise

    async def _lock(self, model_id: UUID) -> None:
        """Versions and aliases of one model change one after the other."""
        await self._session.scalar(locked(self._session, select(Model.id).where(Model.id == model_id), Model))

    @staticmethod
    def _current_alias(model_id: UUID, alias: str) -> Any:
        return select(AliasHistory).where(
            AliasHistory.model_id == model_id, AliasHistory.alias == alias, AliasHistory.end_time.is_(None)
        )

    async def _aliases(self, version_ids: Sequence[UUID]) -> dict[UUID, tuple[str, ...]]:
        rows = await self._session.scalars(
            select(AliasHistory)
            .where(AliasHistory.model_version_id.in_(version_ids), AliasHistory.end_time.is_(None))
            .order_by(AliasHistory.alias)
        )
        aliases: dict[UUID, tuple[str, ...]] = {}
        for row in rows:
            aliases[row.model_version_id] = (*aliases.get(row.model_version_id, ()), row.alias)
        return aliases

    async def _with_aliases(self, row: Model) -> domain.Model:
        current = await self._session.scalars(
            select(AliasHistory)
            .where(AliasHistory.model_id == row.id, AliasHistory.end_time.is_(None))
            .order_by(AliasHistory.alias)
        )
        aliases = tuple(domain.ModelAlias(a.alias, a.model_version_id, a.version) for a in current)
        return domain.Model(
            row.id, row.project_id, row.name, row.latest_version, row.create_time, row.update_time, aliases
        )

    async def _current(self, version_id: UUID, etag: str) -> ModelVersion:
        statement = locked(self._session, select(ModelVersion).where(ModelVersion.id == version_id), ModelVersion)
        row: ModelVersion | None = await self._session.scalar(statement)
        if row is None:
            raise NotFound.of("model version", version_id)
        if etag and etag != row.etag:
            raise Stale("The model version was changed by somebody else; read it again, then repeat your change.")
        return row
