# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pytest

from easyml.v1 import dataset_pb2, model_pb2, model_service_pb2
from easyml.v1 import dataset_service_pb2 as pb
from easyml.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from easyml.v1.model_service_pb2_grpc import ModelServiceServicer
from easyml_client import AsyncEasyML, InvalidInput, errors
from easyml_client.plans.transfers import CHUNK_BYTES
from tests.unit.client.support import an_id, client_of, refuse, serving

PROJECT = an_id("project")


class Store(DatasetServiceServicer):
    """Keeps what is uploaded; breaks each call after a number of chunks, as `breaks` says."""

    def __init__(self, breaks: tuple[int, ...] = (), forget: int = 0) -> None:
        self.breaks = list(breaks)
        self.headers: list[pb.UploadHeader] = []
        self.chunks: list[int] = []
        self.data = bytearray()
        self.forget = forget

    def UploadDataset(self, requests: Iterator[pb.UploadDatasetRequest], context: Any) -> pb.UploadDatasetResponse:
        header = next(requests).header
        self.headers.append(header)
        if header.offset != len(self.data):
            received = {"received_bytes": str(len(self.data))}
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "OFFSET_MISMATCH", metadata=received)
        for number, request in enumerate(requests, start=1):
            self.data += request.chunk
            self.chunks.append(len(request.chunk))
            if self.breaks and number == self.breaks[0]:
                self.breaks.pop(0)
                del self.data[len(self.data) - self.forget :]
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_after=0.001)
        if hashlib.sha256(self.data).hexdigest() != header.sha256:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "CHECKSUM_MISMATCH")
        return pb.UploadDatasetResponse(dataset=dataset_pb2.Dataset(id=an_id("dataset"), name=header.name))

    def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.GetUploadResponse:
        if not self.headers:
            refuse(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert request.upload_id == self.headers[-1].upload_id
        return pb.GetUploadResponse(upload=dataset_pb2.Upload(received_bytes=len(self.data)))

    def GetDataset(self, request: pb.GetDatasetRequest, context: Any) -> pb.GetDatasetResponse:
        version = dataset_pb2.DatasetVersion(format=dataset_pb2.FILE_FORMAT_CSV)
        return pb.GetDatasetResponse(dataset=dataset_pb2.Dataset(id=request.dataset_id, current_version=version))

    def DownloadDataset(self, request: pb.DownloadDatasetRequest, context: Any) -> Iterator[pb.DownloadDatasetResponse]:
        self.formats = [*getattr(self, "formats", []), request.format]
        yield pb.DownloadDatasetResponse(header=self.header())
        for start in range(0, len(self.data), 100_000):
            if self.breaks:
                self.breaks.pop(0)
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_after=0.001)
            yield pb.DownloadDatasetResponse(chunk=bytes(self.data[start : start + 100_000]))

    def header(self) -> pb.DownloadHeader:
        digest = hashlib.sha256(self.data).hexdigest()
        return pb.DownloadHeader(filename="../../table.csv", size_bytes=len(self.data), sha256=digest)


def a_file(folder: Path, size: int = 3 * CHUNK_BYTES + 7, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    return path


def test_a_file_is_sent_in_chunks_with_its_length_and_digest(tmp_path: Path) -> None:
    store, path = Store(), a_file(tmp_path)
    told: list[tuple[int, int]] = []
    with client_of(store) as client:
        progress = lambda done, total: told.append((done, total))  # noqa: E731
        client.datasets.upload(PROJECT, path, name="t", labels={"a": "b"}, format="csv", progress=progress)
    header = store.headers[0]
    assert bytes(store.data) == path.read_bytes()
    assert store.chunks == [CHUNK_BYTES] * 3 + [7]
    assert (header.project_id, header.name, header.filename, header.format) == (PROJECT, "t", "table.csv", 1)
    assert (header.size_bytes, header.labels["a"]) == (path.stat().st_size, "b")
    assert told[0] == (0, header.size_bytes)
    assert told[-1] == (header.size_bytes, header.size_bytes)


@pytest.mark.parametrize("forget", [0, 1000])
def test_an_upload_that_breaks_goes_on_where_the_safe_bytes_end(tmp_path: Path, forget: int) -> None:
    store, path = Store(breaks=(2, 1), forget=forget), a_file(tmp_path)
    with client_of(store) as client:
        client.datasets.upload(PROJECT, path)
    assert bytes(store.data) == path.read_bytes()
    assert [header.offset for header in store.headers] == [0, 2 * CHUNK_BYTES - forget, 3 * CHUNK_BYTES - 2 * forget]
    assert len({header.upload_id for header in store.headers}) == 1


def test_an_upload_that_broke_after_the_last_byte_is_finished_by_the_header_alone(tmp_path: Path) -> None:
    store, path = Store(breaks=(4,)), a_file(tmp_path)
    with client_of(store) as client:
        client.datasets.upload(PROJECT, path)
    assert [header.offset for header in store.headers] == [0, path.stat().st_size]
    assert len(store.chunks) == 4


def test_an_upload_is_taken_up_by_its_id_in_another_client(tmp_path: Path) -> None:
    store, path = Store(), a_file(tmp_path)
    store.headers.append(pb.UploadHeader(upload_id=an_id("upload")))
    store.data += path.read_bytes()[:CHUNK_BYTES]
    with client_of(store) as client:
        client.datasets.upload(PROJECT, path, upload_id=an_id("upload"))
    assert bytes(store.data) == path.read_bytes()
    assert store.headers[-1].offset == CHUNK_BYTES


def test_an_upload_whose_offset_the_server_sees_differently_follows_the_server(tmp_path: Path) -> None:
    store, path = Store(), a_file(tmp_path)
    store.data += path.read_bytes()[:1000]
    with client_of(store) as client:
        client.datasets.upload(PROJECT, path)
    assert [header.offset for header in store.headers] == [0, 1000]


async def test_the_asyncio_client_goes_on_too(tmp_path: Path) -> None:
    store, path = Store(breaks=(2,)), a_file(tmp_path)
    with serving(store) as target:
        async with AsyncEasyML(target, "a-token") as client:
            await client.datasets.upload(PROJECT, path)
    assert bytes(store.data) == path.read_bytes()
    assert len(store.headers) == 2


def test_a_file_the_server_refuses_is_not_sent_again(tmp_path: Path) -> None:
    class Refusing(DatasetServiceServicer):
        calls = 0

        def UploadDataset(self, requests: Any, context: Any) -> pb.UploadDatasetResponse:
            self.calls += 1
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "UNREADABLE_FILE", "Line 3 has 5 cells, not 4.")

    servicer = Refusing()
    with client_of(servicer) as client, pytest.raises(errors.InvalidInput, match="Line 3") as caught:
        client.datasets.upload(PROJECT, a_file(tmp_path))
    assert (servicer.calls, caught.value.reason) == (1, "UNREADABLE_FILE")


def test_what_is_no_file_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with client_of() as client:
        with pytest.raises(errors.InvalidInput, match="No such file"):
            client.datasets.upload(PROJECT, tmp_path / "none.csv")
        with pytest.raises(errors.InvalidInput, match="is empty"):
            client.datasets.upload(PROJECT, tmp_path / "empty.csv")
        with pytest.raises(errors.InvalidInput, match="cannot be read"):
            client.datasets.upload(PROJECT, tmp_path)
        with pytest.raises(errors.InvalidInput, match="A list cannot be uploaded"):
            client.datasets.upload(PROJECT, [1, 2])
        with pytest.raises(errors.InvalidInput, match="pass name="):
            client.datasets.upload(PROJECT, pd.DataFrame({"a": [1]}))
        with pytest.raises(errors.InvalidInput, match="'docx' is no format; choose one of csv, xlsx, json, parquet"):
            client.datasets.upload(PROJECT, a_file(tmp_path), format="docx")


def test_a_file_that_fails_while_it_is_sent_fails_the_upload(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done:
            raise OSError("the disk is gone")

    with client_of(Store()) as client, pytest.raises(OSError, match="the disk is gone"):
        client.datasets.upload(PROJECT, a_file(tmp_path), progress=fail)


async def test_a_file_that_fails_while_it_is_sent_fails_the_upload_of_the_asyncio_client(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done:
            raise OSError("the disk is gone")

    with serving(Store()) as target:
        async with AsyncEasyML(target, "a-token") as client:
            with pytest.raises(OSError, match="the disk is gone"):
                await client.datasets.upload(PROJECT, a_file(tmp_path), progress=fail)


def test_a_data_frame_is_uploaded_as_parquet_and_read_back() -> None:
    frame, store = pd.DataFrame({"age": [39, 52], "plan": ["basic", None]}), Store()
    with client_of(store) as client:
        client.datasets.upload(PROJECT, frame, name="people/2026")
        assert store.headers[0].filename == "people_2026.parquet"
        pd.testing.assert_frame_equal(client.datasets.to_frame(an_id("dataset")), frame)
    assert store.formats == [dataset_pb2.FILE_FORMAT_PARQUET]


def a_store_with(data: bytes, breaks: tuple[int, ...] = ()) -> Store:
    store = Store(breaks)
    store.data += data
    return store


def test_a_download_is_checked_and_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    data = b"a,b\n" * 100_000
    with client_of(a_store_with(data)) as client:
        saved = client.datasets.download(an_id("dataset"), tmp_path / "mine.csv")
    assert saved == tmp_path / "mine.csv"
    assert saved.read_bytes() == data
    assert list(tmp_path.iterdir()) == [saved]


def test_the_servers_name_for_a_file_stays_in_the_folder(tmp_path: Path) -> None:
    with client_of(a_store_with(b"a\n1\n")) as client:
        assert client.datasets.download(an_id("dataset"), tmp_path) == tmp_path / "table.csv"


def test_a_file_whose_name_nobody_chose_replaces_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "table.csv"
    mine.write_text("mine")
    with client_of(a_store_with(b"a\n1\n")) as client:
        with pytest.raises(InvalidInput) as refused:
            client.datasets.download(an_id("dataset"), tmp_path)
        assert "path" in refused.value.fields
        assert mine.read_text() == "mine"
        assert list(tmp_path.iterdir()) == [mine]
        assert client.datasets.download(an_id("dataset"), mine).read_bytes() == b"a\n1\n"


def test_a_download_that_breaks_begins_anew(tmp_path: Path) -> None:
    data = b"a,b\n" * 100_000
    with client_of(a_store_with(data, breaks=(1,))) as client:
        assert client.datasets.download(an_id("dataset"), tmp_path).read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("lie", ["sha256", "size_bytes"])
def test_a_download_that_is_not_what_was_announced_is_thrown_away(tmp_path: Path, lie: str) -> None:
    class Lying(Store):
        def header(self) -> pb.DownloadHeader:
            header = super().header()
            setattr(header, lie, 10**9 if lie == "size_bytes" else "0" * 64)
            return header

    (tmp_path / "mine.csv").write_text("as it was")
    store = Lying()
    store.data += b"a\n1\n"
    with client_of(store) as client, pytest.raises(errors.TransferCorrupted, match="arrived damaged"):
        client.datasets.download(an_id("dataset"), tmp_path / "mine.csv")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"]


def test_a_download_to_nowhere_is_refused(tmp_path: Path) -> None:
    with client_of(a_store_with(b"a\n1\n")) as client, pytest.raises(errors.InvalidInput, match="cannot be written"):
        client.datasets.download(an_id("dataset"), tmp_path / "none" / "mine.csv")


def test_a_model_is_exported_by_name(tmp_path: Path) -> None:
    data = b"onnx" * 10

    class Models(ModelServiceServicer):
        def GetModelVersion(self, request: Any, context: Any) -> model_service_pb2.GetModelVersionResponse:
            self.name = request.name
            return model_service_pb2.GetModelVersionResponse(model_version=model_pb2.ModelVersion(id=an_id("version")))

        def ExportModel(self, request: Any, context: Any) -> Iterator[model_service_pb2.ExportModelResponse]:
            assert request.model_version_id == an_id("version")
            digest = hashlib.sha256(data).hexdigest()
            header = model_service_pb2.ExportHeader(filename="m.onnx", format=1, size_bytes=len(data), sha256=digest)
            yield model_service_pb2.ExportModelResponse(header=header)
            yield model_service_pb2.ExportModelResponse(chunk=data)

    models = Models()
    with client_of(models) as client:
        assert client.models.export("churn@production", tmp_path, project=PROJECT).read_bytes() == data
    assert (models.name.model_name, models.name.alias) == ("churn", "production")


def test_an_ending_that_names_no_format_of_a_model_is_no_silent_onnx(tmp_path: Path) -> None:
    with client_of() as client, pytest.raises(errors.InvalidInput, match=r"'\.pkl' names no format \(\.onnx, \.skops"):
        client.models.export(an_id("version"), tmp_path / "model.pkl")


@pytest.mark.parametrize(
    ("name", "format", "asked"),
    [
        ("t.parquet", None, dataset_pb2.FILE_FORMAT_PARQUET),
        ("t.XLSX", None, dataset_pb2.FILE_FORMAT_XLSX),
        # The file as it was uploaded, byte by byte.
        ("t.csv", None, dataset_pb2.FILE_FORMAT_UNSPECIFIED),
        ("t.bin", None, dataset_pb2.FILE_FORMAT_UNSPECIFIED),
        ("t.parquet", "json", dataset_pb2.FILE_FORMAT_JSON),
    ],
)
def test_the_ending_of_a_file_says_the_format(tmp_path: Path, name: str, format: str | None, asked: int) -> None:
    store = Store()
    with client_of(store) as client:
        client.datasets.download(an_id("dataset"), tmp_path / name, format=format)
    assert store.formats == [asked]
