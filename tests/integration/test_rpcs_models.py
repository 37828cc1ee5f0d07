"""ModelService as callers see it: versions, what they say of themselves, and the aliases that move between them."""

from __future__ import annotations

import concurrent.futures
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from easyml.v1 import algorithm_pb2, auth_service_pb2, dataset_pb2, experiment_pb2, model_pb2, project_pb2
from easyml.v1 import model_service_pb2 as pb
from easyml.v1 import training_service_pb2 as trainings
from tests.builders import a_project_of, a_training, upload
from tests.marks import answers, refuses
from tests.servers import Client, ServerProcess, refusal


def a_version(client: Client, project_id: str, dataset_id: str, **spec: Any) -> model_pb2.ModelVersion:
    """Train a version."""
    started = client.trainings.StartTraining(a_training(project_id, dataset_id, **spec)).experiment
    *_, last = client.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=started.id))
    return get(client, last.event.finished.model_version_id)


def get(client: Client, version_id: str) -> model_pb2.ModelVersion:
    request = pb.GetModelVersionRequest(model_version_id=version_id)
    found: model_pb2.ModelVersion = client.models.GetModelVersion(request).model_version
    return found


def without_results(client: Client, version_id: str) -> model_pb2.ModelVersion:
    """As lists and changes return it."""
    request = pb.GetModelVersionRequest(model_version_id=version_id, view=project_pb2.RESOURCE_VIEW_BASIC)
    found: model_pb2.ModelVersion = client.models.GetModelVersion(request).model_version
    assert not found.HasField("results")
    return found


def named(project_id: str, model_name: str, **which: Any) -> pb.GetModelVersionRequest:
    return pb.GetModelVersionRequest(
        name=pb.ModelVersionName(project_id=project_id, model_name=model_name, **which),
    )


@pytest.fixture
def versions(owner: Client) -> list[model_pb2.ModelVersion]:
    """Two versions of one model and one of another, in a project of their own."""
    project_id = a_project_of(owner)
    dataset_id = upload(owner, project_id).id
    return [
        a_version(owner, project_id, dataset_id, model_name=name, random_seed=seed)
        for name, seed in (("birds", 1), ("birds", 2), ("bees", 3))
    ]


def set_alias(client: Client, version: model_pb2.ModelVersion, alias: str) -> model_pb2.ModelVersion:
    request = pb.SetModelAliasRequest(model_version_id=version.id, alias=alias)
    found: model_pb2.ModelVersion = client.models.SetModelAlias(request).model_version
    return found


@answers("ModelService/ListModels", "ModelService/ListModelVersions")
def test_models_and_versions_are_listed_newest_first(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    first, second, other = versions
    project_id = first.project_id
    set_alias(owner, first, "champion")
    models = owner.models.ListModels(pb.ListModelsRequest(project_id=project_id)).models
    assert [(model.name, model.latest_version) for model in models] == [("bees", 1), ("birds", 2)]
    assert list(models[1].aliases) == [model_pb2.ModelAlias(alias="champion", model_version_id=first.id, version=1)]
    page = owner.models.ListModels(pb.ListModelsRequest(project_id=project_id, page_size=1))
    rest = owner.models.ListModels(
        pb.ListModelsRequest(project_id=project_id, page_size=1, page_token=page.next_page_token)
    )
    assert ([*page.models, *rest.models], rest.next_page_token) == (list(models), "")
    found = owner.models.ListModels(pb.ListModelsRequest(project_id=project_id, name_prefix="bi")).models
    assert [model.name for model in found] == ["birds"]
    update = pb.UpdateModelVersionRequest(
        model_version_id=second.id, labels={"a.b": "c"}, update_mask=FieldMask(paths=["labels"])
    )
    owner.models.UpdateModelVersion(update)

    def listed(**filters: Any) -> list[str]:
        request, ids = pb.ListModelVersionsRequest(project_id=project_id, page_size=2, **filters), []
        while True:
            answer = owner.models.ListModelVersions(request)
            ids += [version.id for version in answer.model_versions]
            if not answer.next_page_token:
                return ids
            request.page_token = answer.next_page_token

    assert listed() == [other.id, second.id, first.id]
    assert listed(model_name="birds") == [second.id, first.id]
    assert listed(alias="champion") == [first.id]
    assert listed(labels={"a.b": "c"}) == [second.id]
    basic, full = (
        owner.models.ListModelVersions(pb.ListModelVersionsRequest(project_id=project_id, view=view)).model_versions
        for view in (project_pb2.RESOURCE_VIEW_BASIC, project_pb2.RESOURCE_VIEW_FULL)
    )
    assert full[0] == without_results(owner, other.id)
    assert not basic[0].HasField("signature")
    assert (basic[0].algorithm, list(basic[0].metrics), basic[0].etag) == ("gaussian_nb", [], other.etag)


@refuses("ModelService/ListModels", "ModelService/ListModelVersions")
def test_what_cannot_be_listed_is_refused(owner: Client, project_id: str) -> None:
    request = pb.ListModelsRequest(project_id=project_id, page_token="rubbish")
    said = refusal(owner.models.ListModels, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"), ["page_token"])
    said = refusal(
        owner.models.ListModelVersions, pb.ListModelVersionsRequest(project_id=project_id, model_name="none")
    )
    assert (said.short, said.details["ResourceInfo"].resource_name) == (("NOT_FOUND", "NOT_FOUND"), "none")


@answers("ModelService/GetModelVersion")
def test_a_version_says_what_it_takes_and_gives_and_how_well(
    owner: Client, versions: list[model_pb2.ModelVersion]
) -> None:
    first, second, _ = versions
    project_id = first.project_id
    assert (first.version, second.version, first.model_id) == (1, 2, second.model_id)
    assert (first.task, first.algorithm) == (algorithm_pb2.TASK_CLASSIFICATION, "gaussian_nb")
    assert [(c.name, c.storage_type) for c in first.signature.inputs] == [
        ("x", dataset_pb2.STORAGE_TYPE_DOUBLE),
        ("z", dataset_pb2.STORAGE_TYPE_INT64),
    ]
    assert (first.signature.output, list(first.signature.classes)) == ("y", ["a", "b"])
    assert first.parity.proved
    assert {a.format for a in first.artifacts} == {model_pb2.ARTIFACT_FORMAT_ONNX, model_pb2.ARTIFACT_FORMAT_SKOPS}
    assert first.library_versions["scikit-learn"]
    assert {metric.metric for metric in first.metrics} >= {first.primary_metric}
    assert set(first.input_example[0]) == {"x", "z"}
    set_alias(owner, first, "champion")
    for which, expected in (({}, second), ({"version": 1}, first), ({"alias": "champion"}, first)):
        found = owner.models.GetModelVersion(named(project_id, "birds", **which)).model_version
        assert found == get(owner, expected.id)


@answers("ModelService/GetModelVersion")
def test_a_version_says_how_it_did_in_detail(owner: Client, project_id: str) -> None:
    dataset_id = upload(owner, project_id).id
    version = a_version(owner, project_id, dataset_id)
    found = version.results
    classes = found.classification.classes
    assert [each.label for each in classes] == list(version.signature.classes) == ["a", "b"]
    assert sum(each.rows for each in classes) == found.rows == 12
    values = {(each.metric, each.partition): each.value for each in version.metrics}
    recall = values[algorithm_pb2.METRIC_RECALL, experiment_pb2.PARTITION_TEST]
    assert classes[1].recall == pytest.approx(recall)
    (curve,) = found.classification.curves
    assert (curve.label, found.classification.curves_left_out) == ("b", 0)
    assert (curve.points[-1].recall, curve.points[-1].false_positive_rate) == (1, 1)
    assert sum(each.rows for each in curve.calibration) == 12
    assert not found.HasField("regression")
    number = a_version(owner, project_id, dataset_id, target="x", algorithm="ridge").results
    assert [each.share for each in number.regression.residuals] == [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]
    assert len(number.regression.pairs) == number.rows == 12
    assert not number.HasField("classification")


@refuses("ModelService/GetModelVersion")
def test_a_version_that_is_not_there_is_not_found(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    for which, sought in (({"version": 3}, "birds:3"), ({"alias": "nobody"}, "birds@nobody")):
        said = refusal(owner.models.GetModelVersion, named(versions[0].project_id, "birds", **which))
        assert (said.short, said.details["ResourceInfo"].resource_name) == (("NOT_FOUND", "NOT_FOUND"), sought)
        assert "the newest is birds:2" in said.message
    said = refusal(owner.models.GetModelVersion, named(versions[0].project_id, "brids"))
    assert "did you mean 'birds'?" in said.message
    said = refusal(owner.models.GetModelVersion, pb.GetModelVersionRequest())
    assert said.short == ("INVALID_ARGUMENT", "INVALID_FIELD")
    no_view = pb.GetModelVersionRequest(model_version_id=versions[0].id, view=9)  # type: ignore[arg-type]  # no view
    said = refusal(owner.models.GetModelVersion, no_view)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["view"])


@answers("ModelService/UpdateModelVersion")
@refuses("ModelService/UpdateModelVersion")
def test_description_and_labels_change_and_nothing_else(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    version = versions[0]
    request = pb.UpdateModelVersionRequest(
        model_version_id=version.id,
        description="the first",
        labels={"not": "this"},
        update_mask=FieldMask(paths=["description"]),
        etag=version.etag,
    )
    changed = owner.models.UpdateModelVersion(request).model_version
    assert (changed.description, dict(changed.labels)) == ("the first", {})
    assert changed.etag != version.etag
    assert without_results(owner, version.id) == changed
    assert refusal(owner.models.UpdateModelVersion, request).short == ("ABORTED", "STALE_ETAG")
    request.etag = ""
    request.update_mask.paths[:] = ["metrics"]
    said = refusal(owner.models.UpdateModelVersion, request)
    assert (said.short, said.metadata) == (("INVALID_ARGUMENT", "INVALID_UPDATE_MASK"), {"path": "metrics"})
    assert without_results(owner, version.id) == changed


@answers("ModelService/SetModelAlias", "ModelService/ListAliasHistory", "ModelService/DeleteModelAlias")
def test_an_alias_moves_and_its_history_says_who_it_was_when(
    owner: Client, versions: list[model_pb2.ModelVersion]
) -> None:
    first, second, _ = versions
    me = owner.auth.GetCurrentUser(auth_service_pb2.GetCurrentUserRequest()).user.id
    assert list(set_alias(owner, first, "production").aliases) == ["production"]
    between = datetime.now(UTC)
    assert list(set_alias(owner, second, "production").aliases) == ["production"]
    assert not get(owner, first.id).aliases
    request = pb.ListAliasHistoryRequest(project_id=first.project_id, model_name="birds")
    newest, oldest = owner.models.ListAliasHistory(request).entries
    assert (newest.model_version_id, newest.version, newest.HasField("end_time")) == (second.id, 2, False)
    assert (oldest.model_version_id, oldest.version, oldest.set_by) == (first.id, 1, me)
    assert oldest.end_time == newest.start_time
    request.at_time.FromDatetime(between)
    assert list(owner.models.ListAliasHistory(request).entries) == [oldest]
    request.at_time.CopyFrom(newest.start_time)
    assert list(owner.models.ListAliasHistory(request).entries) == [newest]
    # Setting it where it is already begins no new time.
    set_alias(owner, second, "production")
    alias = pb.DeleteModelAliasRequest(project_id=first.project_id, model_name="birds", alias="production")
    owner.models.DeleteModelAlias(alias)
    assert not get(owner, second.id).aliases
    request.ClearField("at_time")
    ended, _ = owner.models.ListAliasHistory(request).entries
    assert ended.HasField("end_time")
    request.at_time.GetCurrentTime()
    assert not owner.models.ListAliasHistory(request).entries


def test_an_alias_is_at_one_place_at_any_time(owner: Client, versions: list[model_pb2.ModelVersion]) -> None:
    project_id = versions[0].project_id
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: set_alias(owner, versions[number % 2], "champion"), range(20)))
    holders = [v for v in versions[:2] if "champion" in get(owner, v.id).aliases]
    assert len(holders) == 1
    request, entries = pb.ListAliasHistoryRequest(project_id=project_id, model_name="birds", page_size=3), []
    while True:
        page = owner.models.ListAliasHistory(request)
        entries += page.entries
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    for later, earlier in itertools.pairwise(entries):
        assert earlier.end_time == later.start_time
        assert earlier.model_version_id != later.model_version_id
    assert [entry.HasField("end_time") for entry in entries] == [False, *[True] * (len(entries) - 1)]
    assert entries[0].model_version_id == holders[0].id


@refuses("ModelService/SetModelAlias")
@pytest.mark.parametrize("alias", ["", "latest", "1", "Champion", "a b", "a" * 64, "-a", "ä"])
def test_an_alias_that_could_be_mistaken_is_refused(owner: Client, world: Any, alias: str) -> None:
    request = pb.SetModelAliasRequest(model_version_id=world.model_version_id, alias=alias)
    said = refusal(owner.models.SetModelAlias, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["alias"])


@refuses("ModelService/DeleteModelAlias", "ModelService/ListAliasHistory")
def test_an_alias_of_nothing_is_not_found(owner: Client, world: Any) -> None:
    for model, kind in (("answers", "alias"), ("none", "model")):
        said = refusal(
            owner.models.DeleteModelAlias,
            pb.DeleteModelAliasRequest(project_id=world.project_id, model_name=model, alias="nobody"),
        )
        assert (said.short, said.details["ResourceInfo"].resource_type) == (("NOT_FOUND", "NOT_FOUND"), kind)
    request = pb.ListAliasHistoryRequest(project_id=world.project_id, model_name="none")
    assert refusal(owner.models.ListAliasHistory, request).short == ("NOT_FOUND", "NOT_FOUND")


@answers("ModelService/DeleteModelVersion")
@refuses("ModelService/DeleteModelVersion")
def test_a_version_that_an_alias_points_to_goes_with_force_and_the_last_takes_its_model(
    owner: Client, shared_server: ServerProcess, versions: list[model_pb2.ModelVersion]
) -> None:
    first, second, _ = versions
    set_alias(owner, first, "champion")
    request = pb.DeleteModelVersionRequest(model_version_id=first.id)
    said = refusal(owner.models.DeleteModelVersion, request)
    assert (said.short, said.metadata) == (("FAILED_PRECONDITION", "IN_USE"), {"aliases": "champion"})
    folder = Path(shared_server.data) / "files" / first.project_id / "models" / first.id
    stored = sum(path.stat().st_size for path in folder.iterdir())
    request.force = True
    for request.validate_only in (True, False):
        request.etag = "another"
        assert refusal(owner.models.DeleteModelVersion, request).short == ("ABORTED", "STALE_ETAG")
        request.etag = first.etag
        assert list(get(owner, first.id).aliases) == ["champion"]
        deleted = owner.models.DeleteModelVersion(request).deleted
        assert deleted == project_pb2.DeletedResources(model_versions=1, bytes_freed=stored)
    assert not folder.exists()
    history = owner.models.ListAliasHistory(
        pb.ListAliasHistoryRequest(project_id=first.project_id, model_name="birds")
    ).entries
    assert [(entry.model_version_id, entry.HasField("end_time")) for entry in history] == [(first.id, True)]
    request = pb.DeleteModelVersionRequest(model_version_id=second.id)
    deleted = owner.models.DeleteModelVersion(request).deleted
    assert (deleted.model_versions, deleted.models) == (1, 1)
    models = owner.models.ListModels(pb.ListModelsRequest(project_id=first.project_id)).models
    assert [model.name for model in models] == ["bees"]
