"""A server that is killed, stopped, or cannot start. `tests/faults` has the long form of the kills."""

from __future__ import annotations

import random
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import dataset_service_pb2, experiment_pb2, training_service_pb2
from tests.builders import a_header, a_long_training, a_project_of, a_table, an_upload, upload
from tests.faults.consistency import check_consistent
from tests.faults.kills import Story, Trainings, Uploads
from tests.faults.plan import FaultPlan
from tests.servers import Client, ServerProcess, launch, log_of, refusal_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = {Uploads: 2, Trainings: 3}
"""Of each story; `make faults` kills 20 times."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path / "data") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, server.key) as client:
        yield client


@pytest.fixture
def seed() -> int:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


@pytest.fixture
def stories(tmp_path: Path) -> Iterator[Callable[[type[Story]], Story]]:
    plan = FaultPlan(tmp_path / "plan")
    with serving(tmp_path / "killed", FAULT=str(plan.path)) as server:
        yield lambda kind: kind(server, plan)


@pytest.mark.parametrize("kind", KILLS)
def test_a_server_killed_at_any_moment_loses_nothing(
    stories: Callable[[type[Story]], Story], kind: type[Story], seed: int
) -> None:
    story = stories(kind)
    for moment in story.moments(KILLS[kind], seed):
        print(story.killed_at(moment))  # noqa: T201 (pytest shows it when the test fails)


# Stopped in order.


def test_a_stopping_server_sends_its_watchers_to_the_next_one(server: ServerProcess, client: Client) -> None:
    project_id = a_project_of(client)
    started = client.trainings.StartTraining(a_long_training(project_id, upload(client, project_id).id))
    experiment_id = started.experiment.id
    seen: list[int] = []
    with pytest.raises(grpc.RpcError) as caught:
        watch = training_service_pb2.WatchTrainingRequest(experiment_id=experiment_id)
        for answer in client.trainings.WatchTraining(watch):
            if answer.HasField("event"):
                seen.append(answer.event.sequence)
            if len(seen) == 8:
                server.running.send_signal(signal.SIGTERM)
    said = refusal_of(caught.value)
    assert said.short == ("UNAVAILABLE", "SERVER_DRAINING")
    assert said.retry_seconds
    assert said.trailers["grpc-retry-pushback-ms"]
    assert server.ended() == 0
    server.start()
    with Client(server.address, server.key) as again:
        again.trainings.CancelTraining(training_service_pb2.CancelTrainingRequest(experiment_id=experiment_id))
        watch = training_service_pb2.WatchTrainingRequest(experiment_id=experiment_id, after_sequence=seen[-1])
        events = [answer.event for answer in again.trainings.WatchTraining(watch) if answer.HasField("event")]
    seen += [event.sequence for event in events]
    assert seen == list(range(1, len(seen) + 1))
    assert events[-1].finished.state == experiment_pb2.TRAINING_STATE_CANCELLED


def test_an_upload_is_flushed_when_the_server_stops_and_continued_by_the_next(
    server: ServerProcess, client: Client
) -> None:
    content = a_table(5_000)
    header = a_header(a_project_of(client), content, upload_id="4d0d3a4e-4b53-4a5c-9d4f-0c4b9d2c6f10")
    stopped = threading.Event()

    def half() -> Iterator[dataset_service_pb2.UploadDatasetRequest]:
        yield dataset_service_pb2.UploadDatasetRequest(header=header)
        yield dataset_service_pb2.UploadDatasetRequest(chunk=content[:10_000])
        stopped.wait(60)

    call = client.datasets.UploadDataset.future(half())
    assert ("x-upload-id", header.upload_id) in [tuple(pair) for pair in call.initial_metadata()]
    server.running.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    stopped.set()
    assert refusal_of(caught.value).short == ("UNAVAILABLE", "SERVER_DRAINING")
    assert server.ended() == 0
    server.start()
    with Client(server.address, server.key) as again:
        request = dataset_service_pb2.GetUploadRequest(upload_id=header.upload_id)
        header.offset = again.datasets.GetUpload(request).upload.received_bytes
        assert header.offset in (0, 10_000)
        dataset = again.datasets.UploadDataset(an_upload(header, content)).dataset
    assert dataset.current_version.sha256 == header.sha256
    check_consistent(server.data)


def test_a_second_signal_ends_everything_at_once(server: ServerProcess, client: Client) -> None:
    project_id = a_project_of(client)
    started = client.trainings.StartTraining(a_long_training(project_id, upload(client, project_id).id))
    watch = training_service_pb2.WatchTrainingRequest(experiment_id=started.experiment.id)
    events = (each.event for each in client.trainings.WatchTraining(watch) if each.HasField("event"))
    assert [next(events).sequence for _ in range(8)] == list(range(1, 9))
    server.running.send_signal(signal.SIGTERM)
    server.running.send_signal(signal.SIGINT)
    assert server.ended() == 1


def test_bytes_of_an_upload_that_nobody_will_continue_are_removed_at_the_next_start(server: ServerProcess) -> None:
    server.stop()
    left = server.data / "uploads" / f"{uuid4()}-{uuid4()}"
    left.write_bytes(b"x")
    server.start()
    assert not left.exists()


# Not started.


def said_by(data: Path, port: str = "0", **settings: str) -> tuple[int, str]:
    """Exit code and standard error of a server that does not start."""
    log_of(data).unlink(missing_ok=True)
    process = launch(data, settings, port)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert output == ""
    return process.returncode, log_of(data).read_text()


def check_one_line(code: int, errors: str, *words: str) -> None:
    assert code == 2
    assert errors.count("\n") == 1
    assert errors.startswith("easyml-server: ")
    for word in words:
        assert word in errors


def test_a_second_server_on_a_folder_is_refused(server: ServerProcess) -> None:
    check_one_line(*said_by(server.data), str(server.data), "--data-dir")


def test_a_busy_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        check_one_line(*said_by(tmp_path / "data", port), port, "--port")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_one_line(*said_by(tmp_path / "file"), str(tmp_path / "file"))


def test_a_newer_database_is_refused(server: ServerProcess) -> None:
    server.stop()
    database = sqlite3.connect(server.data / "easyml.db")
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    database.close()
    check_one_line(*said_by(server.data), "newer", "9999")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"MAX_ROWS": "many"}, "EASYML_MAX_ROWS"),
        ({"HOST": "0.0.0.0"}, "TLS"),
        ({"MAX_CHUNK_BYTES": "99999999"}, "max_"),
    ],
)
def test_settings_that_will_not_do_are_refused(tmp_path: Path, settings: dict[str, str], word: str) -> None:
    check_one_line(*said_by(tmp_path / "data", **settings), word)
