"""What all models share: types that mean the same on both engines, paging, and the query that holds the membership."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from easyml_server.domain.errors import InvalidInput, NotAllowed, Reason
from easyml_server.domain.pages import Order, Page, PageRequest
from easyml_server.domain.projects import Role
from easyml_server.domain.users import Caller

Row = TypeVar("Row")
Item = TypeVar("Item")

BEYOND = 1 << 63
JsonType = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always aware and UTC in Python; microseconds."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite has no time zones: store UTC without one, which sorts as text."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can refer to them on both engines."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class StoreIdentity(Base):
    """One row, made by the migration: which database this is, and where its documents and files are."""

    __tablename__ = "store_identity"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    # Of the document server that was prepared for it; 0 while documents are kept here.
    documents_layout: Mapped[int] = mapped_column(server_default="0")
    # Whether the files are at a place that carries this database's id; false while they lie beside it.
    files_bound: Mapped[bool] = mapped_column(server_default=false())
    # Where versions are brought for DVC; none before the first start of a release that writes it down.
    dvc_remote: Mapped[str | None] = mapped_column(Text)


def to_json(adapter: TypeAdapter[Any], value: Any) -> Any:
    """A domain value as what a JSON column takes."""
    return adapter.dump_python(value, mode="json")


def with_floats(value: Any) -> Any:
    """A value of a JSON column: JSONB gives a float from 1e16 on back as an integer, which it is not beyond 64 bits."""
    if isinstance(value, dict):
        return {name: with_floats(each) for name, each in value.items()}
    if isinstance(value, list):
        return [with_floats(each) for each in value]
    return float(value) if isinstance(value, int) and abs(value) >= BEYOND else value


def one_of(column: str, values: Sequence[str]) -> str:
    """SQL of a check constraint that holds a column to the values of an enum."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def authorize(role: Role, caller: Caller) -> None:
    """Hold the caller's role in the project against what the method needs."""
    if role.permission < caller.needs:
        needed = caller.needs.name.lower()
        raise NotAllowed(
            f"This needs the role {needed} in the project, and you are {role.value}; ask an owner for it.",
            Reason.ROLE_TOO_LOW,
            metadata={"required": needed},
        )


class _LabelOf(FunctionElement[str]):
    """The value of a label, by (column, name)."""

    type = String()
    inherit_cache = True
    name = "label_of"


@compiles(_LabelOf)
def _label_of(element: _LabelOf, compiler: Any, **options: Any) -> str:
    column, name = (compiler.process(each, **options) for each in element.clauses)
    return f"({column} ->> {name})"


@compiles(_LabelOf, "sqlite")
def _label_of_sqlite(element: _LabelOf, compiler: Any, **options: Any) -> str:
    # By path, which is what SQLAlchemy makes of column[name], SQLite finds no name with a quote or beyond ASCII.
    column, name = (compiler.process(each, **options) for each in element.clauses)
    return f"(SELECT value FROM json_each({column}) WHERE key = {name})"  # noqa: S608 (both are compiled expressions)


WRITES = "writes"
"""In `session.info`: this unit of work writes."""


def with_lock(statement: Any, of: type[Base]) -> Any:
    """A select whose rows nobody else changes until this unit of work ends.

    So what was read is what is changed, as on SQLite, where one writes at a time and the clause is left out. Keys are
    not locked: rows that refer to these can still be added.
    """
    return statement.with_for_update(of=of, key_share=True).execution_options(populate_existing=True)


def locked(session: AsyncSession, statement: Any, of: type[Base]) -> Any:
    """The select with a lock if this unit of work is one that writes."""
    return with_lock(statement, of) if session.info.get(WRITES) else statement


def insert_missing(session: AsyncSession, table: Table) -> Any:
    """An insert that leaves rows alone whose key is there."""
    return _insert(session, table).on_conflict_do_nothing()


def insert_or_replace(session: AsyncSession, table: Table) -> Any:
    """An insert that replaces all else of a row whose key is there."""
    statement = _insert(session, table)
    keys = list(table.primary_key.columns)
    changed = {column.name: column for column in statement.excluded if column.name not in {key.name for key in keys}}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def _insert(session: AsyncSession, table: Table) -> Any:
    return (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert(table)


async def one_at_a_time(session: AsyncSession, what: str) -> None:
    """Of units of work that say the same word here, the second goes on when the first has ended; on SQLite all do."""
    if session.get_bind().dialect.name == "postgresql":
        number = int.from_bytes(sha256(what.encode()).digest()[:8], signed=True)
        await session.execute(select(func.pg_advisory_xact_lock(number)))


def with_labels(statement: Any, column: InstrumentedAttribute[Any], page: PageRequest) -> Any:
    """Only rows that carry all labels of the page request."""
    for name, value in page.labels.items():
        statement = statement.where(_LabelOf(column, literal(name)) == value)
    return statement


def with_prefix(statement: Any, column: InstrumentedAttribute[str], page: PageRequest) -> Any:
    """Only rows whose name begins as the page request says."""
    if page.name_prefix:
        statement = statement.where(func.substr(column, 1, len(page.name_prefix)) == page.name_prefix)
    return statement


def ordered(
    statement: Any,
    page: PageRequest,
    time: InstrumentedAttribute[datetime],
    identity: InstrumentedAttribute[Any],
    name: InstrumentedAttribute[str] | None = None,
) -> Any:
    """The rows after the page request's position, in its order, one more than a page to see whether there is more."""
    key: InstrumentedAttribute[Any] = time
    if page.order is Order.BY_NAME and name is not None:
        key = name
    descending = page.order is Order.NEWEST_FIRST
    if page.after is not None:
        raw, raw_id = page.after
        try:
            position: Any = raw if key is not time else datetime.fromisoformat(raw).astimezone(UTC)
            identity_value = identity.type.python_type(raw_id)
        except ValueError as error:
            raise _altered() from error
        # As one comparison of rows: with "or" the engines read from the first page on, and leave out what is before.
        here, there = tuple_(key, identity), tuple_(literal(position, key.type), literal(identity_value, identity.type))
        statement = statement.where(here < there if descending else here > there)
    order = (key.desc(), identity.desc()) if descending else (key.asc(), identity.asc())
    return statement.order_by(*order).limit(page.size + 1)


def _altered() -> InvalidInput:
    return InvalidInput.at(
        "page_token", "This page token was altered; start again without it.", Reason.INVALID_PAGE_TOKEN
    )


def paged(
    rows: Sequence[Row], page: PageRequest, item: Callable[[Row], Item], position: Callable[[Row], tuple[str, str]]
) -> Page[Item]:
    """A page of the rows that `ordered` selected."""
    kept = rows[: page.size]
    following = position(kept[-1]) if len(rows) > page.size else None
    return Page(tuple(item(row) for row in kept), following)
