"""Two servers on one PostgreSQL and one folder of files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from easyml.v1 import training_service_pb2 as pb
from tests.servers import Client, ServerProcess, eventually, log_of

LEASE_SECONDS = "2"


@dataclass
class Replicas:
    """Servers that share everything but their data folders."""

    folder: Path
    url: str
    servers: list[ServerProcess] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def files(self) -> Path:
        """What they share."""
        return self.folder / "files"

    @property
    def settings(self) -> dict[str, str]:
        """Of each of them."""
        return {
            "DATABASE_URL": self.url,
            "MIGRATE_AT_START": "true",
            "ARTIFACT_URL": self.files.as_uri(),
            "SIGNING_KEY_FILE": str(a_key_file(self.folder)),
            "LEASE_SECONDS": LEASE_SECONDS,
            "OPEN_REGISTRATION": "true",
        }

    def start(self, **settings: str) -> ServerProcess:
        """One more."""
        data = self.folder / f"replica{next(self.numbers)}"
        server = ServerProcess(data, {**self.settings, **settings}).start()
        self.servers.append(server)
        return server

    def runner(self) -> ServerProcess:
        """The one that runs the one training there is."""
        return eventually(lambda: next((server for server in self.servers if self.trains(server)), None))

    def other(self, server: ServerProcess) -> ServerProcess:
        """Of two."""
        return next(each for each in self.servers if each is not server)

    def trains(self, server: ServerProcess) -> bool:
        """Whether one of its workers is at work in a folder of the shared ones."""
        if server.process is None:
            return False
        return any(works_in(process, self.files / "work") for process in server.family()[1:])

    def execute(self, statement: str, *values: Any) -> Sequence[Any]:
        """Ask the database itself."""

        async def fetch() -> Sequence[Any]:
            connection = await asyncpg.connect(self.url)
            try:
                return list(await connection.fetch(statement, *values))
            finally:
                await connection.close()

        return asyncio.run(fetch())


@contextmanager
def replicas(folder: Path, url: str, number: int = 2, **settings: str) -> Iterator[Replicas]:
    """Started one after the other, and stopped whatever happened to them."""
    found = Replicas(folder, url)
    try:
        for _ in range(number):
            found.start(**settings)
        yield found
    finally:
        for server in found.servers:
            if server.process is not None:
                psutil.Process(server.process.pid).resume()
                server.stop()


def client_of(server: ServerProcess) -> Client:
    """Its local owner, who is the same at all of them."""
    return Client(server.address, server.key)


def a_key_file(folder: Path) -> Path:
    """A key as `openssl genpkey -algorithm ed25519` makes it."""
    path = folder / "signing.pem"
    if not path.exists():
        encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path.write_bytes(Ed25519PrivateKey.generate().private_bytes(*encodings))
    return path


def works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False


def watch(client: Client, experiment_id: str, after: int = 0) -> Iterator[Any]:
    """The events, to the last."""
    request = pb.WatchTrainingRequest(experiment_id=experiment_id, after_sequence=after)
    for answer in client.trainings.WatchTraining(request):
        if answer.HasField("event"):
            yield answer.event


def said(server: ServerProcess, words: str, times: int = 1) -> None:
    """Wait until a server has written this to its log, so often."""
    eventually(lambda: log_of(server.data).read_text().count(words) >= times or None)
