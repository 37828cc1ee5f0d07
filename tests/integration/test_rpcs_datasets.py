"""DatasetService as callers see it: what a table looks like, what can be changed, and in which forms it comes back."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow.parquet as pq
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from easyml.v1 import dataset_pb2, project_pb2
from easyml.v1 import dataset_service_pb2 as pb
from easyml.v1 import training_service_pb2 as trainings
from tests.builders import a_header, a_long_training, a_table, a_training, an_upload, upload
from tests.conftest import World
from tests.marks import answers, refuses
from tests.servers import Client, ServerProcess, refusal

ROLE = dataset_pb2.ColumnRole.Value
KIND = dataset_pb2.ColumnKind.Value
MIXED = (
    "id,size,city,member,since,empty\n"
    "1,1.5,Oslo,true,2024-02-29T12:00:00Z,\n"
    "2,,Zürich,false,2024-03-01T00:00:00Z,\n"
    '3,-0.25,"A, b",,,\n'
)


def get(client: Client, dataset_id: str) -> dataset_pb2.Dataset:
    found: dataset_pb2.Dataset = client.datasets.GetDataset(pb.GetDatasetRequest(dataset_id=dataset_id)).dataset
    return found


def unmeasured(client: Client, dataset_id: str) -> dataset_pb2.Dataset:
    """As uploads and changes return it: without what the columns hold."""
    found = get(client, dataset_id)
    assert found.current_version.HasField("statistics")
    found.current_version.ClearField("statistics")
    return found


@pytest.fixture(scope="module")
def mixed(owner: Client, world: World) -> dataset_pb2.Dataset:
    """A table with a column of each type, which tests only read."""
    return upload(owner, world.project_id, MIXED.encode(), filename="mixed.csv", labels={"of": "types"})


@answers("DatasetService/GetDataset")
def test_a_dataset_says_what_is_in_it(owner: Client, world: World, mixed: dataset_pb2.Dataset) -> None:
    found = get(owner, mixed.id)
    assert unmeasured(owner, mixed.id) == mixed
    assert (found.project_id, dict(found.labels), found.current_version.version) == (
        world.project_id,
        {"of": "types"},
        1,
    )
    version = found.current_version
    assert (version.filename, version.format) == ("mixed.csv", dataset_pb2.FILE_FORMAT_CSV)
    assert (version.size_bytes, version.sha256) == (
        len(MIXED.encode()),
        hashlib.sha256(MIXED.encode()).hexdigest(),
    )
    types = {c.name: dataset_pb2.StorageType.Name(c.storage_type) for c in version.schema.columns}
    assert types == {
        "id": "STORAGE_TYPE_INT64",
        "size": "STORAGE_TYPE_DOUBLE",
        "city": "STORAGE_TYPE_STRING",
        "member": "STORAGE_TYPE_BOOL",
        "since": "STORAGE_TYPE_TIMESTAMP",
        "empty": "STORAGE_TYPE_DOUBLE",
    }
    assert version.schema.row_count == 3
    assert [(c.null_count, c.distinct_count) for c in version.schema.columns] == [
        (0, 3), (1, 2), (0, 3), (1, 2), (1, 2), (3, 0),
    ]  # fmt: skip
    warned = {(w.column, dataset_pb2.DatasetWarningKind.Name(w.kind)) for w in version.warnings}
    assert ("empty", "DATASET_WARNING_KIND_ALL_NULL") in warned


@answers("DatasetService/GetDataset")
def test_a_dataset_says_what_its_columns_hold(owner: Client, mixed: dataset_pb2.Dataset) -> None:
    statistics = get(owner, mixed.id).current_version.statistics
    assert statistics.sampled_rows == 3
    found = {column.name: column for column in statistics.columns}
    assert list(found) == ["id", "size", "city", "member", "since", "empty"]
    numbers = found["size"].numbers
    assert (found["size"].value_count, numbers.minimum, numbers.maximum) == (2, -0.25, 1.5)
    assert (numbers.mean, numbers.lower_quartile, numbers.median) == (0.625, 0.1875, 0.625)
    assert numbers.standard_deviation == pytest.approx(1.2374, abs=1e-4)
    assert not found["size"].frequent_values
    assert [(each.value, each.count) for each in found["member"].frequent_values] == [("false", 1), ("true", 1)]
    assert [each.value for each in found["city"].frequent_values] == ["A, b", "Oslo", "Zürich"]
    assert not found["city"].HasField("numbers")
    times = found["since"].times
    assert (times.earliest.ToJsonString(), times.latest.ToJsonString()) == (
        "2024-02-29T12:00:00Z",
        "2024-03-01T00:00:00Z",
    )
    empty = found["empty"]
    assert (empty.value_count, empty.HasField("times"), empty.numbers.HasField("mean")) == (0, False, False)


def test_a_basic_view_has_all_but_what_the_columns_hold(owner: Client, mixed: dataset_pb2.Dataset) -> None:
    request = pb.GetDatasetRequest(dataset_id=mixed.id, view=project_pb2.RESOURCE_VIEW_BASIC)
    assert owner.datasets.GetDataset(request).dataset == mixed
    request.view = 9  # type: ignore[assignment]  # no view
    said = refusal(owner.datasets.GetDataset, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["view"])


@refuses("DatasetService/GetDataset")
@pytest.mark.parametrize("dataset_id", ["", "x", "../../etc", "0" * 40])
def test_an_id_that_is_none_is_named(owner: Client, dataset_id: str) -> None:
    said = refusal(owner.datasets.GetDataset, pb.GetDatasetRequest(dataset_id=dataset_id))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["dataset_id"])


@answers("DatasetService/ListDatasets")
def test_datasets_are_listed_by_name_label_and_view_in_pages(owner: Client, project_id: str) -> None:
    for name, value in (("b", "x"), ("a", "x"), ("c", "y")):
        upload(owner, project_id, name=f"t-{name}", labels={"team": value})
    upload(owner, project_id, name="other")

    def listed(**filters: Any) -> str:
        request, names = pb.ListDatasetsRequest(project_id=project_id, page_size=2, name_prefix="t-", **filters), ""
        while True:
            page = owner.datasets.ListDatasets(request)
            assert len(page.datasets) <= 2
            names += "".join(dataset.name[-1] for dataset in page.datasets)
            if not page.next_page_token:
                return names
            request.page_token = page.next_page_token

    assert listed() == "cab"
    assert listed(order_by=pb.DATASET_ORDER_CREATE_TIME_ASC) == "bac"
    assert listed(order_by=pb.DATASET_ORDER_NAME_ASC) == "abc"
    assert listed(labels={"team": "x"}) == "ab"
    basic, full = (
        owner.datasets.ListDatasets(pb.ListDatasetsRequest(project_id=project_id, view=view)).datasets
        for view in (project_pb2.RESOURCE_VIEW_BASIC, project_pb2.RESOURCE_VIEW_FULL)
    )
    assert full[0] == get(owner, full[0].id)
    schema = basic[0].current_version.schema
    assert (schema.row_count, list(schema.columns)) == (60, [])


@refuses("DatasetService/ListDatasets")
def test_a_page_of_another_list_is_refused(owner: Client, project_id: str) -> None:
    for _ in range(2):
        upload(owner, project_id)
    request = pb.ListDatasetsRequest(project_id=project_id, page_size=1)
    request.page_token = owner.datasets.ListDatasets(request).next_page_token
    request.order_by = pb.DATASET_ORDER_NAME_ASC
    said = refusal(owner.datasets.ListDatasets, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"), ["page_token"])


def an_update(dataset_id: str, *paths: str, **values: Any) -> pb.UpdateDatasetRequest:
    return pb.UpdateDatasetRequest(dataset_id=dataset_id, update_mask=FieldMask(paths=paths), **values)


@answers("DatasetService/UpdateDataset")
def test_only_what_the_mask_names_changes(owner: Client, project_id: str) -> None:
    old = upload(owner, project_id, labels={"a": "1"})
    setting = pb.ColumnSetting(name="y", role=ROLE("COLUMN_ROLE_TARGET"))  # type: ignore[arg-type]  # an enum's number
    request = an_update(old.id, "description", "columns", description="new", name="not this", columns=[setting])
    changed = owner.datasets.UpdateDataset(request).dataset
    assert (changed.name, changed.description, dict(changed.labels)) == (old.name, "new", {"a": "1"})
    assert changed.etag != old.etag
    roles = {c.name: c.role for c in changed.current_version.schema.columns}
    assert roles == {
        "x": ROLE("COLUMN_ROLE_FEATURE"),
        "z": ROLE("COLUMN_ROLE_FEATURE"),
        "y": ROLE("COLUMN_ROLE_TARGET"),
    }
    assert unmeasured(owner, old.id) == changed
    # A training finds the target by its role.
    request_of_training = a_training(project_id, old.id, target="", validate_only=True)
    assert owner.trainings.StartTraining(request_of_training).plan.spec.target == "y"


def test_a_role_that_one_column_has_leaves_its_former_holder(owner: Client, project_id: str) -> None:
    dataset = upload(owner, project_id)
    for name in ("y", "x"):
        setting = pb.ColumnSetting(name=name, role=ROLE("COLUMN_ROLE_TARGET"))  # type: ignore[arg-type]  # an enum's number
        changed = owner.datasets.UpdateDataset(an_update(dataset.id, "columns", columns=[setting])).dataset
    targets = [c.name for c in changed.current_version.schema.columns if c.role == ROLE("COLUMN_ROLE_TARGET")]
    assert targets == ["x"]


@refuses("DatasetService/UpdateDataset")
@pytest.mark.parametrize(
    ("setting", "reason", "field"),
    [
        ({"name": "none", "role": ROLE("COLUMN_ROLE_TARGET")}, "UNKNOWN_COLUMN", "columns[0].name"),
        ({"name": "y", "kind": KIND("COLUMN_KIND_NUMERIC")}, "INVALID_FIELD", "columns[0].kind"),
        ({"name": "x", "kind": KIND("COLUMN_KIND_DATETIME")}, "INVALID_FIELD", "columns[0].kind"),
        ({"name": "x", "role": 99}, "INVALID_FIELD", "columns[0].role"),
    ],
)
def test_a_setting_that_does_not_suit_its_column_is_named(
    owner: Client, world: World, setting: dict[str, Any], reason: str, field: str
) -> None:
    request = an_update(world.dataset_id, "columns", columns=[pb.ColumnSetting(**setting)])
    said = refusal(owner.datasets.UpdateDataset, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", reason), [field])


def test_of_a_name_that_is_taken_and_an_etag_that_is_old_nothing_changes(owner: Client, project_id: str) -> None:
    one, other = upload(owner, project_id, name="one"), upload(owner, project_id, name="other")
    said = refusal(owner.datasets.UpdateDataset, an_update(other.id, "name", name="one"))
    assert (said.short, said.metadata) == (("ALREADY_EXISTS", "NAME_TAKEN"), {"name": "one"})
    renamed = owner.datasets.UpdateDataset(an_update(one.id, "name", name="two", etag=one.etag)).dataset
    said = refusal(owner.datasets.UpdateDataset, an_update(one.id, "name", name="three", etag=one.etag))
    assert said.short == ("ABORTED", "STALE_ETAG")
    assert (unmeasured(owner, one.id), unmeasured(owner, other.id)) == (renamed, other)


@answers("DatasetService/DeleteDataset")
@refuses("DatasetService/DeleteDataset")
def test_a_dataset_that_experiments_refer_to_goes_with_force(
    owner: Client, shared_server: ServerProcess, project_id: str
) -> None:
    dataset = upload(owner, project_id)
    started = owner.trainings.StartTraining(a_training(project_id, dataset.id)).experiment
    list(owner.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id)))
    files = Path(shared_server.data) / "files" / project_id / "datasets"
    stored = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
    request = pb.DeleteDatasetRequest(dataset_id=dataset.id)
    said = refusal(owner.datasets.DeleteDataset, request)
    assert (said.short, said.metadata) == (("FAILED_PRECONDITION", "IN_USE"), {"experiments": "1"})
    request.force = True
    for request.validate_only in (True, False):
        request.etag = "another"
        assert refusal(owner.datasets.DeleteDataset, request).short == ("ABORTED", "STALE_ETAG")
        request.etag = dataset.etag
        assert unmeasured(owner, dataset.id) == dataset
        deleted = owner.datasets.DeleteDataset(request).deleted
        assert deleted == project_pb2.DeletedResources(datasets=1, bytes_freed=stored)
    assert not list(files.iterdir())
    ended = owner.trainings.GetExperiment(trainings.GetExperimentRequest(experiment_id=started.id)).experiment
    assert (ended.dataset_name, ended.dataset_sha256) == (dataset.name, dataset.current_version.sha256)
    assert ended.model_version_id


def test_a_dataset_that_is_trained_on_stays(owner: Client, project_id: str) -> None:
    dataset = upload(owner, project_id)
    started = owner.trainings.StartTraining(a_long_training(project_id, dataset.id)).experiment
    request = pb.DeleteDatasetRequest(dataset_id=dataset.id, force=True)
    said = refusal(owner.datasets.DeleteDataset, request)
    assert (said.short, said.metadata) == (("FAILED_PRECONDITION", "IN_USE"), {"active_trainings": "1"})
    owner.trainings.CancelTraining(trainings.CancelTrainingRequest(experiment_id=started.id))
    list(owner.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id)))
    assert owner.datasets.DeleteDataset(request).deleted.datasets == 1


@answers("DatasetService/PreviewDataset")
def test_a_preview_shows_the_first_rows_as_they_are_stored(owner: Client, mixed: dataset_pb2.Dataset) -> None:
    request = pb.PreviewDatasetRequest(dataset_id=mixed.id, rows=2)
    preview = owner.datasets.PreviewDataset(request)
    columns = {column.name: column for column in preview.table.columns}
    assert list(columns) == ["id", "size", "city", "member", "since", "empty"]
    assert list(columns["id"].int64s.values) == [1, 2]
    assert (columns["size"].doubles.values[0], list(columns["size"].null_positions)) == (1.5, [1])
    assert list(columns["city"].strings.values) == ["Oslo", "Zürich"]
    assert list(columns["member"].bools.values) == [True, False]
    assert list(columns["since"].timestamps.micros) == [1_709_208_000_000_000, 1_709_251_200_000_000]
    assert list(columns["empty"].null_positions) == [0, 1]
    assert (preview.schema.row_count, preview.truncated) == (3, False)
    request.columns.extend(["size", "id"])
    chosen = owner.datasets.PreviewDataset(request)
    assert [c.name for c in chosen.table.columns] == [c.name for c in chosen.schema.columns] == ["size", "id"]
    request.rows = 1000
    assert len(owner.datasets.PreviewDataset(request).table.columns[1].int64s.values) == 3


@refuses("DatasetService/PreviewDataset")
def test_a_preview_of_what_is_not_there_is_refused(owner: Client, mixed: dataset_pb2.Dataset) -> None:
    said = refusal(owner.datasets.PreviewDataset, pb.PreviewDatasetRequest(dataset_id=mixed.id, columns=["id", "beak"]))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "UNKNOWN_COLUMN"), ["columns[1]"])
    assert said.metadata == {"column": "beak"}
    for rows in (-1, 1001):
        said = refusal(owner.datasets.PreviewDataset, pb.PreviewDatasetRequest(dataset_id=mixed.id, rows=rows))
        assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["rows"])


def test_a_preview_that_would_be_too_large_is_cut_and_says_so(owner: Client, project_id: str) -> None:
    content = b"text\n" + b"\n".join(b"x" * 100_000 for _ in range(60)) + b"\n"
    dataset = upload(owner, project_id, content)
    preview = owner.datasets.PreviewDataset(pb.PreviewDatasetRequest(dataset_id=dataset.id, rows=60))
    assert preview.truncated
    assert 20 < len(preview.table.columns[0].strings.values) < 60
    assert preview.ByteSize() < 4 << 20


def downloaded(client: Client, dataset_id: str, format: int = 0) -> tuple[pb.DownloadHeader, bytes]:
    request = pb.DownloadDatasetRequest(dataset_id=dataset_id, format=format)  # type: ignore[arg-type]  # an enum's number
    first, *rest = client.datasets.DownloadDataset(request)
    content = b"".join(part.chunk for part in rest)
    assert first.header.size_bytes == len(content)
    assert first.header.sha256 == hashlib.sha256(content).hexdigest()
    return first.header, content


READERS = {
    "csv": lambda content: pd.read_csv(io.BytesIO(content)),
    "xlsx": lambda content: pd.read_excel(io.BytesIO(content), engine="calamine"),
    "json": lambda content: pd.DataFrame(json.loads(content)),
    "parquet": lambda content: pq.read_table(io.BytesIO(content)).to_pandas(),
}


@answers("DatasetService/DownloadDataset")
@pytest.mark.parametrize("name", READERS)
def test_a_table_comes_back_in_each_format(owner: Client, mixed: dataset_pb2.Dataset, name: str) -> None:
    format = dataset_pb2.FileFormat.Value(f"FILE_FORMAT_{name.upper()}")
    header, content = downloaded(owner, mixed.id, format)
    assert (header.filename, header.format) == (f"mixed.{name}", format)
    frame = READERS[name](content)
    assert list(frame.columns) == ["id", "size", "city", "member", "since", "empty"]
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["size"].fillna(-1).tolist() == [1.5, -1, -0.25]
    assert frame["city"].tolist() == ["Oslo", "Zürich", "A, b"]
    assert frame["member"][:2].tolist() == [True, False]
    assert frame["member"].isna().tolist() == frame["since"].isna().tolist() == [False, False, True]
    assert pd.to_datetime(frame["since"], utc=True)[0] == pd.Timestamp("2024-02-29T12:00:00Z")
    assert frame["empty"].isna().all()


@pytest.mark.parametrize("name", READERS)
def test_what_was_downloaded_can_be_uploaded_and_is_the_same_table(
    owner: Client, project_id: str, mixed: dataset_pb2.Dataset, name: str
) -> None:
    format = dataset_pb2.FileFormat.Value(f"FILE_FORMAT_{name.upper()}")
    _, content = downloaded(owner, mixed.id, format)
    again = upload(owner, project_id, content, filename=f"again.{name}")
    columns = [
        [(c.name, c.storage_type, c.null_count, c.distinct_count) for c in dataset.current_version.schema.columns]
        for dataset in (mixed, again)
    ]
    assert columns[0] == columns[1]


def test_without_a_format_the_file_comes_back_byte_by_byte(owner: Client, mixed: dataset_pb2.Dataset) -> None:
    header, content = downloaded(owner, mixed.id)
    assert (header.filename, content) == ("mixed.csv", MIXED.encode())


@refuses("DatasetService/DownloadDataset")
def test_a_format_that_is_none_is_named(owner: Client, mixed: dataset_pb2.Dataset) -> None:
    request = pb.DownloadDatasetRequest(dataset_id=mixed.id, format=99)  # type: ignore[arg-type]  # on purpose
    said = refusal(owner.datasets.DownloadDataset, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["format"])


def test_a_file_name_is_text_and_never_a_path(owner: Client, shared_server: ServerProcess, project_id: str) -> None:
    for filename in ("../../../escape.csv", "/etc/passwd.csv", "C:\\windows\\x.csv", "a\u0301.csv"):
        content = a_table()
        header = a_header(project_id, content, filename=filename, name="", upload_id=str(uuid4()))
        dataset = owner.datasets.UploadDataset(an_upload(header, content)).dataset
        assert not {"/", "\\"} & set(dataset.name)
        owner.datasets.DeleteDataset(pb.DeleteDatasetRequest(dataset_id=dataset.id))
    assert not list(Path(shared_server.data).parent.rglob("*escape*"))
    header.filename = "\u202evsc.csv"
    header.upload_id = str(uuid4())
    said = refusal(owner.datasets.UploadDataset, an_upload(header, content))
    assert said.short == ("INVALID_ARGUMENT", "INVALID_FIELD")
