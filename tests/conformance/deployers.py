"""Deployers to test, and hands on what they run: for this machine, processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import grpc

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.deployers.deployments import LocalDeployer, start_deployer
from easyml_server.deployers.limits import ModelServerLimits
from easyml_server.domain.deployments import Probes, Replica, ReplicaState
from easyml_server.domain.replica_records import find_living
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.deployer import Deployer, ServedRevision
from easyml_server.ports.model_servers import ServedModel
from easyml_server.security.tokens import Ed25519Signer
from tests.unit.serving.requests import a_row, rows

LIMITS = ModelServerLimits(
    max_predict_rows=100,
    max_predict_cells=100_000,
    max_arrow_bytes=1 << 20,
    max_message_bytes=1 << 20,
    max_predictions=16,
    default_deadline_seconds=60,
)
QUICK = Probes(startup_seconds=60, period_seconds=0.2, timeout_seconds=1, failure_threshold=2)
PATIENT = Probes(startup_seconds=120, period_seconds=1, timeout_seconds=20)
VERSION = UUID("00000000-0000-4000-8000-000000000001")
LONG_SECONDS = 120


@dataclass
class LocalMachine:
    """Where a local deployer works; what runs there outlives the deployer."""

    folder: Path
    orphan_seconds: float = 60

    def __post_init__(self) -> None:
        self._signer = Ed25519Signer(self.folder / "keys")

    @asynccontextmanager
    async def deployer(self) -> AsyncIterator[LocalDeployer]:
        """A deployer, as after a start of the server; what it started is left running."""
        async with start_deployer(
            self.folder / "deployments",
            self._signer.jwks_path,
            LIMITS,
            orphan_seconds=self.orphan_seconds,
            clock=lambda: datetime.now(UTC),
        ) as deployer:
            yield deployer

    @asynccontextmanager
    async def emptied(self) -> AsyncIterator[LocalDeployer]:
        """The same, and nothing is left."""
        async with self.deployer() as deployer:
            try:
                yield deployer
            finally:
                await deployer.stop()

    def send(self, replica: Replica, number: int) -> None:
        """A signal to what runs a replica."""
        os.kill(self._pid(replica), number)

    def runs(self, replica: Replica) -> bool:
        """Whether anything is left of a replica that ran."""
        return any(find_living(path) for path in self._records(replica))

    def left(self) -> list[str]:
        """What there is of anything that ran."""
        return [path.name for path in (self.folder / "deployments").iterdir() if path.name != "heartbeat"]

    def environment(self, replica: Replica) -> dict[str, str]:
        """The variables of what runs a replica."""
        lines = Path(f"/proc/{self._pid(replica)}/environ").read_bytes().decode().split("\0")
        return dict(line.split("=", 1) for line in lines if line)

    def token(self, deployment_id: UUID) -> str:
        return self._signer.sign_identity(uuid4(), str(deployment_id), datetime.now(UTC))

    def _records(self, replica: Replica) -> list[Path]:
        return list((self.folder / "deployments").glob(f"*/{replica.id}.json"))

    def _pid(self, replica: Replica) -> int:
        (found,) = (record for path in self._records(replica) if (record := find_living(path)))
        return found.pid


async def source_of(model: Path) -> StoredSource:
    """Where programs that do not share the folder would read a model, if it were on another machine."""
    manifest = await asyncio.to_thread((model / "manifest.json").read_bytes)
    return StoredSource(model.as_uri(), hashlib.sha256(manifest).hexdigest())


class Machine(Protocol):
    """Where a deployer works; what runs there outlives the deployer."""

    @property
    def folder(self) -> Path: ...

    def deployer(self) -> AbstractAsyncContextManager[Deployer]: ...

    def emptied(self) -> AbstractAsyncContextManager[Deployer]: ...

    def send(self, replica: Replica, number: int) -> None: ...

    def runs(self, replica: Replica) -> bool: ...

    def left(self) -> list[str]: ...

    def token(self, deployment_id: UUID) -> str: ...


async def gone(machine: Machine, replica: Replica) -> None:
    """Returns once nothing is left of a replica."""
    async with asyncio.timeout(LONG_SECONDS):
        while machine.runs(replica):  # noqa: ASYNC110 (nobody tells of what no deployer has any more)
            await asyncio.sleep(0.05)


def a_revision(model: Path, replicas: int = 1, number: int = 1, probes: Probes = PATIENT) -> ServedRevision:
    deployment_id = uuid4()
    names = (str(deployment_id), "species")
    served = ServedModel(VERSION, lambda: nullcontext(model), lambda: source_of(model))
    return ServedRevision(uuid4(), deployment_id, names, number, served, replicas, probes)


async def until(deployer: Deployer, revision: ServedRevision, holds: Callable[[list[Replica]], bool]) -> list[Replica]:
    """The replicas of a revision, once they are as they should be."""
    async with asyncio.timeout(LONG_SECONDS):
        while not holds(replicas := list(deployer.replicas(revision.id))):
            await deployer.changed()
    return replicas


async def ready(deployer: Deployer, revision: ServedRevision) -> list[Replica]:
    """Its replicas, once as many as are wanted are ready and there are no others."""

    def holds(replicas: list[Replica]) -> bool:
        return [replica.state for replica in replicas] == [ReplicaState.READY] * revision.replicas

    return await until(deployer, revision, holds)


async def ask(machine: Machine, revision: ServedRevision, replica: Replica, token: str = "") -> str:
    """The version that answers a prediction there."""
    message = rows(a_row())
    message.model_version_id = str(VERSION)
    async with grpc.aio.insecure_channel(replica.endpoint) as channel:
        call = channel.unary_unary("/easyml.v1.PredictionService/Predict")
        authorization = f"Bearer {token or machine.token(revision.deployment_id)}"
        raw = await call(message.SerializeToString(), metadata=(("authorization", authorization),), timeout=30)
    return pb.PredictResponse.FromString(raw).model_version_id


@asynccontextmanager
async def an_open_call(machine: Machine, revision: ServedRevision, replica: Replica) -> AsyncIterator[None]:
    """A stream whose first request was answered, and that goes on."""
    message = pb.StreamPredictRequest(model_version_id=str(VERSION), rows=rows(a_row()).rows)
    authorization = f"Bearer {machine.token(revision.deployment_id)}"
    async with grpc.aio.insecure_channel(replica.endpoint) as channel:
        stream = channel.stream_stream("/easyml.v1.PredictionService/StreamPredict")
        call = stream(metadata=(("authorization", authorization),))
        await call.write(message.SerializeToString())
        await call.read()
        yield
        await call.done_writing()


KILL, STOP, CONTINUE = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
