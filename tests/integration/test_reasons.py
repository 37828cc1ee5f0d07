"""Each reason of the contract, raised over gRPC: status, metadata, fields and way back are what its comment says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from easyml.v1 import algorithm_pb2, model_pb2, permission_pb2, project_pb2, selection_pb2
from easyml.v1 import auth_service_pb2 as auth
from easyml.v1 import dataset_service_pb2 as datasets
from easyml.v1 import model_service_pb2 as models
from easyml.v1 import prediction_service_pb2 as predictions
from easyml.v1 import project_service_pb2 as projects
from easyml.v1 import training_service_pb2 as trainings
from easyml_server.domain.errors import Reason
from tests.builders import (
    PASSWORD,
    a_header,
    a_long_training,
    a_project_of,
    a_table,
    a_training,
    an_upload,
    register,
    upload,
)
from tests.conftest import World, a_key
from tests.servers import ROOT, Client, Refusal, refusal, refusal_of, serving

HUGE = 1 << 60
COMMENTS = {
    reason: " ".join(line.strip(" /") for line in comment.splitlines())
    for comment, reason in re.findall(
        r"((?:  //.*\n)+)  ERROR_REASON_([A-Z_]+) =", (ROOT / "protos/easyml/v1/error_reason.proto").read_text()
    )
}


@dataclass(frozen=True)
class Stage:
    """Everybody and everything that scenarios need; `strict` is the owner of a server with small limits."""

    owner: Client
    anonymous: Client
    other: Client
    member: Client
    world: World
    strict: Client
    strict_project: str
    strict_dataset: str
    folder: Path


@dataclass(frozen=True)
class Scenario:
    """How a reason comes about, the keys of its metadata, and the fields that are named."""

    raised: Callable[[Stage], Refusal]
    metadata: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


def project_named(name: str, **more: Any) -> projects.CreateProjectRequest:
    return projects.CreateProjectRequest(name=name, **more)


def an_update(project_id: str, path: str = "description", etag: str = "") -> projects.UpdateProjectRequest:
    return projects.UpdateProjectRequest(project_id=project_id, update_mask=FieldMask(paths=[path]), etag=etag)


def with_token(stage: Stage, token: str) -> Refusal:
    with Client(stage.owner.address, token) as client:
        return refusal(client.projects.ListProjects, projects.ListProjectsRequest())


def ended_session(stage: Stage) -> Refusal:
    token = register(stage.anonymous).session.access_token
    with Client(stage.owner.address, token) as client:
        client.auth.LogoutEverywhere(auth.LogoutEverywhereRequest())
    return with_token(stage, token)


def reused_token(stage: Stage) -> Refusal:
    request = auth.RefreshTokenRequest(refresh_token=register(stage.anonymous).session.refresh_token)
    stage.anonymous.auth.RefreshToken(request)
    return refusal(stage.anonymous.auth.RefreshToken, request)


def out_of_scope(stage: Stage) -> Refusal:
    with a_key(stage.owner, permission_pb2.PERMISSION_VIEWER) as client:
        return refusal(client.projects.UpdateProject, an_update(stage.world.project_id))


def name_taken(stage: Stage) -> Refusal:
    request = project_named(f"taken-{uuid4()}")
    stage.owner.projects.CreateProject(request)
    return refusal(stage.owner.projects.CreateProject, request)


def request_id_reused(stage: Stage) -> Refusal:
    request = project_named(f"once-{uuid4()}", request_id=str(uuid4()))
    stage.owner.projects.CreateProject(request)
    request.description = "another"
    return refusal(stage.owner.projects.CreateProject, request)


def wrong_state(stage: Stage) -> Refusal:
    with a_running_training(stage.owner) as experiment_id:
        return refusal(
            stage.owner.trainings.DeleteExperiment, trainings.DeleteExperimentRequest(experiment_id=experiment_id)
        )


@contextmanager
def a_running_training(client: Client, project_id: str = "", dataset_id: str = "") -> Iterator[str]:
    """A training that has not ended as long as the block."""
    project_id = project_id or a_project_of(client)
    request = a_long_training(project_id, dataset_id or upload(client, project_id).id)
    experiment_id = str(client.trainings.StartTraining(request).experiment.id)
    yield experiment_id
    client.trainings.CancelTraining(trainings.CancelTrainingRequest(experiment_id=experiment_id))
    list(client.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=experiment_id)))


def last_owner(stage: Stage) -> Refusal:
    me = stage.owner.auth.GetCurrentUser(auth.GetCurrentUserRequest()).user
    request = projects.RemoveMemberRequest(project_id=stage.world.project_id, user_id=me.id)
    return refusal(stage.owner.projects.RemoveMember, request)


def uploaded(client: Client, content: bytes, project_id: str = "", **header: Any) -> Refusal:
    request = a_header(project_id or a_project_of(client), content, **header)
    return refusal(client.datasets.UploadDataset, an_upload(request, content))


def offset_mismatch(stage: Stage) -> Refusal:
    content = a_table()
    header = a_header(stage.world.project_id, content, upload_id=str(uuid4()))
    refusal(stage.owner.datasets.UploadDataset, an_upload(header, content[:10]))
    header.offset = 5
    return refusal(stage.owner.datasets.UploadDataset, an_upload(header, content))


def predicted(stage: Stage, **row: Any) -> Refusal:
    request = predictions.PredictRequest(model_version_id=stage.world.model_version_id)
    request.rows.rows.add().update(row)
    return refusal(stage.owner.predictions.Predict, request)


def started(stage: Stage, hyperparameters: Any = None, **spec: Any) -> Refusal:
    request = a_training(stage.world.project_id, stage.world.dataset_id, **spec)
    request.spec.hyperparameters.update(hyperparameters or {})
    return refusal(stage.owner.trainings.StartTraining, request)


def overloaded(stage: Stage) -> Refusal:
    with a_running_training(stage.strict, stage.strict_project, stage.strict_dataset) as experiment_id:
        request = trainings.WatchTrainingRequest(experiment_id=experiment_id)
        first = stage.strict.trainings.WatchTraining(request)
        next(first)
        said = refusal(stage.strict.trainings.WatchTraining, request)
        first.cancel()
    return said


def limit_reached(stage: Stage) -> Refusal:
    with a_running_training(stage.strict, stage.strict_project, stage.strict_dataset):
        request = a_training(stage.strict_project, stage.strict_dataset)
        return refusal(stage.strict.trainings.StartTraining, request)


def too_many_attempts(stage: Stage) -> Refusal:
    with Client(stage.strict.address) as nobody:
        request = auth.LoginRequest(email="nobody@example.org", password=PASSWORD)
        assert refusal(nobody.auth.Login, request).reason == "WRONG_CREDENTIALS"
        return refusal(nobody.auth.Login, request)


def closed(stage: Stage) -> Refusal:
    with Client(stage.strict.address) as nobody:
        request = auth.RegisterRequest(email="a@example.org", password=PASSWORD)
        return refusal(nobody.auth.Register, request)


def draining(stage: Stage) -> Refusal:
    with serving(stage.folder / "draining") as server, Client(server.address, server.key) as client:
        project_id = a_project_of(client)
        training = client.trainings.StartTraining(a_long_training(project_id, upload(client, project_id).id))
        watch = trainings.WatchTrainingRequest(experiment_id=training.experiment.id)
        events = client.trainings.WatchTraining(watch)
        next(events)
        server.running.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            list(events)
        assert server.ended() == 0
    return refusal_of(ended.value)


def trained(client: Client, project_id: str, dataset_id: str) -> str:
    training = client.trainings.StartTraining(a_training(project_id, dataset_id)).experiment
    *_, last = client.trainings.WatchTraining(trainings.WatchTrainingRequest(experiment_id=training.id))
    return str(last.event.finished.model_version_id)


def damaged_model(stage: Stage) -> Refusal:
    version_id = trained(stage.strict, stage.strict_project, stage.strict_dataset)
    stored = stage.folder / "strict" / "files" / stage.strict_project / "models" / version_id / "model.skops"
    stored.write_bytes(b"damaged")
    request = predictions.PredictRequest(model_version_id=version_id)
    request.rows.rows.add().update({"x": 1, "z": 1})
    return refusal(stage.strict.predictions.Predict, request)


def format_unavailable(stage: Stage) -> Refusal:
    version_id = trained(stage.strict, stage.strict_project, stage.strict_dataset)
    request = models.ExportModelRequest(model_version_id=version_id, format=model_pb2.ARTIFACT_FORMAT_ONNX)
    return refusal(stage.strict.models.ExportModel, request)


def no_eligible_model(stage: Stage) -> Refusal:
    best = selection_pb2.MetricCriterion(metric=algorithm_pb2.METRIC_ACCURACY, threshold=2)
    criteria = selection_pb2.ModelSelectionCriteria(primary_metric=best)
    request = models.SelectModelRequest(project_id=stage.world.project_id, criteria=criteria)
    return refusal(stage.owner.models.SelectModel, request)


SCENARIOS: dict[Reason, Scenario] = {
    Reason.INVALID_FIELD: Scenario(
        lambda s: refusal(s.owner.projects.CreateProject, project_named("")), fields=("name",)
    ),
    Reason.MALFORMED_MESSAGE: Scenario(
        lambda s: refusal(s.owner.raw("/easyml.v1.ProjectService/GetProject"), b"\x0a\x05abc")
    ),
    Reason.TOO_LARGE: Scenario(
        lambda s: refusal(s.owner.raw("/easyml.v1.ProjectService/GetProject"), b"\x12" * (256 * 1024 + 1)),
        ("limit", "maximum"),
    ),
    Reason.INVALID_PAGE_TOKEN: Scenario(
        lambda s: refusal(s.owner.projects.ListProjects, projects.ListProjectsRequest(page_token="rubbish")),
        fields=("page_token",),
    ),
    Reason.INVALID_UPDATE_MASK: Scenario(
        lambda s: refusal(s.owner.projects.UpdateProject, an_update(s.world.project_id, "etag")),
        ("path",),
        ("update_mask",),
    ),
    Reason.NOT_SIGNED_IN: Scenario(
        lambda s: refusal(s.anonymous.projects.ListProjects, projects.ListProjectsRequest())
    ),
    Reason.INVALID_TOKEN: Scenario(lambda s: with_token(s, "eml_rubbish")),
    Reason.TOKEN_EXPIRED: Scenario(ended_session),
    Reason.WRONG_CREDENTIALS: Scenario(
        lambda s: refusal(s.anonymous.auth.Login, auth.LoginRequest(email=f"{uuid4()}@example.org", password="wrong"))
    ),
    Reason.TOKEN_REUSED: Scenario(reused_token),
    Reason.ROLE_TOO_LOW: Scenario(
        lambda s: refusal(s.member.projects.UpdateProject, an_update(s.world.project_id)), ("required",)
    ),
    Reason.OUT_OF_SCOPE: Scenario(out_of_scope, ("required",)),
    Reason.REGISTRATION_CLOSED: Scenario(closed),
    Reason.NOT_FOUND: Scenario(
        lambda s: refusal(s.other.projects.GetProject, projects.GetProjectRequest(project_id=s.world.project_id))
    ),
    Reason.NAME_TAKEN: Scenario(name_taken, ("name",)),
    Reason.REQUEST_ID_REUSED: Scenario(request_id_reused),
    Reason.STALE_ETAG: Scenario(
        lambda s: refusal(s.owner.projects.UpdateProject, an_update(s.world.project_id, etag="old"))
    ),
    Reason.WRONG_STATE: Scenario(wrong_state, ("state",)),
    Reason.IN_USE: Scenario(
        lambda s: refusal(s.owner.datasets.DeleteDataset, datasets.DeleteDatasetRequest(dataset_id=s.world.dataset_id)),
        ("experiments",),
    ),
    Reason.LAST_OWNER: Scenario(last_owner),
    Reason.CHECKSUM_MISMATCH: Scenario(
        lambda s: uploaded(s.owner, a_table(), sha256="0" * 64), fields=("header.sha256",)
    ),
    Reason.OFFSET_MISMATCH: Scenario(offset_mismatch, ("received_bytes",)),
    Reason.UNREADABLE_FILE: Scenario(lambda s: uploaded(s.owner, b"a,b\n1,2\n3\n"), ("format", "line")),
    Reason.UNKNOWN_COLUMN: Scenario(lambda s: predicted(s, x=1, z=1, beak=1), ("column",), ("rows.rows[0].beak",)),
    Reason.MISSING_COLUMN: Scenario(lambda s: predicted(s, x=1), ("column",), ("rows.rows",)),
    Reason.WRONG_COLUMN_TYPE: Scenario(
        lambda s: predicted(s, x="text", z=1), ("column", "expected", "row"), ("rows.rows[0].x",)
    ),
    Reason.UNSUITABLE_TARGET: Scenario(lambda s: started(s, task=2, algorithm="ridge"), ("column",), ("spec.target",)),
    Reason.UNKNOWN_ALGORITHM: Scenario(lambda s: started(s, algorithm="magic"), ("algorithm",), ("spec.algorithm",)),
    Reason.INVALID_HYPERPARAMETER: Scenario(lambda s: started(s, {"depth": 1}), fields=("spec.hyperparameters.depth",)),
    Reason.OVERLOADED: Scenario(overloaded, ("limit", "maximum")),
    Reason.LIMIT_REACHED: Scenario(limit_reached, ("limit", "maximum")),
    Reason.TOO_MANY_ATTEMPTS: Scenario(too_many_attempts),
    Reason.DISK_FULL: Scenario(
        lambda s: uploaded(s.strict, a_table(), s.strict_project, size_bytes=HUGE // 8, sha256="")
    ),
    Reason.SERVER_DRAINING: Scenario(draining),
    Reason.PART_UNAVAILABLE: Scenario(damaged_model, ("part",)),
    Reason.FORMAT_UNAVAILABLE: Scenario(format_unavailable, ("format", "cause")),
    Reason.NO_ELIGIBLE_MODEL: Scenario(no_eligible_model, ("candidates",)),
    Reason.UNKNOWN_METHOD: Scenario(
        lambda s: refusal(s.owner.raw("/easyml.v1.ProjectService/Nothing"), b""), ("method",)
    ),
}
IN_PROCESS = {Reason.INTERNAL, Reason.DEADLINE_EXCEEDED}
"""Raised by a use case that is broken on purpose: see test_defects.py."""
NEVER_SENT = {Reason.CANCELLED}
"""Nobody is left to be told."""


@pytest.fixture(scope="module")
def stage(
    owner: Client, anonymous: Client, other: Client, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("reasons")
    version = models.GetModelVersionRequest(model_version_id=world.model_version_id)
    sizes = {a.format: a.size_bytes for a in owner.models.GetModelVersion(version).model_version.artifacts}
    pipeline_alone = sizes[model_pb2.ARTIFACT_FORMAT_SKOPS] + sizes[model_pb2.ARTIFACT_FORMAT_ONNX] // 2
    settings = {
        "MAX_STREAMS_PER_USER": "1",
        "QUEUED_PER_PROJECT": "1",
        "LOGINS_PER_MINUTE": "1",
        "MAX_UPLOAD_BYTES": str(HUGE),
        "PROJECT_STORAGE_BYTES": str(HUGE),
        "MAX_MODEL_BYTES": str(pipeline_alone),
    }
    with ExitStack() as stack:
        server = stack.enter_context(serving(folder / "strict", **settings))
        strict = stack.enter_context(Client(server.address, server.key))
        account = register(anonymous)
        member = stack.enter_context(Client(anonymous.address, account.session.access_token))
        role = project_pb2.ROLE_VIEWER
        request = projects.SetMemberRequest(project_id=world.project_id, email=account.user.email, role=role)
        owner.projects.SetMember(request)
        project_id = a_project_of(strict)
        dataset_id = upload(strict, project_id).id
        yield Stage(owner, anonymous, other, member, world, strict, project_id, dataset_id, folder)


def holds(said: Refusal, reason: Reason, scenario: Scenario) -> None:
    """The refusal is what the contract's comment on its reason says."""
    comment = COMMENTS[reason.value]
    assert said.short == (comment.partition(":")[0], reason.value)
    assert set(said.metadata) == set(scenario.metadata)
    assert all(said.metadata.values())
    assert bool(scenario.metadata) == ("Metadata: " in comment and "Metadata: none" not in comment)
    assert set(scenario.metadata) <= set(re.findall(r"\w+", comment)) or reason is Reason.IN_USE
    assert said.fields == list(scenario.fields)
    assert (said.retry_seconds is not None) == ("RetryInfo" in comment) or reason is Reason.LIMIT_REACHED
    assert ("ResourceInfo" in said.details) == ("ResourceInfo" in comment)
    assert said.call_id
    assert said.message.endswith(".")


@pytest.mark.slow
@pytest.mark.parametrize("reason", SCENARIOS, ids=lambda reason: reason.value)
def test_a_reason_comes_as_its_comment_says(stage: Stage, reason: Reason) -> None:
    scenario = SCENARIOS[reason]
    holds(scenario.raised(stage), reason, scenario)
