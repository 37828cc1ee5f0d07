"""Who may call what: every method of the contract, against every kind of caller that must be refused.

The methods come from the descriptors, so that a new one without an example fails here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from easyml.v1 import (
    algorithm_pb2,
    auth_service_pb2,
    dataset_service_pb2,
    deployment_logs_pb2,
    deployment_manifests_pb2,
    deployment_metrics_pb2,
    deployment_pb2,
    deployment_service_pb2,
    model_pb2,
    model_service_pb2,
    permission_pb2,
    prediction_service_pb2,
    project_pb2,
    project_service_pb2,
    selection_pb2,
    training_service_pb2,
    user_pb2,
)
from easyml_server.transport.server import CONTRACT
from tests.builders import a_header, a_project_of, a_table, a_training, register
from tests.conftest import World, a_key
from tests.servers import Client, Refusal, refusal

METHODS = {m.name: m for file in CONTRACT for s in file.DESCRIPTOR.services_by_name.values() for m in s.methods}


@dataclass(frozen=True)
class Ids:
    """What a request names."""

    project: str
    dataset: str
    upload: str
    experiment: str
    model: str
    version: str
    deployment: str
    deployment_name: str
    api_key: str
    user: str
    email: str

    def hidden_in(self, refused: Refusal) -> Any:
        """What the refusal says, without the ids that the caller sent."""
        said = repr(refused.without_call_id())
        for name in self.__slots__ if hasattr(self, "__slots__") else vars(self):
            said = said.replace(getattr(self, name), f"<{name}>")
        return said


auth, projects, datasets, trainings, models, deployments, predictions = (
    auth_service_pb2, project_service_pb2, dataset_service_pb2, training_service_pb2, model_service_pb2,
    deployment_service_pb2, prediction_service_pb2,
)  # fmt: skip


def version_of(ids: Ids) -> deployment_service_pb2.ModelVersionTarget:
    return deployments.ModelVersionTarget(model_version_id=ids.version)


ONE_FIELD = FieldMask(paths=["description"])
CRITERIA = selection_pb2.ModelSelectionCriteria(
    primary_metric=selection_pb2.MetricCriterion(metric=algorithm_pb2.METRIC_ACCURACY)
)
OBJECTS: dict[str, Callable[[Ids], Message]] = {
    "CreateApiKey": lambda ids: auth.CreateApiKeyRequest(
        name="k", scope=user_pb2.ApiKeyScope(project_id=ids.project, permission=permission_pb2.PERMISSION_VIEWER)
    ),
    "ExchangeToken": lambda ids: auth.ExchangeTokenRequest(deployment_id=ids.deployment),
    "RevokeApiKey": lambda ids: auth.RevokeApiKeyRequest(api_key_id=ids.api_key),
    "GetProject": lambda ids: projects.GetProjectRequest(project_id=ids.project),
    "UpdateProject": lambda ids: projects.UpdateProjectRequest(project_id=ids.project, update_mask=ONE_FIELD),
    "DeleteProject": lambda ids: projects.DeleteProjectRequest(project_id=ids.project, validate_only=True, force=True),
    "GetProjectConfig": lambda ids: projects.GetProjectConfigRequest(project_id=ids.project),
    "UpdateProjectConfig": lambda ids: projects.UpdateProjectConfigRequest(
        config=project_pb2.ProjectConfig(project_id=ids.project), update_mask=FieldMask(paths=["storage"])
    ),
    "ListMembers": lambda ids: projects.ListMembersRequest(project_id=ids.project),
    "SetMember": lambda ids: projects.SetMemberRequest(
        project_id=ids.project, email=ids.email, role=project_pb2.ROLE_VIEWER
    ),
    "RemoveMember": lambda ids: projects.RemoveMemberRequest(project_id=ids.project, user_id=ids.user),
    "UploadDataset": lambda ids: datasets.UploadDatasetRequest(header=a_header(ids.project, a_table())),
    "GetUpload": lambda ids: datasets.GetUploadRequest(upload_id=ids.upload),
    "DownloadDataset": lambda ids: datasets.DownloadDatasetRequest(dataset_id=ids.dataset),
    "GetDataset": lambda ids: datasets.GetDatasetRequest(dataset_id=ids.dataset),
    "GetDatasetDvcPointer": lambda ids: datasets.GetDatasetDvcPointerRequest(dataset_id=ids.dataset),
    "ListDatasets": lambda ids: datasets.ListDatasetsRequest(project_id=ids.project),
    "UpdateDataset": lambda ids: datasets.UpdateDatasetRequest(dataset_id=ids.dataset, update_mask=ONE_FIELD),
    "DeleteDataset": lambda ids: datasets.DeleteDatasetRequest(dataset_id=ids.dataset, validate_only=True, force=True),
    "PreviewDataset": lambda ids: datasets.PreviewDatasetRequest(dataset_id=ids.dataset),
    "StartTraining": lambda ids: a_training(ids.project, ids.dataset, validate_only=True),
    "WatchTraining": lambda ids: trainings.WatchTrainingRequest(experiment_id=ids.experiment),
    "CancelTraining": lambda ids: trainings.CancelTrainingRequest(experiment_id=ids.experiment),
    "GetExperiment": lambda ids: trainings.GetExperimentRequest(experiment_id=ids.experiment),
    "ListExperiments": lambda ids: trainings.ListExperimentsRequest(project_id=ids.project),
    "CompareExperiments": lambda ids: trainings.CompareExperimentsRequest(
        experiment_ids=[ids.experiment, str(uuid4())]
    ),
    "DeleteExperiment": lambda ids: trainings.DeleteExperimentRequest(experiment_id=ids.experiment, validate_only=True),
    "ListModels": lambda ids: models.ListModelsRequest(project_id=ids.project),
    "ListModelVersions": lambda ids: models.ListModelVersionsRequest(project_id=ids.project),
    "GetModelVersion": lambda ids: models.GetModelVersionRequest(model_version_id=ids.version),
    "GetModelVersionDvcPointer": lambda ids: models.GetModelVersionDvcPointerRequest(model_version_id=ids.version),
    "ValidateDeploymentConfig": lambda ids: deployments.ValidateDeploymentConfigRequest(project_id=ids.project),
    "SelectModel": lambda ids: models.SelectModelRequest(project_id=ids.project, criteria=CRITERIA),
    "UpdateModelVersion": lambda ids: models.UpdateModelVersionRequest(
        model_version_id=ids.version, update_mask=ONE_FIELD
    ),
    "DeleteModelVersion": lambda ids: models.DeleteModelVersionRequest(
        model_version_id=ids.version, validate_only=True, force=True
    ),
    "SetModelAlias": lambda ids: models.SetModelAliasRequest(model_version_id=ids.version, alias="champion"),
    "DeleteModelAlias": lambda ids: models.DeleteModelAliasRequest(
        project_id=ids.project, model_name=ids.model, alias="nobody"
    ),
    "ListAliasHistory": lambda ids: models.ListAliasHistoryRequest(project_id=ids.project, model_name=ids.model),
    "ExportModel": lambda ids: models.ExportModelRequest(
        model_version_id=ids.version, format=model_pb2.ARTIFACT_FORMAT_SKOPS
    ),
    "CreateDeployment": lambda ids: deployments.CreateDeploymentRequest(
        project_id=ids.project, name="never made", model_version=version_of(ids), validate_only=True
    ),
    "UpdateDeployment": lambda ids: deployments.UpdateDeploymentRequest(
        deployment_id=ids.deployment, model_version=version_of(ids), validate_only=True
    ),
    "GetDeployment": lambda ids: deployments.GetDeploymentRequest(deployment_id=ids.deployment),
    "ListDeployments": lambda ids: deployments.ListDeploymentsRequest(project_id=ids.project),
    "WatchDeployment": lambda ids: deployments.WatchDeploymentRequest(deployment_id=ids.deployment),
    "ScaleDeployment": lambda ids: deployments.ScaleDeploymentRequest(deployment_id=ids.deployment, replicas=1),
    "RollbackDeployment": lambda ids: deployments.RollbackDeploymentRequest(deployment_id=ids.deployment, revision=1),
    "SetTraffic": lambda ids: deployments.SetTrafficRequest(
        deployment_id=ids.deployment, traffic=[deployment_pb2.TrafficShare(revision=1, weight=100)]
    ),
    "PromoteDeployment": lambda ids: deployments.PromoteDeploymentRequest(deployment_id=ids.deployment),
    "StopDeployment": lambda ids: deployments.StopDeploymentRequest(deployment_id=ids.deployment),
    "DeleteDeployment": lambda ids: deployments.DeleteDeploymentRequest(deployment_id=ids.deployment, etag="none"),
    "WatchDeploymentLogs": lambda ids: deployment_logs_pb2.WatchDeploymentLogsRequest(deployment_id=ids.deployment),
    "GetDeploymentMetrics": lambda ids: deployment_metrics_pb2.GetDeploymentMetricsRequest(
        deployment_id=ids.deployment
    ),
    "RenderManifests": lambda ids: deployment_manifests_pb2.RenderManifestsRequest(deployment_id=ids.deployment),
    "ListRevisions": lambda ids: deployments.ListRevisionsRequest(deployment_id=ids.deployment),
    "Predict": lambda ids: predictions.PredictRequest(model_version_id=ids.version),
    "StreamPredict": lambda ids: predictions.StreamPredictRequest(model_version_id=ids.version),
}
"""Methods that name something, by a request that is right but for who makes it; none of them changes anything."""
NO_OBJECT: dict[str, Message] = {
    "Register": auth.RegisterRequest(email="a@example.org", password="a long enough password"),
    "Login": auth.LoginRequest(email="a@example.org", password="a long enough password"),
    "RefreshToken": auth.RefreshTokenRequest(refresh_token="eml_nothing"),
    "Logout": auth.LogoutRequest(),
    "LogoutEverywhere": auth.LogoutEverywhereRequest(),
    "GetCurrentUser": auth.GetCurrentUserRequest(),
    "ListApiKeys": auth.ListApiKeysRequest(),
    "CreateProject": projects.CreateProjectRequest(name="never made"),
    "ListProjects": projects.ListProjectsRequest(),
    "ListAlgorithms": trainings.ListAlgorithmsRequest(),
    "GetDeploymentTemplate": deployments.GetDeploymentTemplateRequest(),
}
BY_NAME: dict[str, Callable[[Ids], Message]] = {
    "ExchangeToken": lambda ids: auth.ExchangeTokenRequest(name=deployment_of(ids)),
    "GetDeployment": lambda ids: deployments.GetDeploymentRequest(name=deployment_of(ids)),
    "RenderManifests": lambda ids: deployment_manifests_pb2.RenderManifestsRequest(name=deployment_of(ids)),
    "GetModelVersion": lambda ids: models.GetModelVersionRequest(
        name=models.ModelVersionName(project_id=ids.project, model_name=ids.model)
    ),
    "Predict": lambda ids: predictions.PredictRequest(
        name=models.ModelVersionName(project_id=ids.project, model_name=ids.model)
    ),
    "StreamPredict": lambda ids: predictions.StreamPredictRequest(
        name=models.ModelVersionName(project_id=ids.project, model_name=ids.model)
    ),
    "ListModelVersions": lambda ids: models.ListModelVersionsRequest(project_id=ids.project, model_name=ids.model),
}


BY_DEPLOYMENT: dict[str, Callable[[Ids], Message]] = {
    "Predict by id": lambda ids: predictions.PredictRequest(deployment_id=ids.deployment),
    "StreamPredict by id": lambda ids: predictions.StreamPredictRequest(deployment_id=ids.deployment),
    "Predict by name": lambda ids: predictions.PredictRequest(deployment_name=deployment_of(ids)),
    "StreamPredict by name": lambda ids: predictions.StreamPredictRequest(deployment_name=deployment_of(ids)),
}


def deployment_of(ids: Ids) -> deployment_pb2.DeploymentName:
    return deployment_pb2.DeploymentName(project_id=ids.project, name=ids.deployment_name)


def permission_of(method: MethodDescriptor) -> int:
    return int(method.GetOptions().Extensions[permission_pb2.permission])


SIGNED_IN = [name for name, m in METHODS.items() if permission_of(m) != permission_pb2.PERMISSION_PUBLIC]
ABOVE_VIEWER = [name for name, m in METHODS.items() if permission_of(m) > permission_pb2.PERMISSION_VIEWER]
OWNERS = [name for name, m in METHODS.items() if permission_of(m) == permission_pb2.PERMISSION_OWNER]


def refused(client: Client, name: str, request: Message) -> Refusal:
    """Call a method by its descriptor; a stream of requests has this one."""
    method = METHODS[name]
    sides = ("unary", "stream")
    kind = f"{sides[method.client_streaming]}_{sides[method.server_streaming]}"
    call = client.raw(f"/{method.containing_service.full_name}/{name}", kind=kind)
    raw = request.SerializeToString()
    return refusal(call, iter([raw]) if method.client_streaming else raw)


def ids_of_nothing(**known: str) -> Ids:
    """Ids that nobody has ever used."""
    fresh = {name: str(uuid4()) for name in Ids.__annotations__}
    return Ids(**{**fresh, "email": "nobody@example.org", "model": "no-model", **known})


@pytest.fixture(scope="module")
def real(owner: Client, world: World) -> Ids:
    """Ids of the owner's things."""
    me = owner.auth.GetCurrentUser(auth.GetCurrentUserRequest())
    return Ids(
        world.project_id, world.dataset_id, world.upload_id, world.experiment_id, world.model_name,
        world.model_version_id, world.deployment_id, world.deployment_name, me.api_key.id, me.user.id, me.user.email,
    )  # fmt: skip


@pytest.fixture(scope="module")
def viewing_member(anonymous: Client, owner: Client, world: World) -> Iterator[Client]:
    """A user who is a viewer of the world."""
    account = register(anonymous)
    member = projects.SetMemberRequest(
        project_id=world.project_id, email=account.user.email, role=project_pb2.ROLE_VIEWER
    )
    owner.projects.SetMember(member)
    with Client(anonymous.address, account.session.access_token) as client:
        yield client


def request_of(name: str, ids: Ids) -> Message:
    return OBJECTS[name](ids) if name in OBJECTS else NO_OBJECT[name]


def test_every_method_of_the_contract_has_an_example() -> None:
    assert set(METHODS) == set(OBJECTS) | set(NO_OBJECT)
    assert not set(OBJECTS) & set(NO_OBJECT)


@pytest.mark.parametrize("name", SIGNED_IN)
def test_nobody_is_told_to_sign_in(anonymous: Client, name: str) -> None:
    said = refused(anonymous, name, request_of(name, ids_of_nothing()))
    assert said.short == ("UNAUTHENTICATED", "NOT_SIGNED_IN")


@pytest.mark.parametrize("name", SIGNED_IN)
@pytest.mark.parametrize("token", ["rubbish", "eml_rubbish", "eyJhbGciOiJub25lIn0.e30."])
def test_a_token_that_is_none_is_refused(anonymous: Client, name: str, token: str) -> None:
    with Client(anonymous.address, token) as client:
        said = refused(client, name, request_of(name, ids_of_nothing()))
    assert said.short == ("UNAUTHENTICATED", "INVALID_TOKEN")


@pytest.mark.parametrize("name", ABOVE_VIEWER)
def test_a_key_that_may_only_read_is_out_of_scope(world: World, real: Ids, name: str) -> None:
    said = refused(world.viewer, name, request_of(name, real))
    assert said.short == ("PERMISSION_DENIED", "OUT_OF_SCOPE")
    assert said.metadata["required"] == ("owner" if name in OWNERS else "editor")


@pytest.mark.parametrize("name", OWNERS)
def test_a_key_that_may_edit_is_out_of_scope_for_owners_methods(world: World, real: Ids, name: str) -> None:
    assert refused(world.editor, name, request_of(name, real)).short == ("PERMISSION_DENIED", "OUT_OF_SCOPE")


@pytest.mark.parametrize("name", sorted(set(ABOVE_VIEWER) - {"GetUpload"}))
def test_a_member_who_may_only_read_has_too_low_a_role(viewing_member: Client, real: Ids, name: str) -> None:
    said = refused(viewing_member, name, request_of(name, real))
    assert said.short == ("PERMISSION_DENIED", "ROLE_TOO_LOW")
    assert said.metadata["required"] == ("owner" if name in OWNERS else "editor")


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_what_belongs_to_others_looks_as_if_it_were_not_there(other: Client, real: Ids, name: str) -> None:
    nothing = ids_of_nothing()
    belonging, missing = (refused(other, name, OBJECTS[name](ids)) for ids in (real, nothing))
    assert missing.short == ("NOT_FOUND", "NOT_FOUND")
    assert real.hidden_in(belonging) == nothing.hidden_in(missing)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_what_belongs_to_others_is_not_found_by_its_name_either(other: Client, real: Ids, name: str) -> None:
    nothing = ids_of_nothing()
    belonging, missing = (refused(other, name, BY_NAME[name](ids)) for ids in (real, nothing))
    assert missing.short == ("NOT_FOUND", "NOT_FOUND")
    assert real.hidden_in(belonging) == nothing.hidden_in(missing)


@pytest.mark.parametrize("name", sorted(BY_DEPLOYMENT))
def test_a_deployment_of_others_does_not_answer(other: Client, real: Ids, name: str) -> None:
    nothing, method = ids_of_nothing(), name.split(maxsplit=1)[0]
    belonging, missing = (refused(other, method, BY_DEPLOYMENT[name](ids)) for ids in (real, nothing))
    assert missing.short == ("NOT_FOUND", "NOT_FOUND")
    assert real.hidden_in(belonging) == nothing.hidden_in(missing)


@pytest.mark.parametrize("name", sorted(set(OBJECTS) - {"RevokeApiKey", "CreateApiKey"}))
def test_a_key_of_one_project_does_not_see_another(owner: Client, real: Ids, name: str) -> None:
    nothing = ids_of_nothing()
    with a_key(owner, permission_pb2.PERMISSION_OWNER, a_project_of(owner)) as client:
        belonging, missing = (refused(client, name, OBJECTS[name](ids)) for ids in (real, nothing))
    assert missing.short == ("NOT_FOUND", "NOT_FOUND")
    assert real.hidden_in(belonging) == nothing.hidden_in(missing)


@pytest.mark.parametrize("name", sorted(set(OBJECTS) - {"RevokeApiKey"}))
def test_nothing_can_be_done_with_what_is_not_there(owner: Client, name: str) -> None:
    assert refused(owner, name, OBJECTS[name](ids_of_nothing())).short == ("NOT_FOUND", "NOT_FOUND")
