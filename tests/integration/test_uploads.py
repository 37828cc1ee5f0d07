"""Uploads: in pieces, across breaks, once; and what is refused on the way."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import dataset_pb2
from easyml.v1 import dataset_service_pb2 as pb
from tests.builders import a_header, a_project_of, a_table, an_upload, upload
from tests.marks import answers, refuses
from tests.servers import Client, Refusal, refusal, refusal_of, serving

CONTENT = a_table(4000)


def get(client: Client, upload_id: str) -> dataset_pb2.Upload:
    found: dataset_pb2.Upload = client.datasets.GetUpload(pb.GetUploadRequest(upload_id=upload_id)).upload
    return found


def break_off(client: Client, header: pb.UploadHeader, content: bytes, least: int) -> int:
    """Send the header and most of the bytes, and go away once `least` are safe; bytes that are safe in the end."""
    leave = threading.Event()

    def messages() -> Iterator[pb.UploadDatasetRequest]:
        yield from itertools.islice(an_upload(header, content, chunk=512 * 1024), 20)
        leave.wait(60)

    call = client.datasets.UploadDataset.future(messages())
    call.initial_metadata()
    while get(client, header.upload_id).received_bytes < least:
        assert not call.done()
    call.cancel()
    leave.set()
    # Whoever asks while the server still works for the broken call is told to wait.
    header.offset = 1
    while (found := refused(client, header, content)).code is grpc.StatusCode.UNAVAILABLE:
        assert found.retry_seconds
    assert found.short == ("FAILED_PRECONDITION", "OFFSET_MISMATCH")
    return int(found.metadata["received_bytes"])


def refused(client: Client, header: pb.UploadHeader, content: bytes = CONTENT) -> Refusal:
    return refusal(client.datasets.UploadDataset, an_upload(header, content))


@answers("DatasetService/GetUpload")
def test_an_upload_that_broke_goes_on_where_its_safe_bytes_end(owner: Client, project_id: str) -> None:
    content = a_table(900_000)
    header = a_header(project_id, content, upload_id=str(uuid4()))
    safe = break_off(owner, header, content, least=8 << 20)
    assert get(owner, header.upload_id).received_bytes == safe
    assert 8 << 20 <= safe < len(content)
    header.offset = safe
    dataset = owner.datasets.UploadDataset(an_upload(header, content)).dataset
    assert dataset.current_version.sha256 == hashlib.sha256(content).hexdigest()
    assert dataset.current_version.schema.row_count == 900_000
    assert get(owner, header.upload_id).state == dataset_pb2.UPLOAD_STATE_COMPLETED


@answers("DatasetService/UploadDataset")
def test_a_finished_upload_is_returned_again(owner: Client, project_id: str) -> None:
    header = a_header(project_id, CONTENT, upload_id=str(uuid4()))
    first = owner.datasets.UploadDataset(an_upload(header, CONTENT)).dataset
    assert owner.datasets.UploadDataset(an_upload(header, CONTENT)).dataset.id == first.id
    header.offset = len(CONTENT)
    assert owner.datasets.UploadDataset(an_upload(header, CONTENT)).dataset.id == first.id


def test_another_file_under_the_same_id_is_refused(owner: Client, project_id: str) -> None:
    header = a_header(project_id, CONTENT, upload_id=str(uuid4()))
    owner.datasets.UploadDataset(an_upload(header, CONTENT))
    header.name = "another"
    assert refused(owner, header).short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


def test_the_id_that_the_server_chose_is_in_the_initial_metadata(owner: Client, project_id: str) -> None:
    call = owner.datasets.UploadDataset.future(an_upload(a_header(project_id, CONTENT), CONTENT))
    metadata = dict(call.initial_metadata())
    assert get(owner, metadata["x-upload-id"]).state in (
        dataset_pb2.UPLOAD_STATE_RECEIVING,
        dataset_pb2.UPLOAD_STATE_CONVERTING,
        dataset_pb2.UPLOAD_STATE_COMPLETED,
    )
    assert metadata["x-request-id"]
    call.result()


@refuses("DatasetService/UploadDataset")
def test_bytes_that_are_not_those_of_the_header_are_refused_and_forgotten(owner: Client, project_id: str) -> None:
    header = a_header(project_id, CONTENT, upload_id=str(uuid4()), sha256="0" * 64)
    found = refused(owner, header)
    assert found.short == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")
    assert found.fields == ["header.sha256"]
    assert get(owner, header.upload_id).state == dataset_pb2.UPLOAD_STATE_FAILED
    # The same again is told the same.
    assert refused(owner, header).short == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")


def test_too_few_bytes_can_be_followed_by_the_rest(owner: Client, project_id: str) -> None:
    header = a_header(project_id, CONTENT, upload_id=str(uuid4()))
    found = refused(owner, header, CONTENT[:5_000])
    assert found.short == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")
    assert found.metadata == {"received_bytes": "5000"}
    header.offset = 5_000
    assert owner.datasets.UploadDataset(an_upload(header, CONTENT)).dataset.id


def test_too_many_bytes_are_refused(owner: Client, project_id: str) -> None:
    header = a_header(project_id, CONTENT, size_bytes=len(CONTENT) - 1, sha256="")
    assert refused(owner, header).short == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")


def test_chunks_without_a_header_are_refused(owner: Client) -> None:
    found = refusal(owner.datasets.UploadDataset, iter([pb.UploadDatasetRequest(chunk=b"a,b\n")]))
    assert (found.short, found.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["header"])


def test_a_second_header_is_refused(owner: Client, project_id: str) -> None:
    message = pb.UploadDatasetRequest(header=a_header(project_id, CONTENT))
    found = refusal(owner.datasets.UploadDataset, iter([message, message]))
    assert (found.short, found.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["chunk"])


def test_a_chunk_that_is_too_large_names_the_limit(owner: Client, project_id: str) -> None:
    content = b"a\n" * (1 << 20)
    found = refusal(
        owner.datasets.UploadDataset, an_upload(a_header(project_id, content), content, chunk=(1 << 20) + 1)
    )
    assert found.short == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert found.metadata == {"limit": "EASYML_MAX_CHUNK_BYTES", "maximum": str(1 << 20)}
    content = content[: 1 << 20]
    header = a_header(project_id, content, filename="one-chunk.csv")
    assert owner.datasets.UploadDataset(an_upload(header, content, chunk=1 << 20)).dataset.id


def test_a_name_that_is_taken_is_refused_before_the_bytes_come(owner: Client, project_id: str) -> None:
    upload(owner, project_id, name="taken")
    found = refused(owner, a_header(project_id, CONTENT, name="taken"))
    assert found.short == ("ALREADY_EXISTS", "NAME_TAKEN")
    assert found.metadata == {"name": "taken"}


def test_a_file_whose_format_nobody_says_is_refused(owner: Client, project_id: str) -> None:
    found = refused(owner, a_header(project_id, CONTENT, filename="table.dat"))
    assert (found.short, found.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["header.format"])


@pytest.mark.parametrize(
    ("content", "filename", "reason"),
    [
        (b"\n", "empty.csv", "UNREADABLE_FILE"),
        (b"a,b,c\n", "header-only.csv", "UNREADABLE_FILE"),
        (b"a,b\n1,2\n3\n", "ragged.csv", "UNREADABLE_FILE"),
        (b"a,a\n1,2\n", "twice.csv", "UNREADABLE_FILE"),
        (b"a,b\n1,2\n", "table.parquet", "UNREADABLE_FILE"),
        (b"PK\x03\x04 and no more", "cut.xlsx", "UNREADABLE_FILE"),
        (b'{"a": {"b": [1, 2]}}', "nested.json", "UNREADABLE_FILE"),
        (b"[" * 20_000, "deep.json", "UNREADABLE_FILE"),
        (b"a,b\n1," + b"x" * (10 << 20) + b"\n", "cell.csv", "TOO_LARGE"),
    ],
)
def test_a_file_that_is_no_table_says_why_and_leaves_nothing(
    owner: Client, project_id: str, content: bytes, filename: str, reason: str
) -> None:
    header = a_header(project_id, content, filename=filename, upload_id=str(uuid4()))
    found = refused(owner, header, content)
    assert found.short == ("INVALID_ARGUMENT", reason)
    assert found.message.endswith(".")
    assert not owner.datasets.ListDatasets(pb.ListDatasetsRequest(project_id=project_id)).datasets
    assert get(owner, header.upload_id).state == dataset_pb2.UPLOAD_STATE_FAILED


@refuses("DatasetService/GetUpload")
def test_anothers_upload_is_not_there(owner: Client, other: Client, project_id: str) -> None:
    header = a_header(project_id, CONTENT, upload_id=str(uuid4()))
    owner.datasets.UploadDataset(an_upload(header, CONTENT))
    found = refusal(other.datasets.GetUpload, pb.GetUploadRequest(upload_id=header.upload_id))
    assert found.short == ("NOT_FOUND", "NOT_FOUND")


@pytest.mark.slow
def test_the_limits_of_uploads(tmp_path: Path) -> None:
    limits = {
        "MAX_UPLOAD_BYTES": "200000",
        "MAX_UPLOADS_PER_USER": "2",
        "PROJECT_STORAGE_BYTES": "150000",
        "UPLOAD_IDLE_SECONDS": "1",
    }
    with serving(tmp_path / "data", **limits) as server, Client(server.address, server.key) as owner:
        project_id = a_project_of(owner)
        found = refused(owner, a_header(project_id, CONTENT, size_bytes=200_001))
        assert found.short == ("INVALID_ARGUMENT", "TOO_LARGE")
        assert found.metadata["limit"] == "EASYML_MAX_UPLOAD_BYTES"
        found = refused(owner, a_header(project_id, CONTENT, size_bytes=200_000))
        assert found.short == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
        assert found.metadata["limit"] == "EASYML_PROJECT_STORAGE_BYTES"
        silent = threading.Event()

        def messages() -> Iterator[pb.UploadDatasetRequest]:
            yield pb.UploadDatasetRequest(header=a_header(project_id, CONTENT))
            silent.wait(30)

        calls = [owner.datasets.UploadDataset.future(messages()) for _ in range(2)]
        with pytest.raises(grpc.RpcError) as idle:
            calls[0].result()
        assert refusal_of(idle.value).short == ("UNAVAILABLE", "PART_UNAVAILABLE")
        with pytest.raises(grpc.RpcError):
            calls[1].result()
        silent.set()
        found = refused(owner, a_header(project_id, CONTENT))
        assert found.short == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
        assert found.metadata["limit"] == "EASYML_MAX_UPLOADS_PER_USER"


@pytest.mark.slow
def test_a_disk_without_room_is_said_and_nothing_stays(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", MIN_FREE_DISK_BYTES=str(1 << 60)) as server,
        Client(server.address, server.key) as owner,
    ):
        found = refused(owner, a_header(a_project_of(owner), CONTENT))
        assert found.short == ("RESOURCE_EXHAUSTED", "DISK_FULL")
        assert not list((tmp_path / "data" / "uploads").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_in_the_middle_is_said_and_what_is_safe_stays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "uploads").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", data / "uploads"], check=True)
    try:
        with serving(data, MIN_FREE_DISK_BYTES="0") as server, Client(server.address, server.key) as owner:
            content = a_table(1_200_000)
            header = a_header(a_project_of(owner), content, upload_id=str(uuid4()))
            found = refusal(owner.datasets.UploadDataset, an_upload(header, content, chunk=512 * 1024))
            assert found.short == ("RESOURCE_EXHAUSTED", "DISK_FULL")
            assert get(owner, header.upload_id).received_bytes == 8 << 20
    finally:
        subprocess.run(["umount", data / "uploads"], check=True)
