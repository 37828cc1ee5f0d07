"""What belongs to a database is looked for: by a server when it starts, and by `doctor` more closely."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from easyml.v1 import dataset_service_pb2
from tests.builders import a_project_of, upload
from tests.integration.replicas import client_of
from tests.integration.test_shared_files import refused_by
from tests.postgresql import PostgresServer, postgresql
from tests.servers import ServerProcess, environment, refusal_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def told(data: Path, **settings: str) -> dict[str, dict[str, Any]]:
    """What `doctor` finds, by what it looked at."""
    command = [sys.executable, "-m", "easyml_server", "doctor", "--json", "--data-dir", str(data)]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment({"PORT": "0", **settings})
    )
    assert answer.stderr == ""
    return {each["what"]: each for each in json.loads(answer.stdout)}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


def stored(server: ServerProcess) -> str:
    """The id of a dataset with a file."""
    with client_of(server) as client:
        return upload(client, a_project_of(client)).id


def refused_download(server: ServerProcess, dataset_id: str) -> tuple[str, str]:
    request = dataset_service_pb2.DownloadDatasetRequest(dataset_id=dataset_id)
    # Not `refusal`: the contract names two codes for this reason, of an upload and of what was stored.
    with client_of(server) as client, pytest.raises(grpc.RpcError) as error:
        list(client.datasets.DownloadDataset(request))
    said = refusal_of(error.value)
    assert "restore them there, or delete this version" in said.message
    return said.short


def test_a_database_that_was_moved_without_its_files_is_refused_until_somebody_says_they_are_lost(
    tmp_path: Path,
) -> None:
    with serving(tmp_path / "old") as server:
        dataset_id = stored(server)
    assert told(tmp_path / "old")["files"]["sentence"] == f"{tmp_path / 'old'}; versions: 1, all there."
    assert told(tmp_path / "old")["documents"]["ok"]
    new = tmp_path / "new"
    new.mkdir(0o700)
    shutil.copy(tmp_path / "old" / "easyml.db", new)
    said = refused_by(new)
    assert f"has 1 versions of datasets and models, and there is no {new / 'files'}" in said
    assert not (new / "files").exists()
    found = told(new)["files"]
    assert not found["ok"]
    assert "1 of 1 versions" in found["sentence"]
    assert f"mkdir -p {new / 'files'}" in said
    (new / "files").mkdir()
    with serving(new) as server:
        assert refused_download(server, dataset_id) == ("FAILED_PRECONDITION", "CHECKSUM_MISMATCH")


def test_files_of_postgresql_are_looked_for(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.database_url(asyncio.run(postgres.create_database()))
    database = {"DATABASE_URL": url, "MIGRATE_AT_START": "true"}
    files = tmp_path / "files"
    shared = {**database, "ARTIFACT_URL": files.as_uri()}
    with serving(tmp_path / "data", **shared) as server:
        stored(server)
    found = told(tmp_path / "data", **shared)
    assert {what: found[what]["ok"] for what in ("shared files", "files", "documents", "signals")} == {
        "shared files": True,
        "files": True,
        "documents": True,
        "signals": True,
    }
    # The setting is forgotten: they are not in the data folder.
    said = told(tmp_path / "data", **database)["files"]
    assert not said["ok"]
    assert f"are not in {tmp_path / 'data'}" in said["sentence"]
    # Of another database.
    with serving(tmp_path / "embedded", ARTIFACT_URL=(tmp_path / "others").as_uri()):
        pass
    said = told(tmp_path / "data", **database, ARTIFACT_URL=(tmp_path / "others").as_uri())["files"]
    assert not said["ok"]
    assert "belong to another database" in said["sentence"]
    # Lost, but for the name of their database.
    (files / "files").rename(tmp_path / "away")
    assert f"there is no {files / 'files'}" in refused_by(tmp_path / "data", **shared)


def test_doctor_tells_whether_servers_hear_each_other(tmp_path: Path, postgres: PostgresServer) -> None:
    one, two = (postgres.database_url(asyncio.run(postgres.create_database())) for _ in range(2))
    database = {"DATABASE_URL": one, "MIGRATE_AT_START": "true"}
    with serving(tmp_path / "data", **database):
        pass
    good = told(tmp_path / "data", **database, DATABASE_LISTEN_URL=one)["signals"]
    assert good == {
        "what": "signals",
        "ok": True,
        "sentence": "what other servers say is heard (EASYML_DATABASE_LISTEN_URL).",
    }
    # What a pooler does to it is the same: nothing comes.
    deaf = told(tmp_path / "data", **database, DATABASE_LISTEN_URL=two)["signals"]
    assert not deaf["ok"]
    assert "is not heard" in deaf["sentence"]
    away = told(tmp_path / "data", **database, DATABASE_LISTEN_URL="postgresql://u:secret@127.0.0.1:1/d")["signals"]
    assert not away["ok"]
    assert "EASYML_DATABASE_LISTEN_URL: PostgreSQL does not answer" in away["sentence"]
    assert "secret" not in away["sentence"]
