"""What `make full` runs until Ctrl-C: PostgreSQL, MongoDB, S3, MLflow, a Dask cluster, and two EasyML servers.

For developers: the servers below are those of the tests. What is stored stays in one folder, and the next `make full`
goes on with it. The S3 server keeps everything in memory, so its bucket is written down at the end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
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
from tests.s3 import S3Server, s3

DATABASE = "easyml"
BUCKET = "easyml"
SERVERS = ("one", "two")
STOP_SECONDS = 40.0


def main() -> int:
    home = os.environ.get("XDG_DATA_HOME")
    root = (Path(home) if home else Path.home() / ".local" / "share") / "easyml-full"
    if (root / "files").exists():
        say(f"{root} is of an earlier release, whose files were in a folder: move it away, and run this again.")
        return 2
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as stack:
        say("Starting PostgreSQL, MongoDB, S3, MLflow and Dask ...")
        postgres = stack.enter_context(postgresql(root / "postgresql", durable=True))
        mongo = stack.enter_context(mongodb(root / "mongodb", mortal=True))
        store = stack.enter_context(bucket(root / "bucket"))
        mlflow = stack.enter_context(mlflow_server(root / "mlflow"))
        dask = stack.enter_context(dask_cluster(root / "dask"))
        dask.add_worker(nanny=True)
        asyncio.run(make_database(postgres))
        settings = {
            "EASYML_DATABASE_URL": postgres.database_url(DATABASE),
            "EASYML_MONGODB_URL": mongo.database_url(DATABASE),
            "EASYML_MLFLOW_TRACKING_URI": mlflow.uri,
            "EASYML_MLFLOW_REGISTER_MODELS": "true",
            "EASYML_ARTIFACT_URL": f"s3://{BUCKET}/easyml",
            **store.environment(),
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


@contextmanager
def bucket(folder: Path) -> Iterator[S3Server]:
    """An S3 server with what the folder has from last time; what it has at the end is there for the next."""
    with s3() as server:
        files = server.files()
        files.mkdir(BUCKET)
        for path in (each for each in folder.rglob("*") if each.is_file()):
            files.put_file(str(path), f"{BUCKET}/{path.relative_to(folder)}")
        yield server
        written = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(written, ignore_errors=True)
        for name in files.find(BUCKET):
            path = written / name.removeprefix(f"{BUCKET}/")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.get_file(name, str(path))
        shutil.rmtree(folder, ignore_errors=True)
        written.rename(folder)


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
    exports = "".join(f"  export {name}={value}\n" for name, value in settings.items() if name.startswith("AWS_"))
    return f"""
Two servers that answer as one:   {"   ".join(addresses)}
PostgreSQL                        {settings["EASYML_DATABASE_URL"]}
MongoDB                           {settings["EASYML_MONGODB_URL"]}
MLflow                            {settings["EASYML_MLFLOW_TRACKING_URI"]}
Dask                              {settings["EASYML_DASK_ADDRESS"]}
Files                             {settings["EASYML_ARTIFACT_URL"]} at {settings["AWS_ENDPOINT_URL"]}

In another terminal:
  export EASYML_TARGET=ipv4:{",".join(addresses)}
  export EASYML_TOKEN=$(cat {root / SERVERS[0] / "owner.key"})
  easyml projects create my-project

For plain DVC, and other clients of S3:
{exports}
Ctrl-C stops everything; what is stored stays in {root}.
The S3 server keeps its bucket in memory until then: killed in another way, what it got since the start is lost."""


if __name__ == "__main__":
    sys.exit(main())
