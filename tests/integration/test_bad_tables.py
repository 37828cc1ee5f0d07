"""Tables as people have them: each oddity is refused with the way out, or handled as documented and warned about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from easyml.v1 import dataset_pb2, experiment_pb2
from easyml.v1 import dataset_service_pb2 as datasets
from easyml.v1 import training_service_pb2 as trainings
from tests.builders import a_header, a_project_of, a_training, an_upload, upload
from tests.integration.test_hostile_files import a_lying_footer, a_workbook
from tests.servers import Client, refusal

WARNING = dataset_pb2.DatasetWarningKind.Name
NOTICED = experiment_pb2.TrainingWarningKind.Name
STATES = experiment_pb2.TrainingState


@pytest.fixture(scope="module")
def project_id(owner: Client) -> str:
    return a_project_of(owner)


@dataclass(frozen=True)
class Bad:
    """A file that is refused: its reason, what the metadata says, and a word of the way out."""

    content: Callable[[], bytes]
    filename: str
    way_out: str
    reason: str = "UNREADABLE_FILE"
    metadata: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()


def csv(*lines: str) -> Callable[[], bytes]:
    return lambda: "\n".join([*lines, ""]).encode()


BAD = {
    "an empty file": Bad(
        lambda: b"", "t.csv", "greater than 0", "INVALID_FIELD", fields=("header.size_bytes",)
    ),
    "nothing but a line's end": Bad(lambda: b"\n", "t.csv", "upload one with", metadata=(("format", "csv"),)),
    "a header without rows": Bad(csv("a,b"), "t.csv", "upload one with rows", metadata=(("format", "csv"),)),
    "ragged rows": Bad(csv("a,b", "1,2", "3"), "t.csv", "Line 3", metadata=(("format", "csv"), ("line", "3"))),
    "duplicate names": Bad(
        csv("a,b,a", "1,2,3"), "t.csv", "'a'", metadata=(("format", "csv"), ("line", "1"))
    ),
    "a wrong ending": Bad(csv("a,b", "1,2"), "t.parquet", "Parquet", metadata=(("format", "parquet"),)),
    "a workbook named csv": Bad(a_workbook, "t.csv", "xlsx", metadata=(("format", "csv"),)),
    "an unknown ending": Bad(csv("a,b", "1,2"), "t.dat", "format", "INVALID_FIELD", fields=("header.format",)),
    "a cell of 10 MB": Bad(
        lambda: b"a,b\n1," + b"x" * (10 << 20) + b"\n", "t.csv", "EASYML_MAX_", "TOO_LARGE",
    ),
    "a truncated workbook": Bad(lambda: a_workbook()[:2000], "t.xlsx", "save it again", metadata=(("format", "xlsx"),)),
    "a JSON that is no table": Bad(
        lambda: b'{"a": {"b": [1]}}', "t.json", "flat objects", metadata=(("format", "json"),)
    ),
    "a JSON list of numbers": Bad(lambda: b"[1, 2]", "t.json", "array of objects", metadata=(("format", "json"),)),
    "a Parquet with a lying footer": Bad(
        lambda: a_lying_footer(2**31), "t.parquet", "Parquet", metadata=(("format", "parquet"),)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_the_way_out_and_leaves_nothing(owner: Client, name: str) -> None:
    bad, project_id = BAD[name], a_project_of(owner)
    content = bad.content()
    header = a_header(project_id, content, filename=bad.filename)
    said = refusal(owner.datasets.UploadDataset, an_upload(header, content, chunk=1 << 20))
    assert said.short == ("INVALID_ARGUMENT", bad.reason)
    assert bad.way_out in said.message
    assert said.message.endswith(".")
    assert said.fields == list(bad.fields)
    if bad.metadata:
        assert said.metadata == dict(bad.metadata)
    assert not owner.datasets.ListDatasets(datasets.ListDatasetsRequest(project_id=project_id)).datasets


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sha256": "0" * 64}, "header.sha256"),
        ({"size_bytes": 7, "sha256": ""}, "chunk"),
        ({"size_bytes": 99}, "chunk"),
    ],
)
def test_bytes_that_are_not_what_was_stated_are_refused(
    owner: Client, project_id: str, change: dict[str, Any], field: str
) -> None:
    content = b"a,b\n1,2\n"
    said = refusal(owner.datasets.UploadDataset, an_upload(a_header(project_id, content, **change), content))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "CHECKSUM_MISMATCH"), [field])


def warned(dataset: dataset_pb2.Dataset) -> set[tuple[str, str]]:
    return {
        (WARNING(each.kind).removeprefix("DATASET_WARNING_KIND_"), each.column)
        for each in dataset.current_version.warnings
    }


def column(client: Client, dataset: dataset_pb2.Dataset, name: str) -> Any:
    request = datasets.PreviewDatasetRequest(dataset_id=dataset.id, columns=[name])
    return client.datasets.PreviewDataset(request).table.columns[0]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_text_that_is_not_utf_8_is_read_and_warned_about(owner: Client, project_id: str, encoding: str) -> None:
    dataset = upload(owner, project_id, "Stadt,n\nZürich,1\nÖdenburg,2\nBern,3\n".encode(encoding))
    assert list(column(owner, dataset, "Stadt").strings.values) == ["Zürich", "Ödenburg", "Bern"]
    assert ("ENCODING", "") in warned(dataset)
    message = next(each.message for each in dataset.current_version.warnings if WARNING(each.kind).endswith("ENCODING"))
    assert message.endswith(".")


def test_a_quoted_newline_belongs_to_its_cell(owner: Client, project_id: str) -> None:
    dataset = upload(owner, project_id, b'a,b\n"one\ntwo",1\nthree,2\n')
    assert list(column(owner, dataset, "a").strings.values) == ["one\ntwo", "three"]
    assert dataset.current_version.schema.row_count == 2


def test_five_thousand_columns_are_a_table(owner: Client, project_id: str) -> None:
    names = [f"c{number}" for number in range(5_000)]
    content = "\n".join([",".join(names), ",".join(map(str, range(5_000))), ",".join(["7"] * 5_000), ""]).encode()
    dataset = upload(owner, project_id, content)
    assert [each.name for each in dataset.current_version.schema.columns] == names
    assert list(column(owner, dataset, "c4999").int64s.values) == [4999, 7]


@pytest.mark.parametrize(
    ("cells", "kind", "storage", "values"),
    [
        (["1", "two", "3.5"], "MIXED_TYPES", "strings", ["1", "two", "3.5"]),
        (["1.5", "inf", "-inf"], "INFINITE_VALUES", "doubles", [1.5, float("inf"), -float("inf")]),
        (["", "", ""], "ALL_NULL", "doubles", [0, 0, 0]),
        (["7", "7", "7"], "CONSTANT", "int64s", [7, 7, 7]),
    ],
)
def test_an_odd_column_is_kept_and_warned_about(
    owner: Client, project_id: str, cells: list[str], kind: str, storage: str, values: list[Any]
) -> None:
    dataset = upload(owner, project_id, "\n".join(["odd,n", *(f"{c},{n}" for n, c in enumerate(cells)), ""]).encode())
    assert (kind, "odd") in warned(dataset)
    assert list(getattr(column(owner, dataset, "odd"), storage).values) == values


def a_table(**columns: Callable[[int], Any]) -> bytes:
    rows = [",".join(columns)]
    rows += [",".join(str(make(number)) for make in columns.values()) for number in range(60)]
    return "\n".join([*rows, ""]).encode()


def x(number: int) -> float:
    return number % 7 + number / 1000


def y(number: int) -> str:
    return "ab"[number % 7 > 3]


def always(cell: str) -> Callable[[int], str]:
    return lambda _: cell


def test_a_column_that_looks_like_an_identifier_is_no_feature(owner: Client, project_id: str) -> None:
    dataset = upload(owner, project_id, a_table(id=lambda n: 10_000 + n, x=x, y=y))
    assert ("IDENTIFIER_LIKE", "id") in warned(dataset)
    request = a_training(project_id, dataset.id, validate_only=True)
    assert list(owner.trainings.StartTraining(request).plan.spec.features) == ["x"]
    # Asked for by name it is a feature, and warned about.
    ended = trained(owner, a_training(project_id, dataset.id, features=["id", "x"]))
    assert ("IDENTIFIER_LIKE_COLUMN", "id") in noticed(ended)


def trained(client: Client, request: trainings.StartTrainingRequest) -> experiment_pb2.Experiment:
    experiment_id = client.trainings.StartTraining(request).experiment.id
    list(client.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=experiment_id)))
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(
        trainings.GetExperimentRequest(experiment_id=experiment_id)
    ).experiment
    return found


def noticed(experiment: experiment_pb2.Experiment) -> set[tuple[str, str]]:
    return {(NOTICED(each.kind).removeprefix("TRAINING_WARNING_KIND_"), each.column) for each in experiment.warnings}


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (always("a"), {}),
        (always(""), {}),
        (y, {"task": 2, "algorithm": "ridge"}),
        (lambda n: f"2024-01-{n % 28 + 1:02}T00:00:00Z", {}),
    ],
    ids=["one class", "no value", "text for a regression", "points in time"],
)
def test_a_target_that_suits_no_model_is_refused_before_it_starts(
    owner: Client, project_id: str, target: Callable[[int], str], changes: dict[str, Any]
) -> None:
    dataset = upload(owner, project_id, a_table(x=x, y=target))
    said = refusal(owner.trainings.StartTraining, a_training(project_id, dataset.id, **changes))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "UNSUITABLE_TARGET"), ["spec.target"])
    assert said.metadata == {"column": "y"}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (lambda n: "once" if n == 0 else y(n), "IMPOSSIBLE_SPLIT"),
        (lambda n: f"class {n % 30}", "IMPOSSIBLE_SPLIT"),
    ],
    ids=["a class of one member", "more classes than the test side has rows"],
)
def test_a_target_whose_classes_cannot_be_split_fails_for_its_user(
    owner: Client, project_id: str, target: Callable[[int], str], reason: str
) -> None:
    dataset = upload(owner, project_id, a_table(x=x, y=target))
    ended = trained(owner, a_training(project_id, dataset.id))
    assert ended.state == STATES.TRAINING_STATE_FAILED
    assert ended.failure.kind == experiment_pb2.FAILURE_KIND_USER
    assert ended.failure.reason == experiment_pb2.FailureReason.Value(f"FAILURE_REASON_{reason}")
    assert ended.failure.message.endswith(".")


@pytest.mark.parametrize(
    ("columns", "kind", "odd"),
    [
        ({"x": x, "y": lambda n: "" if n % 10 == 0 else y(n)}, "ROWS_WITHOUT_TARGET", "y"),
        ({"x": x, "odd": always(""), "y": y}, "ALL_NULL_COLUMN", "odd"),
        ({"x": x, "odd": always("7"), "y": y}, "CONSTANT_COLUMN", "odd"),
        ({"x": x, "odd": lambda n: "inf" if n % 9 == 0 else n % 5 / 2, "y": y}, "INFINITE_VALUES", "odd"),
        ({"x": x, "y": y}, "POSSIBLE_LEAK", "x"),
    ],
    ids=["nulls in the target", "no value", "one value", "infinities", "what gives the target away"],
)
def test_an_odd_column_is_trained_with_as_the_warning_says(
    owner: Client, project_id: str, columns: dict[str, Callable[[int], Any]], kind: str, odd: str
) -> None:
    dataset = upload(owner, project_id, a_table(**columns))
    ended = trained(owner, a_training(project_id, dataset.id))
    assert ended.state == STATES.TRAINING_STATE_SUCCEEDED
    assert (kind, odd) in noticed(ended)
    assert ended.train_rows + ended.test_rows == (54 if kind == "ROWS_WITHOUT_TARGET" else 60)
