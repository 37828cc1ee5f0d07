"""A deployment as it changes: whoever watches hears of each state that lasts long enough to be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from easyml_server.domain.deployments import Deployment
from easyml_server.domain.errors import InvalidInput, NotFound, NotSignedIn, Reason
from easyml_server.domain.users import Caller
from easyml_server.ports.store import Store
from easyml_server.services.auth import AuthService
from easyml_server.services.deployment_watch import DeploymentWatch

HEARTBEAT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing changed."""

    time: datetime


@dataclass(frozen=True, slots=True)
class Deleted:
    """There is no such deployment any more."""


class DeploymentChanges:
    """Watches of single deployments."""

    def __init__(self, store: Store, auth: AuthService, watch: DeploymentWatch, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._auth = auth
        self._watch = watch
        self._clock = clock

    async def watch(
        self, caller: Caller, deployment_id: UUID, after: int
    ) -> AsyncGenerator[Deployment | Heartbeat | Deleted, None]:
        """The deployment as it is whenever anything of it changes; ends when it is deleted."""
        with self._watch.watching(deployment_id) as changed:
            seen = after
            deployment = await self._get(caller, deployment_id)
            if after > deployment.sequence:
                raise InvalidInput.at(
                    "after_sequence", f"The newest sequence is {deployment.sequence}; continue at that or before."
                )
            while True:
                if deployment.sequence > seen:
                    seen = deployment.sequence
                    yield deployment
                if not await self._waited(changed):
                    if not await self._auth.still_valid(caller):
                        raise NotSignedIn("The session has ended; sign in again.", Reason.TOKEN_EXPIRED)
                    yield Heartbeat(self._clock())
                changed.clear()
                try:
                    deployment = await self._get(caller, deployment_id)
                except NotFound:
                    if await is_there(self._store, deployment_id):
                        # It is the caller who may not see it any more.
                        raise
                    yield Deleted()
                    return

    async def _waited(self, changed: asyncio.Event) -> bool:
        """Whether something changed before it was time for a sign of life."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await changed.wait()
        except TimeoutError:
            return False
        self._watch.check()
        return True

    async def _get(self, caller: Caller, deployment_id: UUID) -> Deployment:
        async with self._store.read() as work:
            return await work.deployments.get(deployment_id, caller)


async def is_there(store: Store, deployment_id: UUID) -> bool:
    """Whether there is such a deployment, whoever may see it."""
    async with store.read() as work:
        try:
            await work.deployments.load(deployment_id)
        except NotFound:
            return False
    return True
