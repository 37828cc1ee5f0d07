"""A server of MongoDB's wire protocol for the tests: one a session, a database a test.

EASYML_TEST_MONGODB_URL names a real MongoDB instead, whose user may make databases; or it is `skip`, for those who do
without, which CI is not allowed to. `make mongodb` installs what is used otherwise: SecantusDB, in an environment of
its own outside this checkout, since it is under the GPL; it runs as a process of its own and is never imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from tests.proxy import Proxy
from tests.servers import CACHE, SHIM, eventually, free_port

URL_VARIABLE = "EASYML_TEST_MONGODB_URL"
START_SECONDS = 60.0
STOP_SECONDS = 5.0


@dataclass
class MongoServer:
    """A server; `url` is without a database. One that was started here can be killed and started again."""

    url: str
    command: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def database_url(self, name: str) -> str:
        """The URL of a database."""
        head, question, query = self.url.partition("?")
        return f"{head.rstrip('/')}/{name}{question}{query}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = parse_uri(self.url)["nodelist"][0]
        return str(host), int(port)

    def through(self, proxy: Proxy) -> MongoServer:
        """The same by way of a proxy; direct, since a replica set names its own addresses."""
        host, port = self.address
        url = self.url.replace(f"{host}:{port}", f"127.0.0.1:{proxy.port}", 1)
        return MongoServer(f"{url}{'&' if '?' in url else '?'}directConnection=true")

    def new_name(self) -> str:
        """A database that nobody has; it is made when it is written to."""
        return f"test_{os.getpid()}_{next(self.numbers)}"

    @contextmanager
    def client(self) -> Iterator[pymongo.MongoClient[Any]]:
        """A connection of the test's own."""
        with pymongo.MongoClient[Any](
            self.url, serverSelectionTimeoutMS=1000, tz_aware=True, uuidRepresentation="standard"
        ) as client:
            yield client

    def drop(self, name: str) -> None:
        """Remove a database."""
        with self.client() as client:
            client.drop_database(name)

    def start(self) -> MongoServer:
        """Returns when it answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", SHIM, str(os.getpid()), *self.command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/")},
            # Ctrl-C is told to this program alone, which stops it after whoever needs it.
            start_new_session=True,
        )
        eventually(self._answers, START_SECONDS)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """It does not always hear the first SIGTERM."""
        assert self.process is not None
        for _ in range(2):
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return
        self.kill()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "it ended"
        try:
            with self.client() as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True


@contextmanager
def mongodb(storage: Path, *options: str, mortal: bool = False) -> Iterator[MongoServer]:
    """A server on a folder; `mortal` ones, and those with options, are always started here."""
    named = os.environ.get(URL_VARIABLE)
    if named == "skip":
        assert not os.environ.get("CI"), "CI runs the tests of MongoDB."
        pytest.skip(f"{URL_VARIABLE}=skip")
    if named and not mortal and not options:
        yield MongoServer(named)
        return
    server = local_server(storage, *options).start()
    try:
        yield server
    finally:
        server.stop()


def local_server(storage: Path, *options: str) -> MongoServer:
    """One that was not started yet."""
    program = Path(os.environ.get("SECANTUSD") or CACHE / "secantusdb-0.7.0b3" / "bin" / "secantusd-py")
    assert program.exists(), f"There is no MongoDB for the tests: run `make mongodb`, or set {URL_VARIABLE}."
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(storage)]
    command = [str(program), *where, "--cache-size", "128M", "--log-level", "WARNING", *options]
    return MongoServer(f"mongodb://127.0.0.1:{port}/", command)
