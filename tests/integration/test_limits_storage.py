"""How much is stored, and how many uploads are under way."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import dataset_service_pb2 as pb
from tests.builders import a_header, a_project_of, a_table, an_upload, register, upload
from tests.marks import limits
from tests.servers import Client, Refusal, refusal, refusal_of, serving

pytestmark = pytest.mark.slow

CONTENT = a_table(1000)


def begin(client: Client, project_id: str, upload_id: str = "") -> Refusal:
    """Send a part of a file: the upload stays unfinished, unless it may not begin."""
    header = a_header(project_id, CONTENT, upload_id=upload_id or str(uuid4()))
    return refusal(client.datasets.UploadDataset, an_upload(header, CONTENT[:100]))


def is_full(said: Refusal, setting: str, maximum: int) -> None:
    assert said.short == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
    assert said.metadata == {"limit": f"EASYML_{setting}", "maximum": str(maximum)}


@limits("MAX_UPLOADS", "MAX_UPLOADS_PER_USER")
def test_so_many_uploads_are_under_way_in_all_and_of_each_user(tmp_path: Path) -> None:
    settings = {"MAX_UPLOADS": "3", "MAX_UPLOADS_PER_USER": "2", "OPEN_REGISTRATION": "true"}
    with (
        serving(tmp_path / "data", **settings) as server,
        Client(server.address) as anonymous,
        Client(server.address, server.key) as owner,
        Client(server.address, register(anonymous).session.access_token) as second,
        Client(server.address, register(anonymous).session.access_token) as third,
    ):
        project_id, first = a_project_of(owner), a_header("", CONTENT, upload_id=str(uuid4()))
        first.project_id = project_id
        said = refusal(owner.datasets.UploadDataset, an_upload(first, CONTENT[:100]))
        assert said.metadata == {"received_bytes": "100"}
        assert begin(owner, project_id).metadata == {"received_bytes": "100"}
        said = begin(owner, project_id)
        is_full(said, "MAX_UPLOADS_PER_USER", 2)
        assert said.retry_seconds
        assert begin(second, a_project_of(second)).metadata == {"received_bytes": "100"}
        said = begin(third, a_project_of(third))
        is_full(said, "MAX_UPLOADS", 3)
        assert said.retry_seconds
        # One that is finished makes room.
        first.offset = 100
        assert owner.datasets.UploadDataset(an_upload(first, CONTENT)).dataset.id
        assert begin(third, a_project_of(third)).metadata == {"received_bytes": "100"}


@limits("PROJECT_STORAGE_BYTES")
def test_a_project_stores_so_many_bytes(tmp_path: Path) -> None:
    maximum = len(CONTENT)
    with (
        serving(tmp_path / "data", PROJECT_STORAGE_BYTES=str(maximum)) as server,
        Client(server.address, server.key) as owner,
    ):
        project_id = a_project_of(owner)

        def refused(content: bytes) -> Refusal:
            return refusal(owner.datasets.UploadDataset, an_upload(a_header(project_id, content), content))

        is_full(refused(CONTENT + b"1,2,a\n"), "PROJECT_STORAGE_BYTES", maximum)
        dataset = upload(owner, project_id, CONTENT)
        # Full now; what is deleted makes room.
        is_full(refused(b"a,b\n1,2\n"), "PROJECT_STORAGE_BYTES", maximum)
        owner.datasets.DeleteDataset(pb.DeleteDatasetRequest(dataset_id=dataset.id))
        assert upload(owner, project_id, b"a,b\n1,2\n").id


@limits("UPLOAD_IDLE_SECONDS")
def test_an_upload_that_is_silent_is_cut_off_and_goes_on_later(tmp_path: Path) -> None:
    with serving(tmp_path / "data", UPLOAD_IDLE_SECONDS="1") as server, Client(server.address, server.key) as owner:
        header = a_header(a_project_of(owner), CONTENT, upload_id=str(uuid4()))
        silent = threading.Event()

        def messages() -> Iterator[pb.UploadDatasetRequest]:
            yield pb.UploadDatasetRequest(header=header)
            yield pb.UploadDatasetRequest(chunk=CONTENT[:100])
            silent.wait(60)

        call = owner.datasets.UploadDataset.future(messages())
        with pytest.raises(grpc.RpcError) as caught:
            call.result()
        silent.set()
        said = refusal_of(caught.value)
        assert said.short == ("UNAVAILABLE", "PART_UNAVAILABLE")
        assert (said.metadata, said.retry_seconds) == ({"part": "upload"}, 1)
        rest = a_header(header.project_id, CONTENT, upload_id=header.upload_id, name=header.name, offset=100)
        assert owner.datasets.UploadDataset(an_upload(rest, CONTENT)).dataset.id


@limits("UPLOAD_EXPIRY_HOURS")
def test_an_upload_that_nobody_continues_is_forgotten_with_its_bytes(tmp_path: Path) -> None:
    upload_id = str(uuid4())
    get = pb.GetUploadRequest(upload_id=upload_id)
    for hours, kept in (("1", True), ("0.0001", False)):
        data = tmp_path / hours / "data"
        data.parent.mkdir()
        with serving(data, UPLOAD_EXPIRY_HOURS=hours) as server, Client(server.address, server.key) as owner:
            begin(owner, a_project_of(owner), upload_id)
            assert owner.datasets.GetUpload(get).upload.received_bytes == 100
            expires = owner.datasets.GetUpload(get).upload.expire_time.ToDatetime()
        # A server looks for these when it starts, and now and then.
        with serving(data, UPLOAD_EXPIRY_HOURS=hours) as server, Client(server.address, server.key) as owner:
            if kept:
                assert owner.datasets.GetUpload(get).upload.expire_time.ToDatetime() == expires
                continue
            while owner.datasets.GetUpload.future(get).exception() is None:
                pass
            assert refusal(owner.datasets.GetUpload, get).short == ("NOT_FOUND", "NOT_FOUND")
            while any((data / "uploads").iterdir()):
                pass


@limits("MIN_FREE_DISK_BYTES")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_some_of_the_disk_stays_free(tmp_path: Path) -> None:
    data, mib = tmp_path / "data", 1 << 20
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", data], check=True)
    try:
        with serving(data, MIN_FREE_DISK_BYTES=str(40 * mib)) as server, Client(server.address, server.key) as owner:
            project_id = a_project_of(owner)
            assert upload(owner, project_id).id
            filler = data / "filler"
            filler.write_bytes(b"x" * (24 * mib))
            header = a_header(project_id, CONTENT)
            said = refusal(owner.datasets.UploadDataset, an_upload(header, CONTENT))
            assert said.short == ("RESOURCE_EXHAUSTED", "DISK_FULL")
            filler.unlink()
            assert upload(owner, project_id).id
    finally:
        subprocess.run(["umount", data], check=True)
