"""Back up and restore as docs/guides/full-mode.md has it: its commands, typed into a shell after all was lost."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import a_project_of, a_table, upload
from tests.integration.documents import config_of, followed, started
from tests.integration.replicas import a_key_file, client_of
from tests.integration.test_belongings import told
from tests.integration.test_object_store import downloaded, predicted
from tests.mongodb import MongoServer, mongodb
from tests.postgresql import PostgresServer, find_binaries, postgresql
from tests.servers import ROOT, eventually, serving

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def block(*words: str) -> str:
    """The one block of the guide that has these words."""
    (found,) = [
        each
        for each in BLOCK.findall((ROOT / "docs/guides/full-mode.md").read_text())
        if all(word in each for word in words)
    ]
    return str(found)


def line(start: str, *words: str) -> str:
    """The line of such a block that begins so."""
    (found,) = [each for each in block(start, *words).splitlines() if each.startswith(start)]
    return found


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    with mongodb(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


def test_everything_comes_back_from_a_backup(tmp_path: Path, postgres: PostgresServer, mongo: MongoServer) -> None:
    name = asyncio.run(postgres.create_database())
    document_database = mongo.new_name()
    files = tmp_path / "files"
    settings = {
        "DATABASE_URL": postgres.database_url(name),
        "MONGODB_URL": mongo.database_url(document_database),
        "ARTIFACT_URL": files.as_uri(),
        "SIGNING_KEY_FILE": str(a_key_file(tmp_path)),
    }
    environment = {
        **os.environ,
        **{f"EASYML_{setting}": value for setting, value in settings.items()},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(find_binaries()), os.environ["PATH"]]),
    }

    def typed(command: str) -> None:
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], env=environment, cwd=tmp_path, check=True)

    with serving(tmp_path / "data", **settings, MIGRATE_AT_START="true") as server, client_of(server) as client:
        project_id = a_project_of(client)
        dataset_id = upload(client, project_id).id
        version_id = followed(client, started(client, project_id, dataset_id))
        config = client.projects.GetProjectConfig(config_of(project_id)).config
        eventually(lambda: "0 wait" in told(tmp_path / "data", **settings)["documents"]["sentence"])
        typed(line("pg_dump"))
        typed(block("> easyml.mongo"))
        shutil.copytree(files, tmp_path / "backup")
    shutil.rmtree(files)
    mongo.drop(document_database)
    asyncio.run(postgres.drop_database(name))
    typed(f'createdb --maintenance-db="{postgres.database_url("postgres")}" {name}')
    typed(line("pg_restore"))
    typed(block("python - easyml.mongo"))
    shutil.copytree(tmp_path / "backup", files)
    typed(f"easyml-server migrate --data-dir {tmp_path / 'data'}")
    found = told(tmp_path / "data", **settings)
    assert found["files"]["sentence"].endswith("versions: 2, all there.")
    assert found["documents"]["ok"]
    with serving(tmp_path / "data", **settings) as server, client_of(server) as client:
        assert client.projects.GetProjectConfig(config_of(project_id)).config == config
        assert downloaded(client, dataset_id) == a_table()
        assert predicted(client, version_id)
