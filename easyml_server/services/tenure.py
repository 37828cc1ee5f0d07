"""Which deployments this server looks after: all where it is alone, and else those that it holds under a lease.

Who was paused for longer than a lease has lost its deployments, and learns of it before it stores anything of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from time import monotonic
from typing import Final, Protocol
from uuid import UUID

import structlog

from easyml_server.domain.errors import EasyMLError, Stale
from easyml_server.domain.leases import HeldDeployment, Lease
from easyml_server.ports.store import Store, UnitOfWork

POLL_SECONDS: Final = 2.0
BEATS_PER_LEASE: Final = 3

log = structlog.get_logger(__name__)


class Tenure(Protocol):
    """What a server may do with a deployment."""

    @property
    def shared(self) -> bool:
        """Whether there may be other servers."""
        ...

    def holds(self, deployment_id: UUID) -> bool:
        """Whether it was this server that looked after it when it was last told."""
        ...

    async def take(self, deployment_id: UUID) -> bool:
        """Whether this server looks after it; from now on, if no other does."""
        ...

    async def check(self, work: UnitOfWork, deployment_id: UUID) -> None:
        """In a unit of work that writes something of it: raise Stale if another server looks after it by now."""
        ...

    async def let_go(self, deployment_id: UUID) -> None:
        """It is stopped: whoever is asked next may take it."""
        ...


class Sole:
    """The only server: it looks after everything."""

    shared: Final = False

    def holds(self, _deployment_id: UUID) -> bool:
        """See Tenure."""
        return True

    async def take(self, _deployment_id: UUID) -> bool:
        """See Tenure."""
        return True

    async def check(self, work: UnitOfWork, deployment_id: UUID) -> None:
        """See Tenure."""

    async def let_go(self, _deployment_id: UUID) -> None:
        """See Tenure."""


class Leased:
    """One of several servers.

    While the database is away nobody can renew, and all leases end. So leases count as lapsed only for a server that
    has been in touch with the database for as long as a lease lasts, as with trainings (`services.takeover`).
    """

    shared: Final = True

    def __init__(self, store: Store, lease: Lease, seconds: Callable[[], float] = monotonic) -> None:
        self.address = ""
        self._store = store
        self._lease = lease
        self._seconds = seconds
        # Fencing numbers of those that were held when the database last said so.
        self._held: dict[UUID, int] = {}
        self._in_touch_since: float | None = None

    def holds(self, deployment_id: UUID) -> bool:
        """See Tenure."""
        return deployment_id in self._held

    async def take(self, deployment_id: UUID) -> bool:
        """See Tenure."""
        return deployment_id in self._held or await self._take(deployment_id, lapsed=False)

    async def check(self, work: UnitOfWork, deployment_id: UUID) -> None:
        """See Tenure."""
        fencing = self._held.get(deployment_id)
        if fencing is None or not await work.deployment_leases.holds(
            self._lease, HeldDeployment(deployment_id, fencing)
        ):
            self._held.pop(deployment_id, None)
            raise Stale("Another server looks after this deployment by now.")

    async def let_go(self, deployment_id: UUID) -> None:
        """See Tenure."""
        async with self._store.begin() as work:
            released = await work.deployment_leases.release(self._lease, deployment_id)
            await work.commit()
        if released:
            self._held.pop(deployment_id, None)

    async def let_all_go(self) -> None:
        """This server stops; the others need not wait for the end of its leases."""
        self._held.clear()
        async with self._store.begin() as work:
            await work.deployment_leases.release_all(self._lease)
            await work.commit()

    async def keep(self, changed: Callable[[UUID], None]) -> None:
        """Renew in time, and take what nobody holds, until cancelled; tells of each that was taken or lost."""
        while True:
            try:
                for deployment_id in [*await self.renew(), *await self.take_up()]:
                    changed(deployment_id)
            except EasyMLError as error:
                self._in_touch_since = None
                log.warning("deployment_leases_not_renewed", error=error.message)
            await asyncio.sleep(min(POLL_SECONDS, self._lease.seconds / BEATS_PER_LEASE))

    async def renew(self) -> Collection[UUID]:
        """Those that were lost."""
        held = dict(self._held)
        if not held:
            return ()
        async with self._store.begin() as work:
            renewed = await work.deployment_leases.renew(self._lease, held.keys())
            await work.commit()
        kept = {each.deployment_id for each in renewed if held[each.deployment_id] == each.fencing}
        for deployment_id in held.keys() - kept:
            self._held.pop(deployment_id, None)
            log.warning("deployment_lost", deployment_id=str(deployment_id))
        return held.keys() - kept

    async def take_up(self) -> Collection[UUID]:
        """Those that were taken: of nobody, and of servers that did not renew, if that can be told yet."""
        now = self._seconds()
        try:
            async with self._store.read() as work:
                # Asked in any case: only an answer tells that the database is there.
                waiting = await work.deployment_leases.waiting(lapsed=True)
        except EasyMLError:
            self._in_touch_since = None
            raise
        if self._in_touch_since is None:
            self._in_touch_since = now
        lapsed = now - self._in_touch_since >= self._lease.seconds
        return [each for each in waiting if each not in self._held and await self._take(each, lapsed=lapsed)]

    async def _take(self, deployment_id: UUID, *, lapsed: bool) -> bool:
        async with self._store.begin() as work:
            taken = await work.deployment_leases.take(deployment_id, self._lease, self.address, lapsed=lapsed)
            await work.commit()
        if taken is None:
            return False
        self._held[deployment_id] = taken
        log.info("deployment_taken", deployment_id=str(deployment_id))
        return True
