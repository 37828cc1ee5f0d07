"""DeploymentService as callers see it: a version answers under a name, is replaced without a failed call, and stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import auth_service_pb2, deployment_pb2, model_service_pb2
from easyml.v1 import deployment_service_pb2 as pb
from easyml.v1 import prediction_service_pb2 as predictions
from tests.builders import a_project_of, upload
from tests.integration.test_rpcs_models import a_version
from tests.integration.test_rpcs_predictions import as_rows
from tests.marks import answers, limits, refuses
from tests.servers import Client, ServerProcess, deploying, eventually, refusal, refusal_of

STATE = deployment_pb2.DeploymentState
READY, STOPPED = deployment_pb2.DEPLOYMENT_STATE_READY, deployment_pb2.DEPLOYMENT_STATE_STOPPED
RECREATE = deployment_pb2.ROLLOUT_STRATEGY_RECREATE
QUICK = deployment_pb2.Probes(period_seconds=1, timeout_seconds=3, failure_threshold=1)


@dataclass
class Deployer:
    """A caller with two model versions of one project."""

    client: Client
    project_id: str
    first: str
    second: str

    def create(self, version: str | None = None, **changes: Any) -> deployment_pb2.Deployment:
        request = pb.CreateDeploymentRequest(
            project_id=self.project_id,
            name=f"deployment-{uuid4()}",
            model_version=pb.ModelVersionTarget(model_version_id=version or self.first),
        )
        request.MergeFrom(pb.CreateDeploymentRequest(**changes))
        made: deployment_pb2.Deployment = self.client.deployments.CreateDeployment(request).deployment
        return made

    def update(self, deployment_id: str, version: str = "", **changes: Any) -> deployment_pb2.Deployment:
        target = pb.ModelVersionTarget(model_version_id=version) if version else None
        request = pb.UpdateDeploymentRequest(deployment_id=deployment_id, model_version=target, **changes)
        changed: deployment_pb2.Deployment = self.client.deployments.UpdateDeployment(request).deployment
        return changed

    def get(self, deployment_id: str) -> deployment_pb2.Deployment:
        request = pb.GetDeploymentRequest(deployment_id=deployment_id)
        found: deployment_pb2.Deployment = self.client.deployments.GetDeployment(request).deployment
        return found

    def until(
        self, deployment_id: str, holds: Callable[[deployment_pb2.Deployment], bool]
    ) -> deployment_pb2.Deployment:
        """The deployment once it is as it should be."""
        watch = self.client.deployments.WatchDeployment(pb.WatchDeploymentRequest(deployment_id=deployment_id))
        found: deployment_pb2.Deployment = next(
            said.deployment for said in watch if said.HasField("deployment") and holds(said.deployment)
        )
        watch.cancel()
        return found

    def ready(self, deployment_id: str) -> deployment_pb2.Deployment:
        """Once its newest revision answers, and nothing is left of others."""

        def holds(deployment: deployment_pb2.Deployment) -> bool:
            others = [each for each in deployment.replicas if each.revision != deployment.latest_revision]
            return deployment.state == READY and deployment.active_revision == deployment.latest_revision and not others

        return self.until(deployment_id, holds)

    def stop(self, deployment_id: str) -> deployment_pb2.Deployment:
        self.client.deployments.StopDeployment(pb.StopDeploymentRequest(deployment_id=deployment_id))
        return self.until(deployment_id, lambda deployment: deployment.state == STOPPED)

    def delete(self, deployment_id: str) -> None:
        self.client.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(deployment_id=deployment_id))

    def ask(self, deployment_id: str) -> str:
        """The version that answers."""
        request = predictions.PredictRequest(deployment_id=deployment_id, **as_rows())
        return str(self.client.predictions.Predict(request).model_version_id)


def made_by(client: Client) -> Deployer:
    project_id = a_project_of(client)
    dataset_id = upload(client, project_id).id
    versions = [a_version(client, project_id, dataset_id, model_name="birds", random_seed=seed).id for seed in (1, 2)]
    return Deployer(client, project_id, *versions)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its deployments end with it."""
    with deploying(tmp_path_factory.mktemp("deployments") / "data", DEPLOYMENTS="4", REPLICAS="3") as server:
        yield server


@pytest.fixture(scope="module")
def deployer(server: ServerProcess) -> Iterator[Deployer]:
    with Client(server.address, server.key) as client:
        yield made_by(client)


@pytest.fixture
def deployed(deployer: Deployer) -> Iterator[deployment_pb2.Deployment]:
    """One that answers with the first version."""
    deployment = deployer.ready(deployer.create(config=deployment_pb2.DeploymentConfig(probes=QUICK)).id)
    yield deployment
    deployer.delete(deployment.id)


@dataclass
class Load:
    """Predictions, one after the other, and what came of them."""

    deployer: Deployer
    deployment_id: str
    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: bool = False

    def run(self) -> None:
        while not self.stopped:
            try:
                self.answered.append(self.deployer.ask(self.deployment_id))
            except grpc.RpcError as error:
                self.failed.append(f"{error.code().name}: {error.details()}")


@contextmanager
def under_load(deployer: Deployer, deployment_id: str) -> Iterator[Load]:
    """Callers who never stop asking in this block; none of their calls may fail."""
    load = Load(deployer, deployment_id)
    callers = [threading.Thread(target=load.run) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        yield load
    finally:
        load.stopped = True
        for caller in callers:
            caller.join()
    assert load.failed == []


@answers("DeploymentService/CreateDeployment", "DeploymentService/GetDeployment", "DeploymentService/ListDeployments")
def test_a_version_answers_under_a_name(deployer: Deployer, deployed: deployment_pb2.Deployment) -> None:
    assert (deployed.latest_revision, deployed.active_revision) == (1, 1)
    assert (deployed.wanted_replicas, deployed.ready_replicas) == (1, 1)
    (replica,) = deployed.replicas
    assert replica.state == deployment_pb2.REPLICA_STATE_READY
    assert replica.endpoint.startswith("127.0.0.1:")
    assert {condition.type: condition.status for condition in deployed.conditions} == {
        deployment_pb2.CONDITION_TYPE_AVAILABLE: True,
        deployment_pb2.CONDITION_TYPE_PROGRESSING: True,
        deployment_pb2.CONDITION_TYPE_REPLICA_FAILURE: False,
        deployment_pb2.CONDITION_TYPE_REPLICA_SLOW: False,
    }
    assert deployed.config.environment == deployment_pb2.DEPLOYMENT_ENVIRONMENT_DEVELOPMENT
    assert deployed.config.probes.startup_seconds == 60
    name = deployment_pb2.DeploymentName(project_id=deployer.project_id, name=deployed.name)
    by_name = deployer.client.deployments.GetDeployment(pb.GetDeploymentRequest(name=name)).deployment
    assert by_name == deployer.get(deployed.id) == deployed
    listed = pb.ListDeploymentsRequest(project_id=deployer.project_id, name_prefix=deployed.name)
    assert list(deployer.client.deployments.ListDeployments(listed).deployments) == [deployed]

    assert deployer.ask(deployed.id) == deployer.first
    said = deployer.client.predictions.Predict(predictions.PredictRequest(deployment_name=name, **as_rows()))
    assert list(said.predictions.strings.values) == ["a", "b", "a"]
    requests = [
        predictions.StreamPredictRequest(deployment_id=deployed.id if number == 0 else "", id=str(number), **as_rows())
        for number in range(2)
    ]
    answered = list(deployer.client.predictions.StreamPredict(iter(requests)))
    assert [(each.id, each.response.model_version_id) for each in answered] == [
        ("0", deployer.first),
        ("1", deployer.first),
    ]


def test_the_alias_of_the_environment_moves_with_it_and_keeps_its_history(deployer: Deployer) -> None:
    config = deployment_pb2.DeploymentConfig(environment=deployment_pb2.DEPLOYMENT_ENVIRONMENT_PRODUCTION)
    deployment = deployer.ready(deployer.create(config=config).id)
    deployer.update(deployment.id, deployer.second)
    deployer.ready(deployment.id)
    request = model_service_pb2.ListAliasHistoryRequest(
        project_id=deployer.project_id, model_name="birds", alias="production"
    )
    entries = deployer.client.models.ListAliasHistory(request).entries
    assert [entry.model_version_id for entry in entries] == [deployer.second, deployer.first]
    deployer.delete(deployment.id)


@answers("DeploymentService/UpdateDeployment", "DeploymentService/RollbackDeployment")
@answers("DeploymentService/ListRevisions", "DeploymentService/ScaleDeployment")
def test_no_call_fails_while_it_is_revised_scaled_and_rolled_back(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    with under_load(deployer, deployed.id) as load:
        changed = deployer.update(deployed.id, deployer.second)
        assert (changed.latest_revision, changed.active_revision) == (2, 1)
        assert deployer.ready(deployed.id).active_revision == 2
        request = pb.ScaleDeploymentRequest(deployment_id=deployed.id, replicas=2)
        scaled = deployer.client.deployments.ScaleDeployment(request).deployment
        assert (scaled.wanted_replicas, scaled.latest_revision) == (2, 2)
        assert deployer.ready(deployed.id).ready_replicas == 2
        rollback = pb.RollbackDeploymentRequest(deployment_id=deployed.id)
        back = deployer.client.deployments.RollbackDeployment(rollback).deployment
        assert (back.latest_revision, back.wanted_replicas) == (3, 2)
        deployer.ready(deployed.id)
        last = len(load.answered)
        eventually(lambda: len(load.answered) > last + 3)
    assert set(load.answered) == {deployer.first, deployer.second}
    assert load.answered[-1] == deployer.first
    listed = pb.ListRevisionsRequest(deployment_id=deployed.id, page_size=2)
    page = deployer.client.deployments.ListRevisions(listed)
    listed.page_token = page.next_page_token
    revisions = [*page.revisions, *deployer.client.deployments.ListRevisions(listed).revisions]
    assert [(each.number, each.model_version_id) for each in revisions] == [
        (3, deployer.first),
        (2, deployer.second),
        (1, deployer.first),
    ]
    active, retired = deployment_pb2.REVISION_STATE_ACTIVE, deployment_pb2.REVISION_STATE_RETIRED
    assert [each.state for each in revisions] == [active, retired, retired]
    assert revisions[1].activate_time.ToDatetime() <= revisions[1].retire_time.ToDatetime()


def test_recreate_serves_the_new_one_alone(deployer: Deployer, deployed: deployment_pb2.Deployment) -> None:
    deployer.update(deployed.id, deployer.second, config=deployment_pb2.DeploymentConfig(strategy=RECREATE))
    seen = []
    deployer.until(deployed.id, lambda now: bool(seen.append(now)) or now.state == READY)
    assert all(len({replica.revision for replica in now.replicas}) <= 1 for now in seen)
    assert deployer.ask(deployed.id) == deployer.second


@answers("DeploymentService/WatchDeployment", "DeploymentService/StopDeployment", "DeploymentService/DeleteDeployment")
def test_a_watch_tells_of_every_state_goes_on_where_it_was_and_ends_with_the_deployment(deployer: Deployer) -> None:
    deployment = deployer.create()
    assert deployment.state == deployment_pb2.DEPLOYMENT_STATE_PROGRESSING
    watch = deployer.client.deployments.WatchDeployment(pb.WatchDeploymentRequest(deployment_id=deployment.id))
    seen = []
    for said in watch:
        seen.append(said.deployment)
        if said.deployment.state == READY:
            break
    assert [each.sequence for each in seen] == sorted({each.sequence for each in seen})
    watch.cancel()
    after = pb.WatchDeploymentRequest(deployment_id=deployment.id, after_sequence=seen[-1].sequence)
    watch = deployer.client.deployments.WatchDeployment(after)
    stopped = deployer.client.deployments.StopDeployment(pb.StopDeploymentRequest(deployment_id=deployment.id))
    assert (stopped.deployment.state, stopped.deployment.wanted_replicas) == (
        deployment_pb2.DEPLOYMENT_STATE_STOPPING,
        0,
    )
    newer = next(watch).deployment
    assert newer.sequence > seen[-1].sequence
    for said in watch:
        if said.deployment.state == STOPPED:
            assert not said.deployment.replicas
            break
    again = deployer.client.deployments.StopDeployment(pb.StopDeploymentRequest(deployment_id=deployment.id))
    assert again.deployment == deployer.get(deployment.id)
    deployer.delete(deployment.id)
    assert next(watch).HasField("deleted")
    assert list(watch) == []


def test_a_stopped_deployment_answers_nobody_and_starts_again_with_a_revision(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    deployer.stop(deployed.id)
    said = refusal(
        deployer.client.predictions.Predict, predictions.PredictRequest(deployment_id=deployed.id, **as_rows())
    )
    assert said.short == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert said.metadata == {"state": "stopped"}
    request = pb.RollbackDeploymentRequest(deployment_id=deployed.id, revision=1)
    deployer.client.deployments.RollbackDeployment(request)
    assert deployer.ready(deployed.id).active_revision == 2
    assert deployer.ask(deployed.id) == deployer.first


def test_a_start_that_is_repeated_starts_one(deployer: Deployer) -> None:
    request_id, name = str(uuid4()), f"deployment-{uuid4()}"
    made = [deployer.create(name=name, request_id=request_id) for _ in range(2)]
    assert made[0].id == made[1].id
    reused = pb.CreateDeploymentRequest(
        request_id=request_id,
        project_id=deployer.project_id,
        name="another",
        model_version=pb.ModelVersionTarget(model_version_id=deployer.first),
    )
    said = refusal(deployer.client.deployments.CreateDeployment, reused)
    assert said.short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    deployer.delete(made[0].id)


def test_a_dry_run_says_what_would_be_and_changes_nothing(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    planned = deployer.create(name="planned", validate_only=True)
    assert (planned.id, planned.latest_revision) == ("", 1)
    update = deployer.update(deployed.id, deployer.second, validate_only=True)
    assert update.latest_revision == 2
    assert deployer.get(deployed.id) == deployed
    listed = pb.ListDeploymentsRequest(project_id=deployer.project_id, name_prefix="planned")
    assert not deployer.client.deployments.ListDeployments(listed).deployments


@refuses("DeploymentService/CreateDeployment", "DeploymentService/UpdateDeployment")
def test_what_cannot_be_served_is_refused_with_the_field(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    create, update = deployer.client.deployments.CreateDeployment, deployer.client.deployments.UpdateDeployment

    def new(**changes: Any) -> pb.CreateDeploymentRequest:
        values = {"project_id": deployer.project_id, "name": "new", "model_version": version(deployer.first)}
        return pb.CreateDeploymentRequest(**{**values, **changes})

    def version(identity: str) -> pb.ModelVersionTarget:
        return pb.ModelVersionTarget(model_version_id=identity)

    assert refusal(create, new(name="")).fields == ["name"]
    assert refusal(create, new(model_version=None)).fields == ["model_version"]
    assert refusal(create, new(model_version=version(str(uuid4())))).short == ("NOT_FOUND", "NOT_FOUND")
    assert refusal(create, new(name=deployed.name)).short == ("ALREADY_EXISTS", "NAME_TAKEN")
    elsewhere = refusal(create, new(project_id=a_project_of(deployer.client)))
    assert (elsewhere.short, elsewhere.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["model_version"])
    misspelt = model_service_pb2.ModelVersionName(project_id=deployer.project_id, model_name="bird")
    said = refusal(create, new(model_version=pb.ModelVersionTarget(name=misspelt)))
    assert "did you mean 'birds'?" in said.message
    negative = deployment_pb2.DeploymentConfig(scaling=deployment_pb2.Scaling(replicas=-1))
    assert refusal(create, new(config=negative)).fields == ["config.scaling.replicas"]

    nothing = refusal(update, pb.UpdateDeploymentRequest(deployment_id=deployed.id))
    assert (nothing.short, nothing.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["model_version"])
    stale = pb.UpdateDeploymentRequest(
        deployment_id=deployed.id, model_version=version(deployer.second), etag="another"
    )
    assert refusal(update, stale).short == ("ABORTED", "STALE_ETAG")
    assert deployer.get(deployed.id) == deployed


@refuses("DeploymentService/ScaleDeployment", "DeploymentService/RollbackDeployment")
@refuses("DeploymentService/StopDeployment", "DeploymentService/DeleteDeployment", "DeploymentService/WatchDeployment")
@refuses("DeploymentService/GetDeployment", "DeploymentService/ListDeployments", "DeploymentService/ListRevisions")
def test_each_method_refuses_what_is_not_there_or_was_changed(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    calls, identity = deployer.client.deployments, deployed.id
    for call, request in (
        (calls.ScaleDeployment, pb.ScaleDeploymentRequest(deployment_id=identity, replicas=1, etag="another")),
        (calls.RollbackDeployment, pb.RollbackDeploymentRequest(deployment_id=identity, revision=1, etag="another")),
        (calls.StopDeployment, pb.StopDeploymentRequest(deployment_id=identity, etag="another")),
        (calls.DeleteDeployment, pb.DeleteDeploymentRequest(deployment_id=identity, etag="another")),
    ):
        assert refusal(call, request).short == ("ABORTED", "STALE_ETAG")
    assert refusal(calls.RollbackDeployment, pb.RollbackDeploymentRequest(deployment_id=identity)).short == (
        "FAILED_PRECONDITION",
        "WRONG_STATE",
    )
    unknown = refusal(calls.RollbackDeployment, pb.RollbackDeploymentRequest(deployment_id=identity, revision=9))
    assert unknown.short == ("NOT_FOUND", "NOT_FOUND")
    ahead = refusal(calls.WatchDeployment, pb.WatchDeploymentRequest(deployment_id=identity, after_sequence=10_000))
    assert (ahead.short, ahead.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["after_sequence"])
    name = deployment_pb2.DeploymentName(project_id=deployer.project_id, name=deployed.name.upper())
    misspelt = refusal(calls.GetDeployment, pb.GetDeploymentRequest(name=name))
    assert f"did you mean {deployed.name!r}?" in misspelt.message
    for call, request in (
        (calls.ListDeployments, pb.ListDeploymentsRequest(project_id=deployer.project_id, page_token="x")),
        (calls.ListRevisions, pb.ListRevisionsRequest(deployment_id=identity, page_token="x")),
    ):
        assert refusal(call, request).short == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
    assert deployer.get(identity) == deployed


def test_a_version_that_is_served_cannot_be_deleted(deployer: Deployer, deployed: deployment_pb2.Deployment) -> None:
    request = model_service_pb2.DeleteModelVersionRequest(model_version_id=deployer.first, force=True)
    said = refusal(deployer.client.models.DeleteModelVersion, request)
    assert said.short == ("FAILED_PRECONDITION", "IN_USE")
    assert said.metadata == {"deployments": deployed.name}


@limits("DEPLOYMENTS", "REPLICAS")
def test_there_are_so_many_deployments_and_replicas(deployer: Deployer, deployed: deployment_pb2.Deployment) -> None:
    def scale(replicas: int) -> pb.ScaleDeploymentRequest:
        return pb.ScaleDeploymentRequest(deployment_id=deployed.id, replicas=replicas)

    assert deployer.client.deployments.ScaleDeployment(scale(3)).deployment.wanted_replicas == 3
    said = refusal(deployer.client.deployments.ScaleDeployment, scale(4))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "TOO_LARGE"), ["replicas"])
    assert said.metadata == {"limit": "EASYML_REPLICAS", "maximum": "3"}
    others = [deployer.create() for _ in range(3)]
    request = pb.CreateDeploymentRequest(
        project_id=deployer.project_id,
        name="one more",
        model_version=pb.ModelVersionTarget(model_version_id=deployer.first),
    )
    said = refusal(deployer.client.deployments.CreateDeployment, request)
    assert said.short == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
    assert said.metadata == {"limit": "EASYML_DEPLOYMENTS", "maximum": "4"}
    deployer.stop(others[0].id)
    made = deployer.client.deployments.CreateDeployment(request).deployment
    for each in (*others, made):
        deployer.delete(each.id)


def test_a_watch_ends_with_the_session_of_its_user(deployer: Deployer) -> None:
    request = auth_service_pb2.CreateApiKeyRequest(name="short")
    made = deployer.client.auth.CreateApiKey(request)
    deployment = deployer.create()
    with Client(deployer.client.address, made.secret) as caller:
        watch = caller.deployments.WatchDeployment(pb.WatchDeploymentRequest(deployment_id=deployment.id))
        next(watch)
        deployer.client.auth.RevokeApiKey(auth_service_pb2.RevokeApiKeyRequest(api_key_id=made.api_key.id))
        said = refusal(lambda stream: stream, watch)
    assert said.short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    deployer.delete(deployment.id)


def at(endpoint: str, deployment_id: str, token: str) -> str:
    """The version that answers at an endpoint, by a call that no server sees."""
    with Client(endpoint, token) as client:
        request = predictions.PredictRequest(deployment_id=deployment_id, **as_rows())
        return str(client.predictions.Predict(request).model_version_id)


@answers("AuthService/ExchangeToken")
@refuses("AuthService/ExchangeToken")
def test_an_endpoint_takes_tokens_for_its_deployment_alone(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    exchange = deployer.client.auth.ExchangeToken
    given = exchange(auth_service_pb2.ExchangeTokenRequest(deployment_id=deployed.id))
    name = deployment_pb2.DeploymentName(project_id=deployer.project_id, name=deployed.name)
    assert exchange(auth_service_pb2.ExchangeTokenRequest(name=name)).deployment_id == given.deployment_id
    assert 0 < given.expire_time.ToSeconds() - time.time() <= 300
    (replica,) = deployed.replicas
    assert at(replica.endpoint, deployed.id, given.token) == deployer.first

    another = deployer.create(name=f"deployment-{uuid4()}")
    others = exchange(auth_service_pb2.ExchangeTokenRequest(deployment_id=another.id)).token
    for token in (others, deployer.client.token):
        with pytest.raises(grpc.RpcError) as caught:
            at(replica.endpoint, deployed.id, str(token))
        assert refusal_of(caught.value).short == ("UNAUTHENTICATED", "INVALID_TOKEN")
    with Client(deployer.client.address, given.token) as misused:
        said = refusal(misused.auth.GetCurrentUser, auth_service_pb2.GetCurrentUserRequest())
    assert said.short == ("UNAUTHENTICATED", "INVALID_TOKEN")
    deployer.delete(another.id)
    unknown = auth_service_pb2.ExchangeTokenRequest(deployment_id=str(uuid4()))
    assert refusal(exchange, unknown).short == ("NOT_FOUND", "NOT_FOUND")
