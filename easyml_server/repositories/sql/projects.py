"""Projects and members as rows; the configuration as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    bindparam,
    delete,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain import projects as domain
from easyml_server.domain.errors import NotFound, Stale
from easyml_server.domain.pages import Order, Page, PageRequest
from easyml_server.domain.users import Caller
from easyml_server.repositories.documents.models import ProjectConfigDocument
from easyml_server.repositories.documents.port import Documents
from easyml_server.repositories.sql.base import (
    WRITES,
    Base,
    JsonType,
    UtcDateTime,
    authorize,
    locked,
    one_of,
    ordered,
    paged,
    with_labels,
    with_lock,
    with_prefix,
)
from easyml_server.repositories.sql.errors import named
from easyml_server.repositories.sql.users import User


class Project(Base):
    """A project."""

    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("creator_id", "name"),
        Index("ix_projects_create_time", "create_time", "id"),
        Index("ix_projects_name", "name", "id"),
        Index("ix_projects_visibility", "visibility", "id"),
        CheckConstraint(one_of("visibility", list(domain.Visibility)), name="visibility"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(4000))
    labels: Mapped[Mapping[str, str]] = mapped_column(JsonType)
    visibility: Mapped[str] = mapped_column(String(16))
    creator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime)
    etag: Mapped[str] = mapped_column(String(64))


class ProjectMember(Base):
    """A user's role in a project."""

    __tablename__ = "project_members"
    __table_args__ = (CheckConstraint(one_of("role", list(domain.Role)), name="role"),)

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(16))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)


IDENTITY = bindparam("identity", type_=Project.id.type)
"""In a statement of `find_visible`: the id of the row it selects."""


async def find_visible(
    session: AsyncSession, statement: Any, identity: UUID, caller: Caller, kind: str, of: type[Base] | None = None
) -> Any:
    """The row that the statement selects, if the caller sees its project, whose role has to allow what is done.

    The statement is a constant that joins `projects` and compares with IDENTITY: made once, so that SQLAlchemy does not
    go through it for each call. Rows of `of` are locked by a unit of work that writes.
    """
    locks = of is not None and bool(session.info.get(WRITES))
    narrowed = _narrowed(statement, scoped=caller.scope.project_id is not None, of=of if locks else None)
    found = (await session.execute(narrowed, {IDENTITY.key: identity, **_of_caller(caller)})).one_or_none()
    if found is None:
        raise NotFound.of(kind, identity)
    authorize(domain.Role(found.caller_role), caller)
    return found


@cache
def _narrowed(statement: Any, *, scoped: bool, of: type[Base] | None) -> Any:
    statement = _visible(statement, scoped=scoped)
    return statement if of is None else with_lock(statement, of)


def _visible(statement: Any, *, scoped: bool) -> Any:
    """A statement that selects from `projects`, narrowed to those the caller sees, with the caller's role added."""
    role = func.coalesce(ProjectMember.role, domain.Role.VIEWER.value).label("caller_role")
    statement = statement.add_columns(role).outerjoin(
        ProjectMember,
        (ProjectMember.project_id == Project.id)
        & (ProjectMember.user_id == bindparam("caller_id", type_=ProjectMember.user_id.type)),
    )
    statement = statement.where(
        or_(ProjectMember.role.is_not(None), Project.visibility == domain.Visibility.INTERNAL.value)
    )
    if scoped:
        statement = statement.where(Project.id == bindparam("caller_project_id", type_=Project.id.type))
    return statement


def _of_caller(caller: Caller) -> dict[str, Any]:
    """What `_visible` leaves open."""
    named = {"caller_id": caller.user_id}
    return named if caller.scope.project_id is None else named | {"caller_project_id": caller.scope.project_id}


_ONE = select(Project).where(Project.id == IDENTITY)


def _project(row: Project, role: str | None) -> domain.Project:
    return domain.Project(
        id=row.id,
        name=row.name,
        description=row.description,
        labels=dict(row.labels),
        creator_id=row.creator_id,
        create_time=row.create_time,
        update_time=row.update_time,
        etag=row.etag,
        visibility=domain.Visibility(row.visibility),
        role=domain.Role(role) if role else None,
    )


def _member(row: ProjectMember, user: User) -> domain.Member:
    return domain.Member(
        row.project_id, row.user_id, user.email, user.display_name, domain.Role(row.role), row.create_time
    )


class SqlProjectRepository:
    """Fulfils `ports.store.ProjectRepository`."""

    def __init__(self, session: AsyncSession, documents: Documents) -> None:
        self._session = session
        self._documents = documents

    async def add(self, project: domain.Project, config: domain.ProjectConfig) -> None:
        """The creator becomes the owner."""
        self._session.add(
            Project(
                id=project.id,
                name=project.name,
                description=project.description,
                labels=dict(project.labels),
                visibility=project.visibility.value,
                creator_id=project.creator_id,
                create_time=project.create_time,
                update_time=project.update_time,
                etag=project.etag,
            )
        )
        with named("project", project.name):
            await self._session.flush()
        await self.set_member(project.id, project.creator_id, domain.Role.OWNER, project.create_time)
        await self._documents.put(ProjectConfigDocument.of(config), project.id)

    async def get(self, project_id: UUID, caller: Caller) -> domain.Project:
        """Only what the caller can see; the role is held against what the method needs."""
        found = await find_visible(self._session, _ONE, project_id, caller, "project", of=Project)
        return _project(found[0], found.caller_role)

    async def load(self, project_id: UUID) -> domain.Project:
        """Without a caller."""
        return _project(await self._current(project_id, ""), None)

    async def list(self, caller: Caller, page: PageRequest) -> Page[domain.Project]:
        """All that the caller can see."""
        # Looked for from both sides: with "or" alone each project would have to be looked at.
        internal = select(Project.id).where(Project.visibility == domain.Visibility.INTERNAL.value)
        own = select(ProjectMember.project_id).where(ProjectMember.user_id == caller.user_id)
        statement = select(Project).where(Project.id.in_(union_all(own, internal)))
        statement = with_prefix(with_labels(statement, Project.labels, page), Project.name, page)
        statement = _visible(statement, scoped=caller.scope.project_id is not None)
        statement = ordered(statement, page, Project.create_time, Project.id, Project.name)
        rows = (await self._session.execute(statement, _of_caller(caller))).all()

        def position(row: Any) -> tuple[str, str]:
            key = row[0].name if page.order is Order.BY_NAME else row[0].create_time.isoformat()
            return key, str(row[0].id)

        return paged(rows, page, lambda row: _project(row[0], row.caller_role), position)

    async def save(self, project: domain.Project, etag: str) -> None:
        """Compare the etag in the same transaction that writes."""
        row = await self._current(project.id, etag)
        row.name = project.name
        row.description = project.description
        row.labels = dict(project.labels)
        row.visibility = project.visibility.value
        row.update_time = project.update_time
        row.etag = project.etag
        with named("project", project.name):
            await self._session.flush()

    async def delete(self, project_id: UUID, etag: str) -> None:
        """Rows below go by foreign key, documents by their project."""
        row = await self._current(project_id, etag)
        await self._session.delete(row)
        await self._session.flush()
        # After the rows: whoever still wrote to one of them has committed by now, or finds it gone.
        await self._documents.delete_of_project(project_id)

    async def get_config(self, project_id: UUID) -> domain.ProjectConfig:
        """The configuration document; the visibility is the row's."""
        row = await self._find(project_id)
        document = await self._documents.find(ProjectConfigDocument, project_id)
        if row is None or document is None:
            raise NotFound.of("project", project_id)
        return replace(document.to_domain(), visibility=domain.Visibility(row.visibility))

    async def save_config(self, config: domain.ProjectConfig, etag: str) -> None:
        """The visibility goes to the row, since queries need it there."""
        current = await self.get_config(config.project_id)
        if etag and etag != current.etag:
            raise Stale("The configuration was changed by somebody else; read it again, then repeat your change.")
        row = await self._session.get_one(Project, config.project_id)
        row.visibility = config.visibility.value
        await self._documents.put(ProjectConfigDocument.of(config), config.project_id)
        await self._session.flush()

    async def list_members(self, project_id: UUID, page: PageRequest) -> Page[domain.Member]:
        """The members of a project."""
        statement = (
            select(ProjectMember, User)
            .join(User, User.id == ProjectMember.user_id)
            .where(ProjectMember.project_id == project_id)
        )
        statement = ordered(statement, page, ProjectMember.create_time, ProjectMember.user_id)
        rows = (await self._session.execute(statement)).all()
        return paged(
            rows,
            page,
            lambda row: _member(row[0], row[1]),
            lambda row: (row[0].create_time.isoformat(), str(row[0].user_id)),
        )

    async def find_member(self, project_id: UUID, user_id: UUID) -> domain.Member | None:
        """The member of that id."""
        statement = (
            select(ProjectMember, User)
            .join(User, User.id == ProjectMember.user_id)
            .where(ProjectMember.project_id == project_id, ProjectMember.user_id == user_id)
        )
        row = (await self._session.execute(statement)).one_or_none()
        return None if row is None else _member(row[0], row[1])

    async def set_member(self, project_id: UUID, user_id: UUID, role: domain.Role, time: datetime) -> None:
        """A new member, or a new role."""
        row = await self._session.get(ProjectMember, (project_id, user_id))
        if row is None:
            self._session.add(ProjectMember(project_id=project_id, user_id=user_id, role=role.value, create_time=time))
        else:
            row.role = role.value
        await self._session.flush()

    async def remove_member(self, project_id: UUID, user_id: UUID) -> None:
        """Nothing happens if the user is none."""
        await self._session.execute(
            delete(ProjectMember).where(ProjectMember.project_id == project_id, ProjectMember.user_id == user_id)
        )

    async def count_owners(self, project_id: UUID) -> int:
        """Owners of a project."""
        statement = select(func.count()).where(
            ProjectMember.project_id == project_id, ProjectMember.role == domain.Role.OWNER.value
        )
        return await self._session.scalar(statement) or 0

    async def _current(self, project_id: UUID, etag: str) -> Project:
        row = await self._find(project_id)
        if row is None:
            raise NotFound.of("project", project_id)
        if etag and etag != row.etag:
            raise Stale("The project was changed by somebody else; read it again, then repeat your change.")
        return row

    async def _find(self, project_id: UUID) -> Project | None:
        statement = locked(self._session, _ONE, Project)
        row: Project | None = await self._session.scalar(statement, {IDENTITY.key: project_id})
        return row
