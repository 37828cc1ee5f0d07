# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pydantic  # noqa: F401 - where it is loaded, cyclopts checks the converted values with it too
import pytest

from easyml.v1 import dataset_pb2, experiment_pb2, model_pb2, model_service_pb2, project_pb2, training_service_pb2
from easyml.v1 import dataset_service_pb2 as datasets_pb
from easyml.v1 import prediction_service_pb2 as predictions_pb
from easyml.v1 import project_service_pb2 as projects_pb
from easyml.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from easyml.v1.model_service_pb2_grpc import ModelServiceServicer
from easyml.v1.prediction_service_pb2_grpc import PredictionServiceServicer
from easyml.v1.project_service_pb2_grpc import ProjectServiceServicer
from easyml.v1.training_service_pb2_grpc import TrainingServiceServicer
from easyml_client.cli.__main__ import run
from tests.unit.client.support import an_id, refuse, serving
from tests.unit.client.test_watch import FAILED, Story


class Platform(
    ProjectServiceServicer,
    DatasetServiceServicer,
    TrainingServiceServicer,
    ModelServiceServicer,
    PredictionServiceServicer,
):
    """One project "iris" with one dataset, one experiment and one model of two columns."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.projects = ["iris"]

    def ListProjects(self, request: Any, context: Any) -> projects_pb.ListProjectsResponse:
        return projects_pb.ListProjectsResponse(
            projects=[project_pb2.Project(id=an_id(name), name=name, role=3) for name in self.projects]
        )

    def GetProject(self, request: Any, context: Any) -> projects_pb.GetProjectResponse:
        if request.project_id == an_id("strange"):
            name = "\x1b[31mred\x1b[0m\nline [bold]two"
            return projects_pb.GetProjectResponse(project=project_pb2.Project(id=request.project_id, name=name))
        if request.project_id != an_id("iris"):
            refuse(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "There is no project of this id that you can see.")
        return projects_pb.GetProjectResponse(project=project_pb2.Project(id=request.project_id, name="iris"))

    def CreateProject(self, request: Any, context: Any) -> projects_pb.CreateProjectResponse:
        self.calls.append(request)
        if not request.name:
            problem = {"name": "must have at least 1 letter"}
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "The request is wrong.", fields=problem)
        return projects_pb.CreateProjectResponse(project=project_pb2.Project(id=an_id("new"), name=request.name))

    def DeleteProject(self, request: Any, context: Any) -> projects_pb.DeleteProjectResponse:
        self.calls.append(request)
        deleted = project_pb2.DeletedResources(projects=1, datasets=2, bytes_freed=2048)
        return projects_pb.DeleteProjectResponse(deleted=deleted)

    def UploadDataset(self, requests: Any, context: Any) -> datasets_pb.UploadDatasetResponse:
        header = next(requests).header
        self.calls.append(header)
        if header.name == "broken":
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "UNREADABLE_FILE", "Line 3 has 5 cells, not 4.")
        for _ in requests:
            pass
        return datasets_pb.UploadDatasetResponse(dataset=self.dataset())

    def GetUpload(self, request: Any, context: Any) -> datasets_pb.GetUploadResponse:
        self.calls.append(request)
        return datasets_pb.GetUploadResponse(upload=dataset_pb2.Upload(received_bytes=4))

    def ListDatasets(self, request: Any, context: Any) -> datasets_pb.ListDatasetsResponse:
        return datasets_pb.ListDatasetsResponse(datasets=[self.dataset()])

    def dataset(self) -> dataset_pb2.Dataset:
        dataset = dataset_pb2.Dataset(id=an_id("titanic"), project_id=an_id("iris"), name="titanic")
        dataset.current_version.schema.row_count = 2**40
        dataset.current_version.size_bytes = 2**40
        return dataset

    def StartTraining(self, request: Any, context: Any) -> training_service_pb2.StartTrainingResponse:
        self.calls.append(request)
        if request.spec.test_size > 0.5:
            problem = {"spec.test_size": "must be at most 0.5"}
            sentence = "spec.test_size: must be at most 0.5."
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", sentence, fields=problem)
        experiment = experiment_pb2.Experiment(id=an_id("experiment"), name="forest on titanic", state=1)
        return training_service_pb2.StartTrainingResponse(experiment=experiment)

    def GetModelVersion(self, request: Any, context: Any) -> model_service_pb2.GetModelVersionResponse:
        version = model_pb2.ModelVersion(id=an_id("version"), model_name="churn", version=3)
        version.signature.output = "churned"
        for name, storage_type in {"age": 1, "fare": 2, "plan": 3, "vip": 4, "since": 5}.items():
            version.signature.inputs.add(name=name, storage_type=storage_type)
        return model_service_pb2.GetModelVersionResponse(model_version=version)

    def ListModelVersions(self, request: Any, context: Any) -> model_service_pb2.ListModelVersionsResponse:
        versions = [
            model_pb2.ModelVersion(id=an_id(f"version {number}"), model_name="churn", version=number)
            for number in (3, 2, 1)
        ]
        found = {"churn": versions, "plans": versions[:1]}.get(request.model_name, [])
        return model_service_pb2.ListModelVersionsResponse(model_versions=found)

    def DeleteModelVersion(self, request: Any, context: Any) -> model_service_pb2.DeleteModelVersionResponse:
        self.calls.append(request)
        deleted = project_pb2.DeletedResources(model_versions=1, bytes_freed=1024)
        return model_service_pb2.DeleteModelVersionResponse(deleted=deleted)

    def ListExperiments(self, request: Any, context: Any) -> training_service_pb2.ListExperimentsResponse:
        names = ("forest on titanic", "svc on titanic", "forest on titanic")
        found = [experiment_pb2.Experiment(id=an_id(f"{name} {at}"), name=name) for at, name in enumerate(names)]
        return training_service_pb2.ListExperimentsResponse(experiments=found)

    def CancelTraining(self, request: Any, context: Any) -> training_service_pb2.CancelTrainingResponse:
        self.calls.append(request)
        experiment = experiment_pb2.Experiment(id=request.experiment_id, name="it", state=6)
        return training_service_pb2.CancelTrainingResponse(experiment=experiment)

    def Predict(self, request: Any, context: Any) -> predictions_pb.PredictResponse:
        self.calls.append(request)
        answer = predictions_pb.PredictResponse()
        answer.predictions.strings.values.extend(["yes"] * _rows(request))
        answer.notes.add(row=0, column="plan", kind=2)
        return answer

    def StreamPredict(self, requests: Any, context: Any) -> Iterator[predictions_pb.StreamPredictResponse]:
        for request in requests:
            yield predictions_pb.StreamPredictResponse(id=request.id, response=self.Predict(request, context))


def _rows(request: Any) -> int:
    return len(request.columns.columns[0].int64s.values) or len(request.rows.rows)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    platform = Platform()
    with serving(platform) as target:
        monkeypatch.setenv("EASYML_TARGET", target)
        monkeypatch.setenv("EASYML_TOKEN", "a-token")
        yield platform


# Wrong usage and errors.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["magic"], 'Unknown command "magic"'),
        (["projects", "show"], "requires an argument"),
        (["projects", "list", "--magic"], "--magic"),
        (["projects", "create", "a", "--label", "b"], "--label takes KEY=VALUE; 'b' is not"),
        (["projects", "update", "a"], "There is nothing to change"),
        (["datasets", "upload", "/nowhere.csv"], "No such file"),
        (["train", "ridge"], "--dataset"),
        (["train", "ridge", "-d", "titanic", "--test-size", "much"], "--test-size"),
        (["train", "ridge", "-d", "titanic", "--split", "column:a"], "column:COLUMN=VALUE"),
        (["predict", "churn", "--row", "age"], "--row takes KEY=VALUE"),
        (["predict", "churn", "rows.csv", "--row", "a=1"], "not both"),
        (["predict", "churn", "/nowhere.csv"], "No such file"),
        (["projects", "config", "set", "iris", "--max-bytes", "many"], "--max-bytes"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr(
    platform: Platform, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(arguments) in (1, 2)
    output = capsys.readouterr()
    assert output.out == ""
    assert says in output.err
    assert "Traceback" not in output.err


def test_wrong_usage_is_2_and_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["projects", "show"]) == 2
    assert "See `easyml projects show --help`." in capsys.readouterr().err


def test_a_refusal_is_1_and_says_what_the_server_said(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["projects", "show", an_id("other")]) == 1
    assert capsys.readouterr().err == "There is no project of this id that you can see.\n"


def test_a_refusal_names_the_field(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["projects", "create", ""]) == 1
    assert capsys.readouterr().err == "The request is wrong.\n  name: must have at least 1 letter\n"


def test_a_refusal_names_an_option_and_no_path_in_a_request(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "ridge", "-d", "titanic", "--test-size", "0.9"]) == 1
    assert capsys.readouterr().err == "test_size: must be at most 0.5.\n"


def test_without_a_server_the_way_to_one_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["projects", "list"]) == 1
    assert "easyml-server serve" in capsys.readouterr().err


def test_a_name_from_a_server_is_text_and_no_terminal_code(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["projects", "show", an_id("strange")]) == 0
    assert "\\u001b[31mred\\u001b[0m line [bold]two" in capsys.readouterr().out


def test_ctrl_c_is_130(platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from easyml_client.client import Projects

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Projects, "list", interrupted)
    assert run(["projects", "list"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


# Output.


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(arguments) == 0
    return capsys.readouterr().out


def test_json_is_all_there_is_on_stdout(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output_of(capsys, "projects", "list", "--json"))
    assert [(project["name"], project["role"]) for project in found] == [("iris", "owner")]


def test_large_numbers_are_numbers_in_json(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output_of(capsys, "datasets", "list", "--json"))
    assert found[0]["current_version"]["size_bytes"] == 2**40


def test_on_a_pipe_a_table_is_lines_with_tabs(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    header, row = output_of(capsys, "projects", "list").splitlines()
    assert header.split("\t") == ["NAME", "ROLE", "CREATED", "ID"]
    assert row.split("\t")[0::3] == ["iris", an_id("iris")]


def test_what_was_made_is_said(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    said = output_of(capsys, "projects", "create", "wine", "--label", "team=a", "--label", "x=")
    assert said == f"Created project wine ({an_id('new')}).\n"
    assert dict(platform.calls[0].labels) == {"team": "a", "x": ""}


@pytest.mark.parametrize("command", ["projects", "datasets", "train", "predict", "experiments", "models", "token"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from easyml_client.cli.app import app

    found = app[command]
    commands = [name for name in found if not name.startswith("-")] or [""]
    for name in commands:
        said = output_of(capsys, command, *([name] if name else []), "--help")
        assert "Example: " in said or "Commands" in said


def test_help_loads_neither_grpc_nor_rich_tables_nor_messages() -> None:
    script = (
        "import sys; from easyml_client.cli.__main__ import run; run(['--help']); "
        "print(sorted({'grpc', 'google.protobuf', 'plotext', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Projects and deletes.


def test_the_only_project_needs_no_name(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "list"]) == 0


def test_of_two_projects_one_must_be_named(
    platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.projects.append("wine")
    assert run(["datasets", "list"]) == 2
    assert "EASYML_PROJECT" in capsys.readouterr().err
    assert run(["datasets", "list", "--project", "wine"]) == 0
    monkeypatch.setenv("EASYML_PROJECT", "wine")
    assert run(["datasets", "list"]) == 0


def test_a_delete_asks_and_a_script_must_say_yes(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["projects", "delete", "iris"]) == 2
    assert "(1 project, 2 datasets, 2.0 KiB of files). Add --yes" in capsys.readouterr().err
    assert all(call.validate_only for call in platform.calls)


def test_a_delete_can_be_tried(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    said = output_of(capsys, "projects", "delete", "iris", "--dry-run")
    assert said == "Would delete project iris: 1 project, 2 datasets, 2.0 KiB of files.\n"
    assert [call.validate_only for call in platform.calls] == [True]


def test_a_delete_with_yes_deletes(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(output_of(capsys, "projects", "delete", "iris", "--yes", "--force", "--json"))["projects"] == 1
    assert [(call.validate_only, call.force) for call in platform.calls] == [(False, True)]


# Uploads.


def a_csv(folder: Path) -> Path:
    path = folder / "titanic.csv"
    path.write_text("age,fare\n39,7.5\n")
    return path


def test_an_upload_says_what_was_made(platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = output_of(capsys, "datasets", "upload", str(a_csv(tmp_path)), "--name", "titanic")
    assert said == f"Uploaded titanic: {2**40} rows, 0 columns ({an_id('titanic')}).\n"


def test_an_upload_is_taken_up_again(platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output_of(capsys, "datasets", "upload", str(a_csv(tmp_path)), "--resume", an_id("upload"))
    header = platform.calls[-1]
    assert (header.upload_id, header.offset) == (an_id("upload"), 4)


def test_an_upload_stopped_by_ctrl_c_says_how_to_go_on(
    platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from easyml_client.plans import transfers

    def interrupted(*_: Any) -> Iterator[bytes]:
        raise KeyboardInterrupt

    monkeypatch.setattr(transfers.Parcel, "of", interrupted)
    assert run(["datasets", "upload", str(a_csv(tmp_path))]) == 130
    assert f"easyml datasets upload {tmp_path / 'titanic.csv'} --resume " in capsys.readouterr().err


def test_an_upload_that_is_refused_says_why(
    platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["datasets", "upload", str(a_csv(tmp_path)), "--name", "broken"]) == 1
    assert capsys.readouterr().err == "Line 3 has 5 cells, not 4.\n"


# Trainings.


def test_a_training_is_started_with_typed_settings(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    said = output_of(
        capsys,
        *("train", "random_forest", "-d", "titanic", "-t", "survived", "--cv", "5", "--seed", "7"),
        *("--set", "n_estimators=200", "--set", "criterion=gini", "--set", "max_depth=null", "--set", "bootstrap=true"),
        *("--split", "group:ticket", "--feature", "age", "--feature", "fare"),
    )
    assert said == f"Started forest on titanic. Watch it with: easyml experiments watch {an_id('experiment')}\n"
    spec = platform.calls[-1].spec
    assert (spec.target, spec.split.group.column, list(spec.features)) == ("survived", "ticket", ["age", "fare"])
    assert (spec.hyperparameters["n_estimators"], spec.hyperparameters["criterion"]) == (200, "gini")
    assert (spec.hyperparameters["max_depth"], spec.hyperparameters["bootstrap"]) == (None, True)


def test_a_watch_on_a_pipe_is_a_line_per_event(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Story(last=3, breaks=(2,))) as target:
        monkeypatch.setenv("EASYML_TARGET", target)
        lines = output_of(capsys, "experiments", "watch", an_id("experiment")).splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "iteration 1 train_loss=1",
        "iteration 2 train_loss=0.5",
        "succeeded",
    ]


def test_a_watch_in_json_is_a_document_per_event(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Story(last=3)) as target:
        monkeypatch.setenv("EASYML_TARGET", target)
        lines = output_of(capsys, "experiments", "watch", an_id("experiment"), "--after", "1", "--json").splitlines()
    assert [(json.loads(line)["sequence"], json.loads(line)["event"]) for line in lines] == [
        (2, "iteration_completed"),
        (3, "finished"),
    ]


def test_watching_a_training_that_fails_is_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Story(last=2, state=FAILED)) as target:
        monkeypatch.setenv("EASYML_TARGET", target)
        assert run(["experiments", "watch", an_id("experiment")]) == 1


def test_ctrl_c_leaves_a_training_running_and_says_how_to_come_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from easyml_client.cli import live

    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "line_of", interrupted)
    story = Story(last=3)
    with serving(story) as target:
        monkeypatch.setenv("EASYML_TARGET", target)
        assert run(["experiments", "watch", an_id("experiment")]) == 130
    assert f"Come back with: easyml experiments watch {an_id('experiment')}" in capsys.readouterr().err
    assert not story.cancelled


@pytest.mark.parametrize(
    ("said", "meant"),
    [("latest", "forest on titanic 0"), ("forest on titanic", "forest on titanic 0"), ("svc on titanic", None)],
)
def test_an_experiment_is_named_by_its_name_or_latest(
    platform: Platform, capsys: pytest.CaptureFixture[str], said: str, meant: str | None
) -> None:
    output_of(capsys, "experiments", "cancel", said)
    assert platform.calls[-1].experiment_id == an_id(meant or "svc on titanic 1")


def test_an_experiment_that_nobody_knows_is_wrong_usage(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["experiments", "cancel", "ridge"]) == 2
    assert "There is no experiment called 'ridge'" in capsys.readouterr().err


def test_a_watch_says_once_that_the_server_is_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Story(last=4, breaks=(2,))) as target:
        monkeypatch.setenv("EASYML_TARGET", target)
        assert run(["experiments", "watch", an_id("experiment")]) == 0
    assert capsys.readouterr().err.count("The server is away") == 1


# Models.


def test_a_model_with_several_versions_is_not_deleted_by_its_name_alone(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "delete", "churn", "--yes"]) == 2
    assert "churn has 3 versions; name one, such as churn:3, or delete all with --all." in capsys.readouterr().err
    assert not platform.calls


def test_a_model_is_deleted_with_all_its_versions(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    said = output_of(capsys, "models", "delete", "churn", "--all", "--yes")
    assert said == "Deleted model churn with 3 versions: 3 model versions, 3.0 KiB of files.\n"
    # All are asked before the first goes.
    assert [call.validate_only for call in platform.calls] == [True] * 3 + [False] * 3


def test_the_only_version_of_a_model_needs_no_number(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys, "models", "delete", "plans", "--yes").startswith("Deleted model version churn:3")


# Predictions.


def columns_of(request: Any) -> dict[str, Any]:
    return {
        column.name: list(getattr(getattr(column, kind), "micros" if kind == "timestamps" else "values"))
        for column in request.columns.columns
        if (kind := column.WhichOneof("values"))
    }


TYPED = {"age": [39], "fare": [7.0], "plan": ["3"], "vip": [True], "since": [1777896000000000]}


def test_rows_are_typed_by_the_models_signature(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    row = ("age=39", "fare=7", "plan=3", "vip=yes", "since=2026-05-04T12:00")
    assert output_of(capsys, "predict", "churn@live", "--row", *row) == "churned\nyes\n"
    assert columns_of(platform.calls[-1]) == TYPED


def test_each_row_option_is_a_row(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    said = output_of(capsys, "predict", "churn", "--row", "age=39", "plan=a", "--row", "age=52", "plan=b", "--json")
    assert columns_of(platform.calls[-1]) == {"age": [39, 52], "plan": ["a", "b"]}
    assert json.loads(said) == {
        "model_version_id": an_id("version"),
        "values": ["yes", "yes"],
        "probabilities": {},
        "notes": [{"row": 0, "column": "plan", "kind": "unseen_category"}],
        "omitted_notes": 0,
    }


@pytest.mark.parametrize(
    "text",
    [
        "age,fare,plan,vip,since\n39,7,3,1,2026-05-04T12:00Z\n",
        "age;fare;plan;vip;since\r\n39;7;3;true;2026-05-04T12:00:00+00:00\r\n",
        '\ufeff[{"age": 39, "fare": 7, "plan": "3", "vip": true, "since": "2026-05-04T14:00+02:00"}]',
        '{"age": 39, "fare": 7, "plan": "3", "vip": true, "since": "2026-05-04T12:00"}\n',
    ],
)
def test_rows_come_from_a_file(
    platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "rows").write_text(text)
    output_of(capsys, "predict", "churn", str(tmp_path / "rows"))
    assert columns_of(platform.calls[-1]) == TYPED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("age,fare\nold,1\n", "Row 1: age is 'old', which is no whole number."),
        ("age,fare\n1,2\n1.5,1\n", "Row 2: age is '1.5', which is no whole number."),
        ("vip\nperhaps\n", "which is no true or false."),
        ("since\nyesterday\n", "which is no time such as"),
        ("age,fare\n1\n", "Line 2 has another number of cells than the header."),
        ('age,plan\n1,"a\n', "is no CSV"),
        ("[1, 2]", "JSON rows are objects"),
        ("[{", "The rows are no JSON"),
        ("age,fare\n", "There are no rows"),
    ],
)
def test_rows_that_cannot_be_read_are_named(
    platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "rows").write_text(text)
    assert run(["predict", "churn", str(tmp_path / "rows")]) in (1, 2)
    assert says in capsys.readouterr().err


def test_columns_the_model_does_not_know_are_left_out_on_request(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    output_of(capsys, "predict", "churn", "--row", "age=39", "churned=yes", "--ignore-extra")
    assert columns_of(platform.calls[-1]) == {"age": [39]}


def test_many_rows_go_in_blocks_and_come_back_as_one_answer(
    platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("age\n" + "39\n" * 2500)
    answer = json.loads(output_of(capsys, "predict", "churn", str(tmp_path / "rows.csv"), "--json"))
    assert len(answer["values"]) == 2500
    assert [note["row"] for note in answer["notes"]] == [0, 1000, 2000]
    assert [len(columns_of(call)["age"]) for call in platform.calls] == [1000, 1000, 500]
