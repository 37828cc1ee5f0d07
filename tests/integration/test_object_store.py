"""Servers whose files are in an S3 bucket."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import (
    dataset_service_pb2,
    model_pb2,
    model_service_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)
from easyml_client import EasyML
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.dask import dask_cluster
from tests.integration.replicas import a_key_file, client_of, watch
from tests.integration.test_belongings import told
from tests.integration.test_rpcs_predictions import as_rows
from tests.integration.test_shared_files import refused_by
from tests.integration.test_versioning import pull
from tests.model_servers import model_server
from tests.postgresql import PostgresServer, postgresql
from tests.s3 import CREDENTIALS, S3Server, s3, s3_environment
from tests.s3_refusing import refusing
from tests.servers import Client, eventually, log_of, refusal, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONTENT = a_table(5_000)
HALF = len(CONTENT) // 2


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3() as server, s3_environment(server):
        yield server


@pytest.fixture
def url(server: S3Server) -> str:
    return f"s3://{server.new_bucket()}/easyml"


def names(server: S3Server, url: str) -> list[str]:
    root = url.removeprefix("s3://")
    found = (path.removeprefix(f"{root}/") for path in server.files().find(root))
    return sorted(name for name in found if not name.startswith("dvc/"))


def half_sent(client: Client, header: dataset_service_pb2.UploadHeader) -> int:
    """Send a half and break off; how much of it is safe."""
    said = refusal(client.datasets.UploadDataset, an_upload(header, CONTENT[:HALF]))
    assert said.short == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")
    request = dataset_service_pb2.GetUploadRequest(upload_id=header.upload_id)
    return int(client.datasets.GetUpload(request).upload.received_bytes)


def downloaded(client: Client, dataset_id: str) -> bytes:
    request = dataset_service_pb2.DownloadDatasetRequest(dataset_id=dataset_id)
    return b"".join(answer.chunk for answer in client.datasets.DownloadDataset(request))


def exported(client: Client, version_id: str, format: model_pb2.ArtifactFormat) -> tuple[str, bytes]:
    """The SHA-256 that is told, and what comes."""
    request = model_service_pb2.ExportModelRequest(model_version_id=version_id, format=format)
    first, *others = client.models.ExportModel(request)
    return first.header.sha256, b"".join(answer.chunk for answer in others)


def predicted(client: Client, version_id: str) -> bool:
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id, **as_rows())
    return client.predictions.Predict(request).model_version_id == version_id


def served_from(server: S3Server, url: str, version: str) -> str:
    """The version that answers at a model server which has it from the bucket, by its digest."""
    (path,) = (name for name in names(server, url) if name.endswith(f"{version}/manifest.json"))
    place = f"{url}/{path.removesuffix('/manifest.json')}"
    digest = hashlib.sha256(server.files().cat_file(f"{place}/manifest.json".removeprefix("s3://"))).hexdigest()
    process = model_server(f"--model={version}={place}@sha256:{digest}", "--insecure")
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("READY "), process.communicate(timeout=60)[1]
        with grpc.insecure_channel(said.split()[1]) as channel:
            request = prediction_service_pb2.PredictRequest(model_version_id=version, **as_rows())
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return str(stub.Predict(request).model_version_id)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def trained(client: Client, project_id: str, dataset_id: str) -> str:
    experiment = client.trainings.StartTraining(a_training(project_id, dataset_id)).experiment
    *_, last = watch(client, experiment.id)
    assert last.finished.model_version_id, last
    return str(last.finished.model_version_id)


def test_from_a_table_to_a_prediction(tmp_path: Path, server: S3Server, url: str) -> None:
    data = tmp_path / "data"
    with (
        refusing(server.port) as proxy,
        s3_environment(server, proxy.port),
        serving(data, ARTIFACT_URL=url, LOG_LEVEL="debug") as running,
        client_of(running) as client,
    ):
        proxy.every = 3
        project_id = a_project_of(client)
        header = a_header(project_id, CONTENT, upload_id=str(uuid4()))
        header.offset = half_sent(client, header)
        assert header.offset == HALF
        dataset = client.datasets.UploadDataset(an_upload(header, CONTENT)).dataset
        preview = dataset_service_pb2.PreviewDatasetRequest(dataset_id=dataset.id)
        assert len(client.datasets.PreviewDataset(preview).table.columns) == 3
        assert downloaded(client, dataset.id) == CONTENT
        version = trained(client, project_id, dataset.id)
        assert predicted(client, version)
        assert served_from(server, url, version) == version
        for format in (model_pb2.ARTIFACT_FORMAT_SKOPS, model_pb2.ARTIFACT_FORMAT_MLFLOW):
            told, content = exported(client, version, format)
            assert hashlib.sha256(content).hexdigest() == told
        assert proxy.refused > 3
        proxy.every = 0
        kept = names(server, url)
        assert not [name for name in kept if name.startswith(("uploads/", "checks/"))]
        assert {name.rsplit("/")[-1] for name in kept} >= {"database.id", "contents.json", "table.parquet", "original"}
        assert not (data / "files").exists()
        client.models.DeleteModelVersion(model_service_pb2.DeleteModelVersionRequest(model_version_id=version))
        client.datasets.DeleteDataset(dataset_service_pb2.DeleteDatasetRequest(dataset_id=dataset.id, force=True))
        assert names(server, url) == ["database.id"]
    said = log_of(data).read_text()
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in said


def test_a_store_that_is_away_is_told_and_waited_for(tmp_path: Path, server: S3Server, url: str) -> None:
    with (
        refusing(server.port) as proxy,
        s3_environment(server, proxy.port),
        serving(tmp_path / "data", ARTIFACT_URL=url) as running,
        client_of(running) as client,
    ):
        project_id = a_project_of(client)
        dataset = upload(client, project_id, CONTENT)
        proxy.every = 1
        said = refusal(client.datasets.UploadDataset, an_upload(a_header(project_id, CONTENT, name="more"), CONTENT))
        assert said.short == ("UNAVAILABLE", "PART_UNAVAILABLE")
        assert said.retry_seconds
        experiment = client.trainings.StartTraining(a_training(project_id, dataset.id)).experiment
        events = watch(client, experiment.id)
        assert next(events).state_changed
        proxy.every = 0
        *_, last = events
        assert last.finished.model_version_id


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


def test_two_servers_share_a_bucket(tmp_path: Path, postgres: PostgresServer, server: S3Server, url: str) -> None:
    settings = {
        "DATABASE_URL": postgres.database_url(asyncio.run(postgres.create_database())),
        "MIGRATE_AT_START": "true",
        "ARTIFACT_URL": url,
        "SIGNING_KEY_FILE": str(a_key_file(tmp_path)),
    }
    with (
        serving(tmp_path / "one", **settings) as first,
        serving(tmp_path / "two", **settings) as second,
        client_of(first) as here,
        client_of(second) as there,
    ):
        project_id = a_project_of(here)
        header = a_header(project_id, CONTENT, upload_id=str(uuid4()))
        header.offset = half_sent(here, header)
        dataset = there.datasets.UploadDataset(an_upload(header, CONTENT)).dataset
        assert downloaded(here, dataset.id) == CONTENT
        version = trained(there, project_id, dataset.id)
        for client in (here, there):
            assert predicted(client, version)
    assert "belong to another database" in refused_by(tmp_path / "embedded", ARTIFACT_URL=url)
    moved = {**settings, "ARTIFACT_URL": f"{url}-elsewhere"}
    assert f"are not in {url}-elsewhere" in refused_by(tmp_path / "moved", **moved)


def test_trainings_on_dask_go_by_the_data_folder(tmp_path: Path, server: S3Server, url: str) -> None:
    with dask_cluster(tmp_path / "dask") as cluster:
        cluster.add_worker()
        with (
            serving(tmp_path / "data", ARTIFACT_URL=url, DASK_ADDRESS=cluster.address) as running,
            client_of(running) as client,
        ):
            project_id = a_project_of(client)
            assert predicted(client, trained(client, project_id, upload(client, project_id, CONTENT).id))
        assert not (tmp_path / "data" / "files").exists()


def test_versions_are_pulled_from_the_bucket_by_plain_dvc(tmp_path: Path, server: S3Server, url: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with (
        serving(tmp_path / "data", ARTIFACT_URL=url) as running,
        client_of(running) as client,
        EasyML(running.address, running.key) as easyml,
    ):
        dataset = easyml.datasets.get(upload(client, a_project_of(client), CONTENT).id)
        pointer = easyml.datasets.dvc(dataset, folder)
        assert eventually(lambda: easyml.datasets.dvc_pointer(dataset).state == "pushed")
        assert not list((tmp_path / "data" / "dvc-remote").glob("*/files"))
    pull(folder)
    assert (pointer.with_suffix("") / "original").read_bytes() == CONTENT
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in (folder / ".dvc" / "config").read_text()
    # A remote elsewhere gets them from the bucket, since nothing of them is here.
    remote = tmp_path / "remote"
    with (
        serving(tmp_path / "data", ARTIFACT_URL=url, DVC_REMOTE=str(remote)) as running,
        EasyML(running.address, running.key) as easyml,
    ):
        easyml.datasets.dvc(dataset, tmp_path / "other")
    assert CONTENT in [path.read_bytes() for path in remote.rglob("*") if path.is_file()]
    assert told(tmp_path / "data", ARTIFACT_URL=url)["files"]["sentence"] == f"{url}; versions: 1, all there."
    root = url.removeprefix("s3://")
    server.files().rm(f"{root}/files", recursive=True)
    found = told(tmp_path / "data", ARTIFACT_URL=url)["files"]
    assert not found["ok"]
    assert f"1 of 1 versions of datasets and models have no files in {url}" in found["sentence"]
    server.files().rm(f"{root}/database.id")
    assert f"are not in {url}" in told(tmp_path / "data", ARTIFACT_URL=url)["files"]["sentence"]


# At the start.


def test_a_bucket_without_the_files_of_a_database_is_refused(tmp_path: Path, server: S3Server, url: str) -> None:
    data = tmp_path / "data"
    with serving(data) as running, client_of(running) as client:
        upload(client, a_project_of(client))
    said = refused_by(data, ARTIFACT_URL=url)
    assert f"has 1 versions of datasets and models, and there are no files in {url}" in said
    assert names(server, url) == []
    (identity,) = re.findall(r"write (\S+) into", said)
    server.files().pipe_file(f"{url.removeprefix('s3://')}/database.id", identity.encode())
    with serving(data, ARTIFACT_URL=url):
        pass


@pytest.mark.parametrize(
    ("artifact_url", "words"),
    [
        ("s3://", "names no bucket"),
        ("s3://key:canary-of-the-secret-key@bucket/easyml", "must hold no credentials"),
        ("nothing://bucket/easyml", "names no store of files"),
        ("s3://no-such-bucket/easyml", "there is no such bucket"),
    ],
)
def test_a_url_that_will_not_do_is_one_line(tmp_path: Path, server: S3Server, artifact_url: str, words: str) -> None:
    said = refused_by(tmp_path / "data", ARTIFACT_URL=artifact_url)
    assert words in said
    assert "canary" not in said


def test_what_is_missing_to_reach_a_bucket_is_one_line(
    tmp_path: Path, server: S3Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing(server.port) as proxy, s3_environment(server, proxy.port):
        proxy.every, proxy.status = 1, 403
        assert "do not allow to write" in refused_by(tmp_path / "data", ARTIFACT_URL=url)
    with s3_environment(server, 1):
        assert "is the store running" in refused_by(tmp_path / "data", ARTIFACT_URL=url)
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "there are no credentials" in refused_by(tmp_path / "data", ARTIFACT_URL=url)
    # A package that cannot be imported is as one that is not installed.
    (tmp_path / "s3fs.py").write_text("raise ImportError('s3fs is not installed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "pip install 'easyml-server[s3]'" in refused_by(tmp_path / "data", ARTIFACT_URL=url)


def test_doctor_looks_at_the_bucket(tmp_path: Path, server: S3Server, url: str) -> None:
    assert told(tmp_path / "data", ARTIFACT_URL=url)["shared files"] == {
        "what": "shared files",
        "ok": True,
        "sentence": url,
    }
    found = told(tmp_path / "data", ARTIFACT_URL="s3://no-such-bucket/easyml")["shared files"]
    assert not found["ok"]
    assert "no such bucket" in found["sentence"]
    assert names(server, url) == []
