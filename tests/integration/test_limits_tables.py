"""Limits of tables, uploaded and asked about: what just fits is taken, one more is refused with the setting's name."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from easyml.v1 import prediction_service_pb2, table_pb2
from easyml.v1 import training_service_pb2 as trainings
from tests.builders import a_header, a_project_of, a_training, an_upload, upload
from tests.marks import limits
from tests.servers import Client, Refusal, refusal, serving

pytestmark = pytest.mark.slow

MIB = 1 << 20
SETTINGS = {
    "MAX_UPLOAD_BYTES": 64 * MIB,
    "MAX_CHUNK_BYTES": 2 * MIB,
    "MAX_COLUMNS": 5,
    "MAX_ROWS": 50,
    "MAX_CELL_BYTES": 1000,
    "MAX_LINE_BYTES": 2048,
    "MAX_UNPACKED_BYTES": 3 * MIB,
    "MAX_UNPACKED_RATIO": 10,
    "MAX_MEMBERS": 20,
    "MAX_PREDICT_ROWS": 10,
    "MAX_PREDICT_CELLS": 16,
    "MAX_ARROW_BYTES": 4096,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The owner of a server with small limits."""
    settings = {name: str(value) for name, value in SETTINGS.items()}
    folder = tmp_path_factory.mktemp("limits") / "data"
    with serving(folder, **settings) as server, Client(server.address, server.key) as client:
        yield client


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return a_project_of(client)


def csv(columns: int = 2, rows: int = 3, cell: int = 1) -> bytes:
    header = ",".join(f"c{number}" for number in range(columns))
    return "\n".join([header, *[",".join(["x" * cell] * columns)] * rows, ""]).encode()


def json_lines(columns: int = 2, rows: int = 3, cell: int = 1) -> bytes:
    pairs = ",".join(f'"c{number}":"{"x" * cell}"' for number in range(columns))
    return f"{{{pairs}}}\n".encode() * rows


def parquet(columns: int = 2, rows: int = 3, cell: int = 1) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({f"c{number}": ["x" * cell] * rows for number in range(columns)}), buffer)
    return buffer.getvalue()


def workbook(columns: int = 2, rows: int = 3, cell: int = 1) -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, [f"c{number}" for number in range(columns)])
        for row in range(1, rows + 1):
            sheet.write_row(row, 0, ["x" * cell] * columns)
    return buffer.getvalue()


def with_parts(*contents: bytes) -> bytes:
    """A workbook with more parts."""
    buffer = io.BytesIO(workbook())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"xl/media/{number}", content)
    return buffer.getvalue()


def unpacked(content: bytes) -> tuple[int, int, int]:
    """Bytes of a workbook's parts unpacked and packed, and how many there are."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
    return sum(part.file_size for part in parts), sum(part.compress_size for part in parts), len(parts)


def refused(client: Client, project: str, content: bytes, filename: str) -> Refusal:
    header = a_header(project, content, filename=filename)
    return refusal(client.datasets.UploadDataset, an_upload(header, content, chunk=MIB))


def names(said: Refusal, setting: str) -> None:
    assert said.short == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert said.metadata == {"limit": f"EASYML_{setting}", "maximum": str(SETTINGS[setting])}
    assert f"EASYML_{setting}" in said.message
    assert said.retry_seconds is None


MAKERS = {"csv": csv, "jsonl": json_lines, "parquet": parquet, "xlsx": workbook}


@limits("MAX_COLUMNS", "MAX_ROWS", "MAX_CELL_BYTES")
@pytest.mark.parametrize("ending", MAKERS)
@pytest.mark.parametrize(
    ("setting", "size", "at"),
    [("MAX_COLUMNS", "columns", 5), ("MAX_ROWS", "rows", 50), ("MAX_CELL_BYTES", "cell", 1000)],
)
def test_a_table_at_a_limit_is_taken_and_one_more_is_refused(
    client: Client, project: str, ending: str, setting: str, size: str, at: int
) -> None:
    make: Callable[..., bytes] = MAKERS[ending]
    assert upload(client, project, make(**{size: at}), filename=f"table.{ending}").id
    names(refused(client, project, make(**{size: at + 1}), f"table.{ending}"), setting)


@limits("MAX_LINE_BYTES")
def test_a_line_at_the_limit_is_taken_and_a_longer_one_is_refused(client: Client, project: str) -> None:
    def line(length: int) -> bytes:
        least = len(json_lines(4, 1, 450).splitlines()[0])
        return json_lines(4, 1, 450).replace(b'"c0":"', b'"c0":"' + b"x" * (length - least))

    assert upload(client, project, line(2048) * 3, filename="table.jsonl").id
    names(refused(client, project, line(2048) * 2 + line(2049), "table.jsonl"), "MAX_LINE_BYTES")
    # CSV is read in blocks of this size, and a line that lies in two of them still passes.
    assert upload(client, project, csv(5, 3, 400)).id
    names(refused(client, project, csv(5, 3, 999), "table.csv"), "MAX_LINE_BYTES")


@limits("MAX_MEMBERS")
def test_a_workbook_has_as_many_parts_as_are_taken(client: Client, project: str) -> None:
    room = 20 - unpacked(workbook())[2]
    assert upload(client, project, with_parts(*[b"x"] * room), filename="table.xlsx").id
    names(refused(client, project, with_parts(*[b"x"] * (room + 1)), "table.xlsx"), "MAX_MEMBERS")


@limits("MAX_UNPACKED_BYTES")
def test_a_workbook_unpacks_to_as_many_bytes_as_are_taken(client: Client, project: str) -> None:
    room = 3 * MIB - unpacked(workbook())[0]
    noise = random.Random(1).randbytes(room)
    assert upload(client, project, with_parts(noise), filename="table.xlsx").id
    names(refused(client, project, with_parts(noise + b"x"), "table.xlsx"), "MAX_UNPACKED_BYTES")


@limits("MAX_UNPACKED_RATIO")
def test_a_workbook_unpacks_to_as_many_times_its_size_as_is_taken(client: Client, project: str) -> None:
    noise = random.Random(1).randbytes(200_000)

    def content(zeros: int) -> tuple[float, bytes]:
        made = with_parts(noise, b"\0" * zeros)
        whole, packed, _ = unpacked(made)
        return whole / packed, made

    below, above = content(1_810_000), content(1_900_000)
    assert 9.5 < below[0] <= 10 < above[0] < 10.5
    assert upload(client, project, below[1], filename="table.xlsx").id
    names(refused(client, project, above[1], "table.xlsx"), "MAX_UNPACKED_RATIO")


@limits("MAX_UPLOAD_BYTES")
def test_a_file_has_as_many_bytes_as_are_taken(client: Client, project: str) -> None:
    content = csv()
    stated = a_header(project, content, size_bytes=64 * MIB + 1, sha256="")
    names(refusal(client.datasets.UploadDataset, an_upload(stated, content)), "MAX_UPLOAD_BYTES")
    stated.size_bytes -= 1
    # Taken, and too little came.
    said = refusal(client.datasets.UploadDataset, an_upload(stated, content))
    assert said.short == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")


@limits("MAX_CHUNK_BYTES")
def test_a_chunk_has_as_many_bytes_as_are_taken(client: Client, project: str) -> None:
    content = parquet()
    header = a_header(project, b"x" * (3 * MIB), sha256="")
    said = refusal(client.datasets.UploadDataset, an_upload(header, b"x" * (3 * MIB), chunk=2 * MIB + 1))
    names(said, "MAX_CHUNK_BYTES")
    header = a_header(project, content, filename="table.parquet")
    assert client.datasets.UploadDataset(an_upload(header, content, chunk=2 * MIB)).dataset.id


@pytest.fixture(scope="module")
def version_id(client: Client, project: str) -> str:
    """A model of two columns."""
    lines = ["x,z,y", *(f"{n % 7},{n * 13 % 11},{'ab'[n % 7 > 3]}" for n in range(50))]
    dataset = upload(client, project, "\n".join(lines).encode())
    started = client.trainings.StartTraining(a_training(project, dataset.id)).experiment
    *_, last = client.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id))
    return str(last.event.finished.model_version_id)


def rows(count: int) -> dict[str, Any]:
    table = table_pb2.RowTable()
    for _number in range(count):
        table.rows.add().update({"x": 1, "z": 1})
    return {"rows": table}


def columns(count: int) -> dict[str, Any]:
    values = table_pb2.Int64Values(values=[1] * count)
    return {"columns": table_pb2.ColumnTable(columns=[table_pb2.Column(name=n, int64s=values) for n in "xz"])}


def arrow(count: int, name: str = "") -> dict[str, Any]:
    batch = pa.record_batch({"x": [1] * count, "z": [1] * count})
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, batch.schema.with_metadata({"name": name})) as writer:
        writer.write_batch(batch.replace_schema_metadata({"name": name}))
    return {"arrow": buffer.getvalue()}


@limits("MAX_PREDICT_CELLS")
@pytest.mark.parametrize("form", [rows, columns, arrow])
def test_a_prediction_has_as_many_cells_as_are_taken(
    client: Client, version_id: str, form: Callable[[int], dict[str, Any]]
) -> None:
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id, **form(8))
    assert len(client.predictions.Predict(request).predictions.strings.values) == 8
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id, **form(9))
    names(refusal(client.predictions.Predict, request), "MAX_PREDICT_CELLS")
    request = prediction_service_pb2.PredictRequest(model_version_id=version_id, **form(11))
    names(refusal(client.predictions.Predict, request), "MAX_PREDICT_ROWS")


@limits("MAX_ARROW_BYTES")
def test_an_arrow_part_has_as_many_bytes_as_are_taken(client: Client, version_id: str) -> None:
    sizes = {len(arrow(1, "x" * length)["arrow"]): length for length in range(2000, 4000)}
    assert 4096 in sizes
    for size in (4096, min(size for size in sizes if size > 4096)):
        request = prediction_service_pb2.PredictRequest(model_version_id=version_id, **arrow(1, "x" * sizes[size]))
        if size == 4096:
            assert client.predictions.Predict(request).prediction_id
        else:
            names(refusal(client.predictions.Predict, request), "MAX_ARROW_BYTES")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The owner of a server whose converters have little memory and room, and that takes few rows."""
    settings = {
        "MAX_PREDICT_ROWS": "10",
        "CONVERTER_MEMORY_BYTES": str(512 * MIB),
        "CONVERTER_FILE_BYTES": str(MIB),
    }
    folder = tmp_path_factory.mktemp("narrow") / "data"
    with serving(folder, **settings) as server, Client(server.address, server.key) as client:
        yield client


@limits("CONVERTER_MEMORY_BYTES")
def test_a_file_that_needs_more_memory_than_a_converter_has_is_refused(narrow: Client) -> None:
    """A text of nearly a megabyte, referred to from each of 400,000 rows."""
    text = pa.array(["x" * (MIB - 1)])
    buffer = io.BytesIO()
    for count, fits in ((4, True), (400_000, False)):
        buffer = io.BytesIO()
        table = pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), text)})
        pq.write_table(table, buffer, compression="zstd")
        if fits:
            assert upload(narrow, a_project_of(narrow), buffer.getvalue(), filename="table.parquet").id
            continue
        said = refused(narrow, a_project_of(narrow), buffer.getvalue(), "bomb.parquet")
        assert said.short == ("INVALID_ARGUMENT", "TOO_LARGE")
        assert said.metadata == {"limit": "EASYML_CONVERTER_MEMORY_BYTES", "maximum": str(512 * MIB)}


@limits("CONVERTER_FILE_BYTES")
def test_a_table_that_is_larger_than_a_converter_may_write_is_refused(narrow: Client) -> None:
    assert upload(narrow, a_project_of(narrow), csv(2, 3)).id
    draw = random.Random(0)
    content = "\n".join(["a", *(str(draw.random()) for _ in range(300_000)), ""]).encode()
    said = refused(narrow, a_project_of(narrow), content, "table.csv")
    assert said.short == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert said.metadata == {"limit": "EASYML_CONVERTER_FILE_BYTES", "maximum": str(MIB)}


@limits("CONVERTER_SECONDS")
def test_a_file_that_takes_longer_to_read_than_a_converter_may_is_refused(tmp_path: Path) -> None:
    # Time enough to start a converter on any machine, and several times as much to read.
    seconds = 4
    with (
        serving(tmp_path / "data", CONVERTER_SECONDS=str(seconds)) as server,
        Client(server.address, server.key) as client,
    ):
        assert upload(client, a_project_of(client), csv(2, 3)).id
        said = refused(client, a_project_of(client), json_lines(20, 300_000, 4), "table.jsonl")
    assert said.short == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert said.metadata == {"limit": "EASYML_CONVERTER_SECONDS", "maximum": str(seconds)}


@limits("MAX_PREDICT_ROWS")
def test_a_prediction_has_as_many_rows_as_are_taken(narrow: Client) -> None:
    project = a_project_of(narrow)
    started = narrow.trainings.StartTraining(a_training(project, upload(narrow, project).id)).experiment
    *_, last = narrow.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id))
    version_id = last.event.finished.model_version_id
    for form in (rows, columns, arrow):
        request = prediction_service_pb2.PredictRequest(model_version_id=version_id, **form(10))
        assert len(narrow.predictions.Predict(request).predictions.strings.values) == 10
        request = prediction_service_pb2.PredictRequest(model_version_id=version_id, **form(11))
        names(refusal(narrow.predictions.Predict, request), "MAX_PREDICT_ROWS")
