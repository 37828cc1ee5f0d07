"""The logs of a deployment's replicas: their last lines, and what is written from then on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from easyml_server.domain.deployment_logs import LogLine
from easyml_server.domain.deployments import DeploymentState
from easyml_server.domain.errors import NotFound, NotSignedIn, Reason, WrongState
from easyml_server.domain.users import Caller
from easyml_server.ports.deployer import Deployer
from easyml_server.ports.store import Store
from easyml_server.services.auth import AuthService
from easyml_server.services.deployment_changes import HEARTBEAT_SECONDS, Deleted, Heartbeat, is_there
from easyml_server.services.deployment_watch import DeploymentWatch
from easyml_server.services.tenure import Tenure

LOOK_SECONDS: Final = 0.5
"""How often it is looked for new lines."""
LINES_TOGETHER: Final = 100
"""Of one message; the longest take 24 KiB each, where every byte stands for a letter that cannot be read."""


class DeploymentLogs:
    """Reads logs for as long as somebody listens: who listens slowly is told how many lines were left out."""

    def __init__(
        self,
        store: Store,
        auth: AuthService,
        deployer: Deployer,
        watch: DeploymentWatch,
        clock: Callable[[], datetime],
        tenure: Tenure,
    ) -> None:
        self._tenure = tenure
        self._store = store
        self._auth = auth
        self._deployer = deployer
        self._watch = watch
        self._clock = clock

    async def watch(
        self, caller: Caller, deployment_id: UUID, tail_lines: int, *, follow: bool
    ) -> AsyncGenerator[Sequence[LogLine] | Heartbeat | Deleted, None]:
        """The last lines of each replica, and then new ones until the deployment is deleted, if they are wanted."""
        await self._check_access(caller, deployment_id)
        with (
            self._watch.watching(deployment_id) as changed,
            closing(self._deployer.logs(deployment_id, tail_lines)) as reader,
        ):
            for lines in _messages(await reader.read()):
                yield lines
            looked = asyncio.get_running_loop().time()
            while follow:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await changed.wait()
                self._watch.check()
                due = asyncio.get_running_loop().time() - looked >= HEARTBEAT_SECONDS
                there = not (due or changed.is_set()) or await self._is_there(caller, deployment_id)
                changed.clear()
                for lines in _messages(await reader.read()):
                    yield lines
                if not there:
                    yield Deleted()
                    return
                if due:
                    looked = asyncio.get_running_loop().time()
                    yield Heartbeat(self._clock())

    async def _is_there(self, caller: Caller, deployment_id: UUID) -> bool:
        """False if it was deleted; raises if it is the caller who may not see it any more."""
        if not await self._auth.still_valid(caller):
            raise NotSignedIn("The session has ended; sign in again.", Reason.TOKEN_EXPIRED)
        try:
            await self._check_access(caller, deployment_id)
        except NotFound:
            if await is_there(self._store, deployment_id):
                raise
            return False
        return True

    async def _check_access(self, caller: Caller, deployment_id: UUID) -> None:
        async with self._store.read() as work:
            deployment = await work.deployments.get(deployment_id, caller)
            if self._tenure.holds(deployment_id) or deployment.state is DeploymentState.STOPPED:
                return
            address = await work.deployment_leases.address(deployment_id)
        # Logs are files beside the replicas; there are none yet where nobody has taken it.
        if address:
            raise WrongState(
                f"The logs of this deployment lie with another server; ask {address} for them.",
                metadata={"server": address},
            )


def _messages(lines: Sequence[LogLine]) -> Iterator[Sequence[LogLine]]:
    for start in range(0, len(lines), LINES_TOGETHER):
        yield lines[start : start + LINES_TOGETHER]
