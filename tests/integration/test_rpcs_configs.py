"""The configuration of a project, and what it does to uploads and trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from easyml.v1 import dataset_pb2, project_pb2
from easyml.v1 import dataset_service_pb2 as datasets
from easyml.v1 import project_service_pb2 as pb
from tests.builders import a_header, a_table, a_training, an_upload, upload
from tests.marks import answers, refuses
from tests.servers import Client, ServerProcess, refusal

GIB = 1 << 30


def get(client: Client, project_id: str) -> project_pb2.ProjectConfig:
    found: project_pb2.ProjectConfig = client.projects.GetProjectConfig(
        pb.GetProjectConfigRequest(project_id=project_id)
    ).config
    return found


def an_update(project_id: str, *paths: str, **values: Any) -> pb.UpdateProjectConfigRequest:
    config = project_pb2.ProjectConfig(project_id=project_id, **values)
    return pb.UpdateProjectConfigRequest(config=config, update_mask=FieldMask(paths=paths))


def defaults(project_id: str, **of_algorithms: dict[str, Any]) -> pb.UpdateProjectConfigRequest:
    request = an_update(project_id, "default_hyperparameters")
    for algorithm, values in of_algorithms.items():
        request.config.default_hyperparameters[algorithm].update(values)
    return request


@answers("ProjectService/GetProjectConfig", "ProjectService/UpdateProjectConfig")
def test_only_what_the_mask_names_changes(owner: Client, project_id: str) -> None:
    new = get(owner, project_id)
    assert new.visibility == project_pb2.PROJECT_VISIBILITY_PRIVATE
    assert new.storage.keep_original_files
    request = an_update(
        project_id,
        "mlflow_experiment",
        "storage",
        mlflow_experiment="penguins",
        storage=project_pb2.StorageConfig(max_bytes=GIB, keep_original_files=False),
        visibility=project_pb2.PROJECT_VISIBILITY_INTERNAL,
    )
    changed = owner.projects.UpdateProjectConfig(request).config
    assert (changed.mlflow_experiment, changed.storage) == ("penguins", request.config.storage)
    assert changed.visibility == project_pb2.PROJECT_VISIBILITY_PRIVATE
    assert changed.etag != new.etag
    assert get(owner, project_id) == changed


@refuses("ProjectService/UpdateProjectConfig")
def test_an_etag_that_is_no_longer_true_changes_nothing(owner: Client, project_id: str) -> None:
    old = get(owner, project_id).etag
    current = owner.projects.UpdateProjectConfig(an_update(project_id, "mlflow_experiment", etag=old)).config
    late = an_update(project_id, "mlflow_experiment", mlflow_experiment="late", etag=old)
    assert refusal(owner.projects.UpdateProjectConfig, late).short == ("ABORTED", "STALE_ETAG")
    assert get(owner, project_id) == current


@refuses("ProjectService/GetProjectConfig")
def test_the_configuration_goes_with_its_project(owner: Client, project_id: str) -> None:
    owner.projects.DeleteProject(pb.DeleteProjectRequest(project_id=project_id))
    request = pb.GetProjectConfigRequest(project_id=project_id)
    assert refusal(owner.projects.GetProjectConfig, request).short == ("NOT_FOUND", "NOT_FOUND")


def test_defaults_are_what_trainings_start_from(owner: Client, project_id: str) -> None:
    owner.projects.UpdateProjectConfig(defaults(project_id, gaussian_nb={"var_smoothing": 0.5}))
    dataset_id = upload(owner, project_id).id
    request = a_training(project_id, dataset_id, validate_only=True)
    planned = owner.trainings.StartTraining(request).plan.spec.hyperparameters
    assert planned["var_smoothing"] == 0.5
    request.spec.hyperparameters.update({"var_smoothing": 0.25})
    planned = owner.trainings.StartTraining(request).plan.spec.hyperparameters
    assert planned["var_smoothing"] == 0.25


@pytest.mark.parametrize(
    ("of_algorithms", "field"),
    [
        ({"no_such": {}}, 'config.default_hyperparameters["no_such"]'),
        ({"gaussian_nb": {"depth": 3}}, 'config.default_hyperparameters["gaussian_nb"].depth'),
        ({"gaussian_nb": {"var_smoothing": -1}}, 'config.default_hyperparameters["gaussian_nb"].var_smoothing'),
    ],
)
def test_defaults_that_no_training_could_use_are_named(
    owner: Client, project_id: str, of_algorithms: dict[str, Any], field: str
) -> None:
    said = refusal(owner.projects.UpdateProjectConfig, defaults(project_id, **of_algorithms))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_HYPERPARAMETER"), [field])
    assert not get(owner, project_id).default_hyperparameters


def test_a_project_cannot_be_allowed_more_than_the_server_gives(owner: Client, project_id: str) -> None:
    storage = project_pb2.StorageConfig(max_bytes=50 * GIB + 1)
    said = refusal(owner.projects.UpdateProjectConfig, an_update(project_id, "storage", storage=storage))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["config.storage.max_bytes"])
    storage.max_bytes -= 1
    owner.projects.UpdateProjectConfig(an_update(project_id, "storage", storage=storage))


def test_a_project_that_keeps_no_originals_gives_its_tables_in_their_format(
    owner: Client, shared_server: ServerProcess, project_id: str
) -> None:
    storage = project_pb2.StorageConfig(keep_original_files=False)
    owner.projects.UpdateProjectConfig(an_update(project_id, "storage", storage=storage))
    dataset = upload(owner, project_id)
    stored = [path.name for path in (Path(shared_server.data) / "files" / project_id).rglob("*") if path.is_file()]
    assert stored == ["table.parquet"]
    header, *_ = owner.datasets.DownloadDataset(datasets.DownloadDatasetRequest(dataset_id=dataset.id))
    assert (header.header.filename, header.header.format) == ("table.csv", dataset_pb2.FILE_FORMAT_CSV)


def test_a_project_stores_what_it_was_allowed(owner: Client, project_id: str) -> None:
    content = a_table(1000)
    storage = project_pb2.StorageConfig(max_bytes=len(content))
    owner.projects.UpdateProjectConfig(an_update(project_id, "storage", storage=storage))
    larger = a_table(1001)
    said = refusal(owner.datasets.UploadDataset, an_upload(a_header(project_id, larger), larger))
    assert said.short == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
    assert said.metadata["maximum"] == str(len(content))
    assert upload(owner, project_id, content).id
