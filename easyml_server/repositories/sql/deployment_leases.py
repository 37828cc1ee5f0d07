"""Which server looks after which deployment, under leases by the database's clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from easyml_server.domain.leases import HeldDeployment, Lease
from easyml_server.repositories.sql.base import locked
from easyml_server.repositories.sql.deployments import AT_WORK, ModelDeployment
from easyml_server.repositories.sql.queue import in_seconds

_IS_AT_WORK = ModelDeployment.state.in_(AT_WORK)


class SqlDeploymentLeases:
    """Fulfils `ports.store.DeploymentLeases`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def waiting(self, *, lapsed: bool) -> Sequence[UUID]:
        """Locks nothing."""
        free = _is_free(lapsed=lapsed)
        return (await self._session.scalars(select(ModelDeployment.id).where(_IS_AT_WORK, free))).all()

    async def take(self, deployment_id: UUID, lease: Lease, address: str, *, lapsed: bool = False) -> int | None:
        """One statement, so that of several servers one gets it."""
        taken = (
            update(ModelDeployment)
            .where(ModelDeployment.id == deployment_id, _IS_AT_WORK, _is_free(lapsed=lapsed))
            .values(
                owner=lease.owner,
                owner_address=address,
                lease_until=in_seconds(lease.seconds),
                fencing=ModelDeployment.fencing + 1,
            )
            .returning(ModelDeployment.fencing)
        )
        fencing: int | None = await self._session.scalar(taken)
        return fencing

    async def renew(self, lease: Lease, deployment_ids: Collection[UUID]) -> Sequence[HeldDeployment]:
        """One statement for all; nobody took what still has this owner, however late this comes."""
        rows = await self._session.execute(
            update(ModelDeployment)
            .where(ModelDeployment.id.in_(deployment_ids), ModelDeployment.owner == lease.owner)
            .values(lease_until=in_seconds(lease.seconds))
            .returning(ModelDeployment.id, ModelDeployment.fencing)
        )
        return [HeldDeployment(row.id, row.fencing) for row in rows]

    async def holds(self, lease: Lease, held: HeldDeployment) -> bool:
        """The row is locked, where this unit of work writes."""
        statement = select(ModelDeployment).where(ModelDeployment.id == held.deployment_id)
        row: ModelDeployment | None = await self._session.scalar(locked(self._session, statement, ModelDeployment))
        return row is not None and (row.owner, row.fencing) == (lease.owner, held.fencing)

    async def address(self, deployment_id: UUID) -> str:
        """Of the one that took it last."""
        statement = select(ModelDeployment.owner_address).where(ModelDeployment.id == deployment_id)
        return await self._session.scalar(statement) or ""

    async def release(self, lease: Lease, deployment_id: UUID) -> bool:
        """Somebody may have wanted it again meanwhile."""
        released = (
            update(ModelDeployment)
            .where(ModelDeployment.id == deployment_id, ModelDeployment.owner == lease.owner, ~_IS_AT_WORK)
            .values(owner=None, lease_until=None)
            .returning(ModelDeployment.id)
        )
        return await self._session.scalar(released) is not None

    async def release_all(self, lease: Lease) -> None:
        """The next one looks at them at once."""
        held = update(ModelDeployment).where(_IS_AT_WORK, ModelDeployment.owner == lease.owner)
        await self._session.execute(held.values(owner=None, lease_until=None))


def _is_free(*, lapsed: bool) -> ColumnElement[bool]:
    unowned = ModelDeployment.owner.is_(None)
    return or_(unowned, ModelDeployment.lease_until < in_seconds(0)) if lapsed else unowned
