"""Servers that share a folder of files: what one of them receives or has just published, no other removes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from easyml.v1 import dataset_service_pb2
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.faults.consistency import check_shared
from tests.integration.replicas import a_key_file, client_of, replicas, watch
from tests.marks import limits
from tests.postgresql import PostgresServer, postgresql
from tests.servers import Client, environment, eventually, launch, log_of, refusal, refusal_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONTENT = a_table(5_000)
HALF = len(CONTENT) // 2


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    name = asyncio.run(postgres.create_database())
    yield postgres.database_url(name)
    asyncio.run(postgres.drop_database(name))


class HeldUpload:
    """An upload whose second half comes when somebody says so."""

    def __init__(self, client: Client, project_id: str) -> None:
        self.header = a_header(project_id, CONTENT, upload_id=str(uuid4()))
        self.go_on = threading.Event()
        self._call = client.datasets.UploadDataset.future(self._messages())
        assert ("x-upload-id", self.header.upload_id) in [tuple(pair) for pair in self._call.initial_metadata()]

    def _messages(self) -> Iterator[dataset_service_pb2.UploadDatasetRequest]:
        yield dataset_service_pb2.UploadDatasetRequest(header=self.header)
        yield dataset_service_pb2.UploadDatasetRequest(chunk=CONTENT[:HALF])
        self.go_on.wait(60)
        yield dataset_service_pb2.UploadDatasetRequest(chunk=CONTENT[HALF:])

    def finish(self) -> str:
        """The SHA-256 of the dataset that came of it."""
        self.go_on.set()
        return str(self._call.result().dataset.current_version.sha256)

    def cut_off(self) -> None:
        """Wait until the server has waited long enough."""
        assert refusal_of(self._call.exception()).short == ("UNAVAILABLE", "PART_UNAVAILABLE")
        self.go_on.set()


def received(client: Client, upload_id: str) -> int:
    request = dataset_service_pb2.GetUploadRequest(upload_id=upload_id)
    return int(client.datasets.GetUpload(request).upload.received_bytes)


def test_an_upload_is_continued_at_the_other_server(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url, number=0) as pair:
        for _ in range(2):
            pair.start(UPLOAD_IDLE_SECONDS="1")
        with client_of(pair.servers[0]) as here, client_of(pair.servers[1]) as there:
            held = HeldUpload(here, a_project_of(here))
            held.cut_off()
            header = held.header
            header.offset = received(there, header.upload_id)
            assert header.offset == HALF
            dataset = there.datasets.UploadDataset(an_upload(header, CONTENT)).dataset
            assert dataset.current_version.sha256 == header.sha256
            # Asked again, either answers with what came of it.
            header.offset = 0
            assert here.datasets.UploadDataset(an_upload(header, CONTENT)).dataset.id == dataset.id
        check_shared(pair.files, pair.url)


def test_two_servers_do_not_receive_one_upload_at_once(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url) as pair:
        with client_of(pair.servers[0]) as here, client_of(pair.servers[1]) as there:
            held = HeldUpload(here, a_project_of(here))
            said = refusal(there.datasets.UploadDataset, an_upload(held.header, CONTENT))
            assert said.short == ("UNAVAILABLE", "PART_UNAVAILABLE")
            assert said.retry_seconds
            assert held.finish() == held.header.sha256
        check_shared(pair.files, pair.url)


def test_a_start_removes_nothing_that_another_server_is_at_work_on(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url, number=1) as pair, client_of(pair.servers[0]) as client:
        held = HeldUpload(client, a_project_of(client))
        left = pair.files / "uploads" / f"{uuid4()}-{uuid4()}"
        left.write_bytes(b"of a server that died")
        pair.start()
        assert not left.exists()
        assert held.finish() == held.header.sha256
        check_shared(pair.files, pair.url)


@limits("LEASE_SECONDS")
@pytest.mark.parametrize("point", ["upload.published", "training.published"])
def test_a_start_leaves_what_another_has_published_and_not_yet_committed(tmp_path: Path, url: str, point: str) -> None:
    with replicas(tmp_path, url, number=0) as pair:
        # A lease that does not end while the server is frozen.
        frozen = pair.start(FAULT=f"{point}=stop", LEASE_SECONDS="600")
        with client_of(frozen) as client, ThreadPoolExecutor(1) as pool:
            working = pool.submit(train, client, a_project_of(client))
            process = psutil.Process(frozen.running.pid)
            eventually(lambda: process.status() == psutil.STATUS_STOPPED or None)
            pair.start()
            process.resume()
            assert working.result() == "finished"
        check_shared(pair.files, pair.url)


def train(client: Client, project_id: str) -> str:
    """Upload and train; the kind of the last event."""
    request = a_training(project_id, upload(client, project_id).id)
    events = list(watch(client, client.trainings.StartTraining(request).experiment.id))
    assert events[-1].finished.model_version_id
    return str(events[-1].WhichOneof("event"))


def test_what_a_killed_server_left_is_removed_by_the_next_start_of_any(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url, number=0) as pair:
        killed = pair.start(FAULT="upload.published=kill")
        with client_of(killed) as client:
            project_id = a_project_of(client)
            assert client.datasets.UploadDataset.future(an_upload(a_header(project_id, CONTENT), CONTENT)).exception()
        killed.ended()
        assert list(pair.files.glob("files/*/datasets/*"))
        pair.start()
        assert not list(pair.files.glob("files/*/datasets/*"))
        assert len(list(pair.files.glob("work/*"))) == 1
        check_shared(pair.files, pair.url)


# At the start.


def refused_by(data: Path, **settings: str) -> str:
    """The one line of a server that does not start."""
    log_of(data).unlink(missing_ok=True)
    process = launch(data, settings)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    said = log_of(data).read_text()
    assert (output, process.returncode, said.count("\n")) == ("", 2, 1), said
    return said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ARTIFACT_URL": "/srv/easyml"}, "no URL"),
        ({"ARTIFACT_URL": "file://elsewhere/srv"}, "names no folder of this machine"),
        ({"ARTIFACT_URL": "file:///proc/easyml"}, "cannot be written"),
        ({"SIGNING_KEY_FILE": "/nowhere.pem"}, "openssl genpkey"),
        ({"SIGNING_KEY_FILE": "/etc/passwd"}, "holds no private key"),
        ({"DATABASE_URL": "postgresql://u@h/d", "DATABASE_LISTEN_URL": "mysql://h"}, "EASYML_DATABASE_LISTEN_URL"),
    ],
)
def test_a_setting_that_will_not_do_is_one_line(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    assert words in refused_by(tmp_path / "data", **settings)


def test_files_of_a_server_that_thinks_they_are_its_own_are_not_shared(tmp_path: Path, url: str) -> None:
    database = {"DATABASE_URL": url, "MIGRATE_AT_START": "true"}
    with serving(tmp_path / "alone", **database):
        said = refused_by(tmp_path / "other", **database, ARTIFACT_URL=(tmp_path / "alone").as_uri())
    assert "EASYML_ARTIFACT_URL on all servers" in said


def test_shared_files_belong_to_one_database(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url, number=1) as pair:
        embedded = {"ARTIFACT_URL": pair.files.as_uri(), "SIGNING_KEY_FILE": str(a_key_file(tmp_path))}
        assert "belong to another database" in refused_by(tmp_path / "embedded", **embedded)


@pytest.mark.parametrize("shared", [True, False])
def test_a_server_without_the_files_of_its_database_does_not_start(tmp_path: Path, url: str, shared: bool) -> None:
    database = {"DATABASE_URL": url, "MIGRATE_AT_START": "true"}
    files = {"ARTIFACT_URL": (tmp_path / "files").as_uri(), "SIGNING_KEY_FILE": str(a_key_file(tmp_path))}
    with serving(tmp_path / "first", **database, **(files if shared else {})):
        said = refused_by(tmp_path / "second", **database)
    root = tmp_path / "files" if shared else tmp_path / "first"
    assert f"are not in {tmp_path / 'second'}" in said
    # Whoever lost them says so.
    identity = (root / "database.id").read_text()
    assert f"write {identity.strip()} into {tmp_path / 'second' / 'database.id'}" in said
    (tmp_path / "second" / "database.id").write_text(identity)
    log_of(tmp_path / "second").unlink()
    with serving(tmp_path / "second", **database):
        pass


def test_an_embedded_server_whose_files_went_elsewhere_does_not_start_without_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, ARTIFACT_URL=(tmp_path / "files").as_uri(), SIGNING_KEY_FILE=str(a_key_file(tmp_path))):
        pass
    log_of(data).unlink()
    assert f"are not in {data}" in refused_by(data)


def test_doctor_looks_at_what_is_shared(tmp_path: Path) -> None:
    def told(**settings: str) -> dict[str, bool]:
        command = [sys.executable, "-m", "easyml_server", "doctor", "--json", "--data-dir", str(tmp_path / "data")]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment({"PORT": "0", **settings})
        )
        found = {each["what"]: each["ok"] for each in json.loads(answer.stdout)}
        return {what: found[what] for what in ("shared files", "signing key")}

    fine = {"ARTIFACT_URL": (tmp_path / "files").as_uri(), "SIGNING_KEY_FILE": str(a_key_file(tmp_path))}
    assert told(**fine) == {"shared files": True, "signing key": True}
    assert not (tmp_path / "files").exists()
    wrong = {"ARTIFACT_URL": "nothing://bucket", "SIGNING_KEY_FILE": "/nowhere.pem"}
    assert told(**wrong) == {"shared files": False, "signing key": False}


def test_an_embedded_server_keeps_its_files_where_it_is_told(tmp_path: Path) -> None:
    files = tmp_path / "elsewhere"
    with serving(tmp_path / "data", ARTIFACT_URL=files.as_uri()) as server, client_of(server) as client:
        assert train(client, a_project_of(client)) == "finished"
    assert list(files.glob("files/*/models/*"))
    assert not (tmp_path / "data" / "files").exists()
