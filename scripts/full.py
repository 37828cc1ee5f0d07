"""What `make full` runs: PostgreSQL, a MongoDB wire server, MLflow, a Dask cluster, two EasyML servers, until Ctrl-C.

For developers: the servers below are those of the tests. What is stored stays in one folder, and the next `make full`
goes on with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg

from tests.dask import dask_cluster
from tests.mlflow import mlflow_server
from tests.mongodb import mongodb
from tests.postgresql import PostgresServer, postgresql

DATABASE = "easyml"
SERVERS = ("one", "two")
STOP_SECONDS = 40.0


def main() -> int:
    home = os.environ.get("XDG_DATA_HOME")
    root = (Path(home) if home else Path.home() / ".local" / "share") / "easyml-full"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as stack:
        say("Starting PostgreSQL, MongoDB, MLflow and Dask ...")
        postgres = stack.enter_context(postgresql(root / "postgresql", durable=True))
        mongo = stack.enter_context(mongodb(root / "mongodb", mortal=True))
        mlflow = stack.enter_context(mlflow_server(root / "mlflow"))
        dask = stack.enter_context(dask_cluster(root / "dask"))
        dask.add_worker(nanny=True)
        asyncio.run(make_database(postgres))
        settings = {
            "EASYML_DATABASE_URL": postgres.database_url(DATABASE),
            "EASYML_MONGODB_URL": mongo.database_url(DATABASE),
            "EASYML_MLFLOW_TRACKING_URI": mlflow.uri,
            "EASYML_MLFLOW_REGISTER_MODELS": "true",
            "EASYML_ARTIFACT_URL": (root / "files").as_uri(),
            "EASYML_DASK_ADDRESS": dask.address,
            "EASYML_SIGNING_KEY_FILE": str(signing_key(root / "signing.pem")),
            "EASYML_LOG_LEVEL": os.environ.get("EASYML_LOG_LEVEL", "warning"),
        }
        migrate(root, settings)
        addresses = [stack.enter_context(serving(root / name, settings)) for name in SERVERS]
        say(directions(root, settings, addresses))
        stopping.wait()
        say("Stopping ...")
    return 0


def say(text: str) -> None:
    print(text, flush=True)


async def make_database(postgres: PostgresServer) -> None:
    """One that is there already is gone on with."""
    connection = await asyncpg.connect(postgres.database_url("postgres"))
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()


def signing_key(path: Path) -> Path:
    """The key that both sign tokens with."""
    if not path.exists():
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
        path.chmod(0o600)
    return path


def migrate(root: Path, settings: dict[str, str]) -> None:
    command = [sys.executable, "-m", "easyml_server", "migrate", "--data-dir", str(root / SERVERS[0])]
    subprocess.run(command, env={**os.environ, **settings}, check=True)


@contextmanager
def serving(folder: Path, settings: dict[str, str]) -> Iterator[str]:
    """A server for a while; its address. In a session of its own, so that Ctrl-C is told to this program alone."""
    command = [sys.executable, "-m", "easyml_server", "serve", "--port", "0", "--data-dir", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}, start_new_session=True
    ) as server:
        try:
            ready = server.stdout.readline() if server.stdout else ""
            if not ready.startswith("READY "):
                raise SystemExit(f"The server on {folder} did not start.")
            yield ready.split()[1]
        finally:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def directions(root: Path, settings: dict[str, str], addresses: list[str]) -> str:
    return f"""
Two servers that answer as one:   {"   ".join(addresses)}
PostgreSQL                        {settings["EASYML_DATABASE_URL"]}
MongoDB                           {settings["EASYML_MONGODB_URL"]}
MLflow                            {settings["EASYML_MLFLOW_TRACKING_URI"]}
Dask                              {settings["EASYML_DASK_ADDRESS"]}
Files                             {root / "files"}

In another terminal:
  export EASYML_TARGET=ipv4:{",".join(addresses)}
  export EASYML_TOKEN=$(cat {root / SERVERS[0] / "owner.key"})
  easyml projects create my-project

Ctrl-C stops everything; what is stored stays in {root}."""


if __name__ == "__main__":
    sys.exit(main())
