"""The queue of trainings: who takes the next one, under a lease, and who takes over what was left behind.

The database's clock says when a lease ends, so servers need not agree on the time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, func, literal, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from easyml_server.domain import experiments as domain
from easyml_server.domain.experiments import TrainingState
from easyml_server.domain.leases import Abandoned, Held, Lease
from easyml_server.repositories.sql.base import UtcDateTime, one_at_a_time
from easyml_server.repositories.sql.experiments import TAKEN, MLExperiment, experiment_of

CLAIMS = "claims of trainings"
_IS_TAKEN = MLExperiment.state.in_([state.value for state in TAKEN])


class _Later(FunctionElement[datetime]):
    """So many seconds from now, by the database's clock; not the time at which the transaction began."""

    type = UtcDateTime()
    inherit_cache = True
    name = "later"


@compiles(_Later)
def _later(element: _Later, compiler: Any, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(_Later, "sqlite")
def _later_sqlite(element: _Later, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    # As SQLAlchemy writes times, which compare as text.
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"


def in_seconds(seconds: float) -> _Later:
    """A time so far from now."""
    return _Later(literal(float(seconds)))


class SqlTrainingQueue:
    """Fulfils `ports.store.TrainingQueue`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(self, time: datetime, lease: Lease, per_project: int) -> domain.Experiment | None:
        """One server claims at a time, so that a project's limit holds for all of them together."""
        await one_at_a_time(self._session, CLAIMS)
        busy = (
            select(MLExperiment.project_id, func.count().label("trainings"))
            .where(_IS_TAKEN, MLExperiment.owner.is_not(None))
            .group_by(MLExperiment.project_id)
            .subquery()
        )
        trainings = func.coalesce(busy.c.trainings, 0)
        row: MLExperiment | None = await self._session.scalar(
            select(MLExperiment)
            .outerjoin(busy, busy.c.project_id == MLExperiment.project_id)
            .where(MLExperiment.state == TrainingState.QUEUED.value, trainings < per_project)
            .order_by(trainings, MLExperiment.create_time, MLExperiment.id)
            .limit(1)
            .with_for_update(of=MLExperiment, skip_locked=True)
        )
        if row is None:
            return None
        row.state = TrainingState.RUNNING.value
        # Not before it was asked for, by whatever clock.
        row.start_time = row.start_time or max(time, row.create_time)
        row.update_time = time
        row.etag = uuid4().hex
        row.fencing += 1
        row.attempts += 1
        row.owner = lease.owner
        row.lease_until = in_seconds(lease.seconds)
        await self._session.flush()
        return experiment_of(row)

    async def renew(self, lease: Lease, experiment_ids: Collection[UUID]) -> Sequence[Held]:
        """One statement for all; nobody took over what still has this owner, however late this comes."""
        rows = await self._session.execute(
            update(MLExperiment)
            .where(MLExperiment.id.in_(experiment_ids), MLExperiment.owner == lease.owner, _IS_TAKEN)
            .values(lease_until=in_seconds(lease.seconds))
            .returning(MLExperiment.id, MLExperiment.fencing, MLExperiment.state)
        )
        return [Held(row.id, row.fencing, row.state == TrainingState.CANCELLING.value) for row in rows]

    async def has_abandoned(self, which: Abandoned, running: Collection[UUID]) -> bool:
        """Locks nothing."""
        found = select(MLExperiment.id).where(_IS_TAKEN, _abandoned(which), MLExperiment.id.not_in(running))
        return await self._session.scalar(found.limit(1)) is not None

    async def take_over(self, which: Abandoned, running: Collection[UUID]) -> domain.Experiment | None:
        """The number grows at once, so that whoever ran it writes nothing from here on."""
        row: MLExperiment | None = await self._session.scalar(
            select(MLExperiment)
            .where(_IS_TAKEN, _abandoned(which), MLExperiment.id.not_in(running))
            .order_by(MLExperiment.create_time, MLExperiment.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if row is None:
            return None
        row.fencing += 1
        row.owner = row.lease_until = None
        await self._session.flush()
        return experiment_of(row)


def _abandoned(which: Abandoned) -> ColumnElement[bool]:
    match which:
        case Abandoned.UNOWNED:
            return MLExperiment.owner.is_(None)
        case Abandoned.LAPSED:
            return or_(MLExperiment.owner.is_(None), MLExperiment.lease_until < in_seconds(0))
        case Abandoned.ALL:
            return true()
