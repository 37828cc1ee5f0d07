"""A server on PostgreSQL: the same job, what goes wrong at its start, and a database that goes away."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import prediction_service_pb2, project_service_pb2, training_service_pb2
from tests.builders import a_project_of, a_training, upload
from tests.postgresql import PostgresServer, find_binaries, postgresql, start, stop
from tests.servers import Client, ServerProcess, environment, eventually, launch, log_of, refusal_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STARTS = 100


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data", durable=True) as server:
        yield server


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """A database without tables."""
    name = asyncio.run(postgres.create_database())
    yield postgres.database_url(name)
    asyncio.run(postgres.drop_database(name))


@pytest.fixture
def server(tmp_path: Path, url: str) -> Iterator[ServerProcess]:
    with serving(tmp_path / "data", DATABASE_URL=url, MIGRATE_AT_START="true") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, server.key) as client:
        yield client


def trained(client: Client, project_id: str) -> str:
    """Train; the model version."""
    started = client.trainings.StartTraining(a_training(project_id, upload(client, project_id).id)).experiment
    request = training_service_pb2.WatchTrainingRequest(experiment_id=started.id)
    events = [answer.event for answer in client.trainings.WatchTraining(request) if answer.HasField("event")]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return str(events[-1].finished.model_version_id)


def test_the_main_job_is_the_same(server: ServerProcess, client: Client) -> None:
    version_id = trained(client, a_project_of(client))
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id)
    request.rows.rows.add().update({"x": 0.1, "z": 3})
    assert list(client.predictions.Predict(request).predictions.strings.values) == ["a"]
    assert not (server.data / "easyml.db").exists()
    # What is stored is there after a restart, and nothing was taken for an orphan.
    server.stop()
    server.start()
    with Client(server.address, server.key) as again:
        assert list(again.predictions.Predict(request).predictions.strings.values) == ["a"]


def test_a_hundred_starts_with_one_request_id_start_one(client: Client) -> None:
    project_id = a_project_of(client)
    request = a_training(project_id, upload(client, project_id).id, request_id=str(uuid4()))

    def start_until_answered(_: int) -> str:
        def attempt() -> str | None:
            try:
                return str(client.trainings.StartTraining(request).experiment.id)
            except grpc.RpcError as error:
                refused = refusal_of(error)
                assert refused.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE), refused
                assert refused.retry_seconds, refused
                return None

        return eventually(attempt, seconds=60)

    with ThreadPoolExecutor(STARTS) as threads:
        started = set(threads.map(start_until_answered, range(STARTS)))
    assert len(started) == 1


def test_a_database_that_is_killed_is_said_and_used_again_when_it_is_back(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    data = tmp_path / "postgresql"
    with (
        postgresql(data, durable=True) as mortal,
        serving(tmp_path / "data", DATABASE_URL=mortal.database_url("postgres"), MIGRATE_AT_START="true") as server,
        Client(server.address, server.key) as client,
    ):
        project_id = a_project_of(client)
        assert mortal.process is not None
        mortal.process.send_signal(signal.SIGKILL)
        stop(mortal)
        get = project_service_pb2.GetProjectRequest(project_id=project_id)
        with pytest.raises(grpc.RpcError) as caught:
            client.projects.GetProject(get)
        refused = refusal_of(caught.value)
        assert refused.short == ("UNAVAILABLE", "PART_UNAVAILABLE")
        assert refused.metadata == {"part": "database"}
        assert refused.retry_seconds
        sockets = Path(mortal.url.rpartition("host=")[2])
        back = start(find_binaries(), data, sockets, {"listen_addresses": ""})
        try:
            assert client.projects.GetProject(get).project.id == project_id
            trained(client, project_id)
        finally:
            server.stop()
            stop(back)


# At the start.


def refused_by(data: Path, **settings: str) -> str:
    """The one line of a server that does not start."""
    process = launch(data, settings)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    said = log_of(data).read_text()
    assert (output, process.returncode, said.count("\n")) == ("", 2, 1), said
    assert "secret" not in said
    return said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:secret@h/d", ["EASYML_DATABASE_URL", "postgresql://"]),
        ("no url", ["EASYML_DATABASE_URL", "percent-encoded"]),
        ("postgresql://app:half@secret@/easyml?host=/tmp", ["EASYML_DATABASE_URL", "%40"]),
        ("postgresql://app:half@secret@host/easyml", ["EASYML_DATABASE_URL", "%40"]),
        ("postgresql://u:secret@127.0.0.1:1", ["names no database"]),
        ("postgresql://u:secret@127.0.0.1:1/d", ["cannot be reached"]),
        ("postgresql://u:secret@no-such-host.invalid/d", ["cannot be reached"]),
    ],
)
def test_a_url_that_will_not_do_is_one_line(tmp_path: Path, url: str, words: list[str]) -> None:
    said = refused_by(tmp_path / "data", DATABASE_URL=url)
    for word in words:
        assert word in said


def test_a_database_that_is_not_there_is_one_line(tmp_path: Path, postgres: PostgresServer) -> None:
    assert "does not exist" in refused_by(tmp_path / "data", DATABASE_URL=postgres.database_url("nowhere"))


def test_a_database_that_nobody_migrated_is_one_line_with_the_command(tmp_path: Path, url: str) -> None:
    said = refused_by(tmp_path / "data", DATABASE_URL=url)
    assert "no schema yet" in said
    assert "easyml-server migrate" in said


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE orders (id int)", "tables of something else (orders)"),
        ("CREATE TABLE alembic_version AS SELECT '9999' AS version_num", "newer EasyML (schema 9999)"),
    ],
)
def test_a_database_of_others_is_left_alone(tmp_path: Path, url: str, statement: str, words: str) -> None:
    import asyncpg

    async def execute() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute())
    assert words in refused_by(tmp_path / "data", DATABASE_URL=url, MIGRATE_AT_START="true")


def test_a_folder_of_another_database_is_refused(tmp_path: Path, postgres: PostgresServer, url: str) -> None:
    data = tmp_path / "data"
    with serving(data, DATABASE_URL=url, MIGRATE_AT_START="true"):
        pass
    other = postgres.database_url(asyncio.run(postgres.create_database()))
    log_of(data).unlink()
    assert "belong to another database" in refused_by(data, DATABASE_URL=other, MIGRATE_AT_START="true")


def test_a_folder_with_an_embedded_database_is_refused(tmp_path: Path, url: str) -> None:
    data = tmp_path / "data"
    with serving(data):
        pass
    log_of(data).unlink()
    assert "embedded database" in refused_by(data, DATABASE_URL=url, MIGRATE_AT_START="true")


def test_doctor_looks_at_the_database_too(tmp_path: Path, url: str) -> None:
    def told() -> dict[str, Any]:
        command = [sys.executable, "-m", "easyml_server", "doctor", "--json", "--data-dir", str(tmp_path / "data")]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment({"DATABASE_URL": url, "PORT": "0"})
        )
        return next(each for each in json.loads(answer.stdout) if each["what"] == "database")

    assert not told()["ok"]
    assert "easyml-server migrate" in told()["sentence"]
    with serving(tmp_path / "data", DATABASE_URL=url, MIGRATE_AT_START="true"):
        assert told()["ok"]


def test_two_migrations_at_once_migrate_once(tmp_path: Path, url: str) -> None:
    command = [sys.executable, "-m", "easyml_server", "migrate", "--data-dir"]
    both = [
        subprocess.Popen(
            [*command, str(tmp_path / name)], stdout=subprocess.PIPE, text=True, env=environment({"DATABASE_URL": url})
        )
        for name in ("one", "two")
    ]
    said = sorted(process.communicate(timeout=60)[0] for process in both)
    assert said == ["The database is up to date.\n", "The database was migrated.\n"]
