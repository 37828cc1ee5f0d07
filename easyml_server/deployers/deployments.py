"""Deployments on this machine: replicas are processes on loopback ports, which outlive the server for a while."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from easyml_server.deployers.limits import ModelServerLimits
from easyml_server.deployers.log_files import LogFolder
from easyml_server.deployers.log_readers import LogReaders
from easyml_server.deployers.machines import this_machine
from easyml_server.deployers.replica_counters import counters_at
from easyml_server.deployers.replica_process import ReplicaProcess, answers, find_process
from easyml_server.deployers.supervisor import GRACE_SECONDS, Launch, Supervisor
from easyml_server.domain.counters import ReplicaCounters, ReplicaLoad, RevisionCounters
from easyml_server.domain.deployments import Replica, ReplicaState
from easyml_server.ports.deployer import ServedRevision

HEARTBEATS_PER_PATIENCE: Final = 20
ANSWER_SECONDS: Final = 1.0


class LocalDeployer:
    """Fulfils `ports.deployer.Deployer`."""

    def __init__(self, launch: Launch) -> None:
        """`launch.folder` has a folder for each revision; processes that are found there are adopted by `apply`."""
        self._launch = launch
        self._served: dict[UUID, _ServedRevision] = {}
        self._found = _find(launch.folder)
        # What those had counted that were told to end, until somebody asks.
        self._gone: list[RevisionCounters] = []
        self._changed: set[UUID] = set()
        self._waking = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._grace_seconds = GRACE_SECONDS

    def apply(self, revision: ServedRevision) -> None:
        """See Deployer."""
        served = self._served.get(revision.id)
        if served is None:
            served = self._served[revision.id] = _ServedRevision(revision, self._launch, self._tell)
            for identity, process in self._found.pop(revision.id, {}).items():
                served.add(identity, process)
        self._scale(served, revision.replicas)

    def remove(self, revision_id: UUID) -> None:
        """See Deployer."""
        served = self._served.get(revision_id)
        if served is not None:
            self._scale(served, 0)
        for process in self._found.pop(revision_id, {}).values():
            self._in_background(process.end(self._grace_seconds))

    def retain(self, revision_ids: Collection[UUID]) -> None:
        """See Deployer."""
        for revision_id in (self._served.keys() | self._found.keys()) - set(revision_ids):
            self.remove(revision_id)

    def replicas(self, revision_id: UUID) -> Sequence[Replica]:
        """See Deployer."""
        served = self._served.get(revision_id)
        return () if served is None else served.replicas()

    def found(self, revision_id: UUID) -> Collection[UUID]:
        """See Deployer."""
        return self._found.get(revision_id, {}).keys()

    def reaches(self, replica: Replica) -> bool:
        """See Deployer."""
        return replica.machine in ("", self._launch.machine)

    async def answers(self, deployment_id: UUID, endpoint: str) -> bool:
        """See Deployer."""
        return await answers(endpoint, str(deployment_id), ANSWER_SECONDS)

    async def counters(self) -> Sequence[RevisionCounters]:
        """See Deployer."""
        gone, self._gone = self._gone, []
        return [*gone, *await asyncio.gather(*(served.counters() for served in self._served.values()))]

    async def counters_at(self, endpoints: Mapping[UUID, str]) -> Sequence[ReplicaCounters]:
        """See Deployer."""
        return await counters_at(endpoints)

    async def loads(self, deployment_id: UUID) -> Sequence[ReplicaLoad]:
        """See Deployer."""
        revisions = [served for served in self._served.values() if served.deployment_id == deployment_id]
        return [load for loads in await asyncio.gather(*(served.loads() for served in revisions)) for load in loads]

    def logs(self, deployment_id: UUID, tail_lines: int) -> LogReaders:
        """See Deployer."""

        def folders() -> Sequence[LogFolder]:
            return [served.logs for served in self._served.values() if served.deployment_id == deployment_id]

        return LogReaders(folders, tail_lines)

    async def changed(self) -> Collection[UUID]:
        """See Deployer."""
        await self._waking.wait()
        self._waking.clear()
        changed, self._changed = self._changed, set()
        return changed

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End all replicas; calls in flight have so long."""
        self._grace_seconds = grace_seconds
        self.retain(())
        await self._settled()

    async def leave(self) -> None:
        """Let replicas run; those that are ending are waited for."""
        await asyncio.gather(*(served.leave() for served in self._served.values()))
        found = [process for processes in self._found.values() for process in processes.values()]
        await asyncio.gather(*(process.leave() for process in found))
        await self._settled()

    def _scale(self, served: _ServedRevision, replicas: int) -> None:
        for supervisor in served.scale(replicas):
            self._in_background(self._end(served, supervisor))

    async def _end(self, served: _ServedRevision, supervisor: Supervisor) -> None:
        await supervisor.retire()
        if last := await supervisor.counters():
            self._gone.append(served.told([replace(last, resident_bytes=0)]))
        await supervisor.stop(self._grace_seconds)
        if served.is_empty_without(supervisor):
            self._served.pop(served.id, None)
            shutil.rmtree(served.folder, ignore_errors=True)
        self._tell(served.deployment_id)

    def _tell(self, deployment_id: UUID) -> None:
        self._changed.add(deployment_id)
        self._waking.set()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _settled(self) -> None:
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)


class _ServedRevision:
    """The replicas of one revision: those that are wanted, and those that are ending."""

    def __init__(self, revision: ServedRevision, launch: Launch, tell: Callable[[UUID], None]) -> None:
        self.id = revision.id
        self.deployment_id = revision.deployment_id
        self.folder = launch.folder / str(revision.id)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs = LogFolder(revision.number, self.folder)
        self._revision = revision
        self._launch = replace(launch, folder=self.folder)
        self._tell = tell
        self._running: list[Supervisor] = []
        self._ending: list[Supervisor] = []

    def add(self, identity: UUID, process: ReplicaProcess | None = None) -> None:
        """A further replica, be it a process that runs already."""
        supervisor = Supervisor(
            identity, self._revision, self._launch, changed=lambda: self._tell(self._revision.deployment_id)
        )
        self._running.append(supervisor)
        supervisor.begin(process)

    def scale(self, replicas: int) -> Sequence[Supervisor]:
        """Have so many; those that are to end, first the ones that are not ready, then the newest."""
        while len(self._running) < replicas:
            self.add(uuid4())
        self._running.sort(key=lambda supervisor: supervisor.replica.state is ReplicaState.READY, reverse=True)
        surplus = self._running[replicas:]
        self._running = self._running[:replicas]
        self._ending.extend(surplus)
        return surplus

    def is_empty_without(self, ended: Supervisor) -> bool:
        """Whether there is no replica any more, now that this one has ended."""
        self._ending.remove(ended)
        return not self._running and not self._ending

    def replicas(self) -> Sequence[Replica]:
        """All of them."""
        return tuple(supervisor.replica for supervisor in (*self._running, *self._ending))

    async def counters(self) -> RevisionCounters:
        """What they counted, those that are ending too: they still answer."""
        asked = await asyncio.gather(*(supervisor.counters() for supervisor in (*self._running, *self._ending)))
        return self.told([counters for counters in asked if counters is not None])

    async def loads(self) -> Sequence[ReplicaLoad]:
        """How busy they are, those that are ending too."""
        asked = await asyncio.gather(*(supervisor.load() for supervisor in (*self._running, *self._ending)))
        return [load for load in asked if load is not None]

    def told(self, counters: Sequence[ReplicaCounters]) -> RevisionCounters:
        """What some of its replicas counted."""
        return RevisionCounters(self.id, self.deployment_id, self._revision.number, counters)

    async def leave(self) -> None:
        """Let those run that are not ending."""
        await asyncio.gather(*(supervisor.leave() for supervisor in self._running))


@asynccontextmanager
async def start_deployer(
    folder: Path,
    jwks_path: Path,
    limits: ModelServerLimits,
    *,
    orphan_seconds: float,
    clock: Callable[[], datetime],
) -> AsyncIterator[LocalDeployer]:
    """A deployer whose processes end by themselves once nobody has come back to this folder for `orphan_seconds`.

    At the end they are left running; `stop` ends them before.
    """
    heartbeat = _prepare(folder)
    arguments = [
        f"--jwks={jwks_path}",
        "--metrics-port=0",
        f"--orphan-seconds={orphan_seconds}",
        *limits.arguments(),
    ]
    deployer = LocalDeployer(Launch(arguments, folder, heartbeat, clock, this_machine()))
    beating = asyncio.create_task(_beat(heartbeat, orphan_seconds / HEARTBEATS_PER_PATIENCE), name="heartbeat")
    try:
        yield deployer
    finally:
        beating.cancel()
        await deployer.leave()


def _prepare(folder: Path) -> Path:
    """Make the folder; its heartbeat."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    heartbeat = folder / "heartbeat"
    heartbeat.touch()
    return heartbeat


async def _beat(heartbeat: Path, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        os.utime(heartbeat)


def _find(folder: Path) -> dict[UUID, dict[UUID, ReplicaProcess]]:
    """The processes that live, by revision and replica; folders of which none lives are removed."""
    found: dict[UUID, dict[UUID, ReplicaProcess]] = {}
    for revision in (path for path in folder.iterdir() if path.is_dir()):
        living = {
            UUID(record.stem): process
            for record in revision.glob("*.json")
            if (process := find_process(record)) is not None
        }
        if living:
            found[UUID(revision.name)] = living
        else:
            shutil.rmtree(revision, ignore_errors=True)
    return found
