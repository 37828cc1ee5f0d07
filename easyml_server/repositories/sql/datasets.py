"""Datasets, their versions and uploads as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain import datasets as domain
from easyml_server.domain.errors import NotFound, Stale
from easyml_server.domain.pages import Order, Page, PageRequest
from easyml_server.domain.statistics import TableStatistics
from easyml_server.domain.users import Caller
from easyml_server.repositories.documents.details import DatasetMetadataDocument
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
    with_labels,
    with_prefix,
)
from easyml_server.repositories.sql.errors import named
from easyml_server.repositories.sql.models import ModelVersion
from easyml_server.repositories.sql.projects import IDENTITY, Project, find_visible

_SCHEMA = TypeAdapter(domain.TableSchema)
_WARNINGS = TypeAdapter(tuple[domain.DatasetWarning, ...])
_READ_OPTIONS = TypeAdapter(domain.ReadOptions)
_UNFINISHED = (domain.UploadState.RECEIVING.value, domain.UploadState.CONVERTING.value)


class Dataset(Base):
    """A named table of a project."""

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index("ix_datasets_project_id_create_time", "project_id", "create_time", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(4000))
    labels: Mapped[Mapping[str, str]] = mapped_column(JsonType)
    creator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime)
    etag: Mapped[str] = mapped_column(String(64))
    current_version: Mapped[int]


class DatasetVersion(Base):
    """The immutable content of a dataset."""

    __tablename__ = "dataset_versions"
    __table_args__ = (
        UniqueConstraint("dataset_id", "version"),
        CheckConstraint(one_of("format", list(domain.FileFormat)), name="format"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    version: Mapped[int]
    filename: Mapped[str] = mapped_column(String(255))
    format: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    stored_bytes: Mapped[int] = mapped_column(BigInteger)
    stored_sha256: Mapped[str] = mapped_column(String(64))
    schema: Mapped[Any] = mapped_column(JsonType)
    warnings: Mapped[Any] = mapped_column(JsonType)
    keeps_original: Mapped[bool]
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)


class Upload(Base):
    """A file on its way in; its id is the caller's, so it is unique per user."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint(one_of("state", list(domain.UploadState)), name="state"),
        CheckConstraint(one_of("format", list(domain.FileFormat)), name="format"),
        Index("ix_uploads_state_expire_time", "state", "expire_time"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(4000))
    labels: Mapped[Mapping[str, str]] = mapped_column(JsonType)
    filename: Mapped[str] = mapped_column(String(255))
    format: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    read_options: Mapped[Any] = mapped_column(JsonType)
    received_bytes: Mapped[int] = mapped_column(BigInteger)
    dataset_id: Mapped[UUID | None]
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    expire_time: Mapped[datetime] = mapped_column(UtcDateTime)
    failure_reason: Mapped[str | None] = mapped_column(String(64))
    failure_message: Mapped[str | None] = mapped_column(String(4000))


def _version(row: DatasetVersion) -> domain.DatasetVersion:
    return domain.DatasetVersion(
        id=row.id,
        dataset_id=row.dataset_id,
        project_id=row.project_id,
        version=row.version,
        filename=row.filename,
        format=domain.FileFormat(row.format),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        stored_bytes=row.stored_bytes,
        stored_sha256=row.stored_sha256,
        schema=_SCHEMA.validate_python(row.schema),
        warnings=_WARNINGS.validate_python(row.warnings),
        keeps_original=row.keeps_original,
        create_time=row.create_time,
    )


def _dataset(row: Dataset, version: DatasetVersion) -> domain.Dataset:
    return domain.Dataset(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        description=row.description,
        labels=dict(row.labels),
        creator_id=row.creator_id,
        create_time=row.create_time,
        update_time=row.update_time,
        etag=row.etag,
        current=_version(version),
    )


def _upload(row: Upload) -> domain.Upload:
    return domain.Upload(
        id=row.id,
        user_id=row.user_id,
        project_id=row.project_id,
        state=domain.UploadState(row.state),
        name=row.name,
        description=row.description,
        labels=dict(row.labels),
        filename=row.filename,
        format=domain.FileFormat(row.format),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        read_options=_READ_OPTIONS.validate_python(row.read_options),
        received_bytes=row.received_bytes,
        dataset_id=row.dataset_id,
        create_time=row.create_time,
        expire_time=row.expire_time,
        failure=(row.failure_reason, row.failure_message or "") if row.failure_reason else None,
    )


_WITH_VERSION = select(Dataset, DatasetVersion).join(
    DatasetVersion,
    (DatasetVersion.dataset_id == Dataset.id) & (DatasetVersion.version == Dataset.current_version),
)
_VISIBLE = _WITH_VERSION.join(Project, Project.id == Dataset.project_id).where(Dataset.id == IDENTITY)


class SqlDatasetRepository:
    """Fulfils `ports.store.DatasetRepository`."""

    def __init__(self, session: AsyncSession, documents: Documents) -> None:
        self._session = session
        self._documents = documents

    async def add(self, dataset: domain.Dataset) -> None:
        """The dataset and its current version."""
        version = dataset.current
        self._session.add(
            Dataset(
                id=dataset.id,
                project_id=dataset.project_id,
                name=dataset.name,
                description=dataset.description,
                labels=dict(dataset.labels),
                creator_id=dataset.creator_id,
                create_time=dataset.create_time,
                update_time=dataset.update_time,
                etag=dataset.etag,
                current_version=version.version,
            )
        )
        with named("dataset", dataset.name):
            await self._session.flush()
        self._session.add(
            DatasetVersion(
                id=version.id,
                dataset_id=dataset.id,
                project_id=dataset.project_id,
                version=version.version,
                filename=version.filename,
                format=version.format.value,
                size_bytes=version.size_bytes,
                sha256=version.sha256,
                stored_bytes=version.stored_bytes,
                stored_sha256=version.stored_sha256,
                schema=to_json(_SCHEMA, version.schema),
                warnings=to_json(_WARNINGS, version.warnings),
                keeps_original=version.keeps_original,
                create_time=version.create_time,
            )
        )
        await self._session.flush()

    async def put_statistics(self, version: domain.DatasetVersion, statistics: TableStatistics) -> None:
        """Written once, by who added the version."""
        await self._documents.put(DatasetMetadataDocument.of(version.id, statistics), version.project_id)

    async def find_statistics(self, version_ids: Sequence[UUID]) -> Mapping[UUID, TableStatistics]:
        """By version."""
        found = await self._documents.find_many(DatasetMetadataDocument, version_ids)
        return {version_id: document.to_domain() for version_id, document in found.items()}

    async def get(self, dataset_id: UUID, caller: Caller) -> domain.Dataset:
        """Only what the caller can see; the role is held against what the method needs."""
        found = await find_visible(self._session, _VISIBLE, dataset_id, caller, "dataset", of=Dataset)
        return _dataset(found[0], found[1])

    async def get_version(self, version_id: UUID) -> domain.DatasetVersion:
        """Without a caller: for versions that a visible row names."""
        row = await self._session.get(DatasetVersion, version_id)
        if row is None:
            raise NotFound.of("dataset version", version_id)
        return _version(row)

    async def find_by_name(self, project_id: UUID, name: str) -> domain.Dataset | None:
        """The dataset of that name."""
        statement = _WITH_VERSION.where(Dataset.project_id == project_id, Dataset.name == name)
        row = (await self._session.execute(statement)).one_or_none()
        return None if row is None else _dataset(row[0], row[1])

    async def list(self, project_id: UUID, page: PageRequest) -> Page[domain.Dataset]:
        """The datasets of a project."""
        statement = _WITH_VERSION.where(Dataset.project_id == project_id)
        statement = with_prefix(with_labels(statement, Dataset.labels, page), Dataset.name, page)
        statement = ordered(statement, page, Dataset.create_time, Dataset.id, Dataset.name)
        rows = (await self._session.execute(statement)).all()

        def position(row: Any) -> tuple[str, str]:
            key = row[0].name if page.order is Order.BY_NAME else row[0].create_time.isoformat()
            return key, str(row[0].id)

        return paged(rows, page, lambda row: _dataset(row[0], row[1]), position)

    async def list_versions(self, project_id: UUID) -> Sequence[domain.DatasetVersion]:
        """All versions of a project, for their files."""
        rows = await self._session.scalars(select(DatasetVersion).where(DatasetVersion.project_id == project_id))
        return [_version(row) for row in rows]

    async def save(self, dataset: domain.Dataset, etag: str) -> None:
        """The schema of the current version is stored too, since roles and kinds may change."""
        row = await self._current(dataset.id, etag)
        row.name = dataset.name
        row.description = dataset.description
        row.labels = dict(dataset.labels)
        row.update_time = dataset.update_time
        row.etag = dataset.etag
        version = await self._session.get_one(DatasetVersion, dataset.current.id)
        version.schema = to_json(_SCHEMA, dataset.current.schema)
        with named("dataset", dataset.name):
            await self._session.flush()

    async def delete(self, dataset_id: UUID, etag: str) -> None:
        """Its versions go by foreign key."""
        row = await self._current(dataset_id, etag)
        for version_id in await self._session.scalars(
            select(DatasetVersion.id).where(DatasetVersion.dataset_id == dataset_id)
        ):
            await self._documents.delete(version_id)
        await self._session.delete(row)
        await self._session.flush()

    async def stored_bytes(self, project_id: UUID) -> int:
        """Tables, kept originals and model artefacts."""
        tables = await self._session.scalar(
            select(func.sum(DatasetVersion.stored_bytes)).where(DatasetVersion.project_id == project_id)
        )
        originals = await self._session.scalar(
            select(func.sum(DatasetVersion.size_bytes)).where(
                DatasetVersion.project_id == project_id, DatasetVersion.keeps_original
            )
        )
        models = await self._session.scalar(
            select(func.sum(ModelVersion.size_bytes)).where(ModelVersion.project_id == project_id)
        )
        return int(tables or 0) + int(originals or 0) + int(models or 0)

    async def put_upload(self, upload: domain.Upload) -> None:
        """Insert or replace."""
        reason, message = upload.failure or (None, None)
        await self._session.merge(
            Upload(
                user_id=upload.user_id,
                id=upload.id,
                project_id=upload.project_id,
                state=upload.state.value,
                name=upload.name,
                description=upload.description,
                labels=dict(upload.labels),
                filename=upload.filename,
                format=upload.format.value,
                size_bytes=upload.size_bytes,
                sha256=upload.sha256,
                read_options=to_json(_READ_OPTIONS, upload.read_options),
                received_bytes=upload.received_bytes,
                dataset_id=upload.dataset_id,
                create_time=upload.create_time,
                expire_time=upload.expire_time,
                failure_reason=reason,
                failure_message=message,
            )
        )
        await self._session.flush()

    async def find_upload(self, upload_id: UUID, user_id: UUID) -> domain.Upload | None:
        """The user's upload of that id."""
        statement = select(Upload).where(Upload.user_id == user_id, Upload.id == upload_id)
        row = await self._session.scalar(locked(self._session, statement, Upload))
        return None if row is None else _upload(row)

    async def count_uploads(self, user_id: UUID | None) -> int:
        """Unfinished ones."""
        statement = select(func.count()).select_from(Upload).where(Upload.state.in_(_UNFINISHED))
        if user_id is not None:
            statement = statement.where(Upload.user_id == user_id)
        return await self._session.scalar(statement) or 0

    async def expire_uploads(self, time: datetime) -> Sequence[domain.Upload]:
        """Unfinished ones that nobody continued."""
        rows = (
            await self._session.scalars(select(Upload).where(Upload.state.in_(_UNFINISHED), Upload.expire_time < time))
        ).all()
        expired = [_upload(row) for row in rows]
        for row in rows:
            await self._session.delete(row)
        await self._session.flush()
        return expired

    async def unfinished_uploads(self) -> Sequence[domain.Upload]:
        """All that have bytes on disk."""
        rows = await self._session.scalars(select(Upload).where(Upload.state.in_(_UNFINISHED)))
        return [_upload(row) for row in rows]

    async def _current(self, dataset_id: UUID, etag: str) -> Dataset:
        statement = locked(self._session, select(Dataset).where(Dataset.id == dataset_id), Dataset)
        row: Dataset | None = await self._session.scalar(statement)
        if row is None:
            raise NotFound.of("dataset", dataset_id)
        if etag and etag != row.etag:
            raise Stale("The dataset was changed by somebody else; read it again, then repeat your change.")
        return row
