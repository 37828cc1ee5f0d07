"""One deployer of several: each revision goes where its deployment says, and whoever has it answers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from easyml_server.domain.counters import ReplicaCounters, ReplicaLoad, RevisionCounters
from easyml_server.domain.deployment_logs import LogLine, by_time
from easyml_server.domain.deployments import DeploymentTarget, Replica
from easyml_server.domain.errors import WrongState
from easyml_server.ports.deployer import Deployer, LogReader, ServedRevision

T = TypeVar("T")


class Targets:
    """Fulfils `ports.deployer.Deployer`."""

    def __init__(self, deployers: Mapping[DeploymentTarget, Deployer]) -> None:
        self._of = deployers
        self._all = tuple(deployers.values())
        self._listening: dict[asyncio.Task[Collection[UUID]], Deployer] = {}

    def apply(self, revision: ServedRevision) -> None:
        """See Deployer."""
        deployer = self._of.get(revision.target)
        if deployer is None:
            raise WrongState(f"Revision {revision.number} is for {revision.target}, which this server does not have.")
        deployer.apply(revision)

    def remove(self, revision_id: UUID) -> None:
        """See Deployer."""
        for deployer in self._all:
            deployer.remove(revision_id)

    def retain(self, revision_ids: Collection[UUID]) -> None:
        """See Deployer."""
        for deployer in self._all:
            deployer.retain(revision_ids)

    def replicas(self, revision_id: UUID) -> Sequence[Replica]:
        """See Deployer."""
        return [replica for deployer in self._all for replica in deployer.replicas(revision_id)]

    def found(self, revision_id: UUID) -> Collection[UUID]:
        """See Deployer."""
        return [identity for deployer in self._all for identity in deployer.found(revision_id)]

    def reaches(self, replica: Replica) -> bool:
        """See Deployer."""
        return any(deployer.reaches(replica) for deployer in self._all)

    async def answers(self, deployment_id: UUID, endpoint: str) -> bool:
        """See Deployer."""
        return await self._all[0].answers(deployment_id, endpoint)

    async def counters(self) -> Sequence[RevisionCounters]:
        """See Deployer."""
        return await _together(deployer.counters() for deployer in self._all)

    async def counters_at(self, endpoints: Mapping[UUID, str]) -> Sequence[ReplicaCounters]:
        """See Deployer."""
        return await self._all[0].counters_at(endpoints)

    async def loads(self, deployment_id: UUID) -> Sequence[ReplicaLoad]:
        """See Deployer."""
        return await _together(deployer.loads(deployment_id) for deployer in self._all)

    def logs(self, deployment_id: UUID, tail_lines: int) -> LogReader:
        """See Deployer."""
        return _Logs([deployer.logs(deployment_id, tail_lines) for deployer in self._all])

    async def changed(self) -> Collection[UUID]:
        """See Deployer. Whoever has nothing to tell yet is listened to the next time."""
        for deployer in set(self._all) - set(self._listening.values()):
            self._listening[asyncio.create_task(_changes_of(deployer))] = deployer
        try:
            done, _ = await asyncio.wait(self._listening, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for task in self._listening:
                task.cancel()
            raise
        for task in done:
            del self._listening[task]
        return {identity for task in done for identity in task.result()}


async def _changes_of(deployer: Deployer) -> Collection[UUID]:
    return await deployer.changed()


async def _together(asked: Iterable[Awaitable[Sequence[T]]]) -> list[T]:
    """What all of them say."""
    return [each for said in await asyncio.gather(*asked) for each in said]


class _Logs:
    """Fulfils `ports.deployer.LogReader`."""

    def __init__(self, readers: Sequence[LogReader]) -> None:
        self._readers = readers

    async def read(self) -> Sequence[LogLine]:
        """See LogReader."""
        return by_time(await _together(reader.read() for reader in self._readers))

    def close(self) -> None:
        """See LogReader."""
        for reader in self._readers:
            reader.close()
