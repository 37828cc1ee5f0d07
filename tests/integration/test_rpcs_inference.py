"""The Open Inference Protocol on the main port: a deployment answers where the protocol has a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import deployment_pb2, project_pb2, project_service_pb2
from easyml.v1 import deployment_service_pb2 as deployments
from easyml_server import __version__
from inference import open_inference_grpc_pb2 as pb
from tests.builders import register
from tests.integration.test_rpcs_deployments import QUICK, Deployer, made_by
from tests.integration.test_rpcs_traffic import standing_by, with_steps
from tests.servers import Client, ServerProcess, deploying, refusal

SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its deployments end with it."""
    folder = tmp_path_factory.mktemp("inference") / "data"
    with deploying(folder, OPEN_REGISTRATION="true", MAX_MESSAGE_BYTES=str(1 << 20)) as server:
        yield server


@pytest.fixture(scope="module")
def deployer(server: ServerProcess) -> Iterator[Deployer]:
    with Client(server.address, server.key) as client:
        yield made_by(client)


@pytest.fixture(scope="module")
def deployed(deployer: Deployer) -> deployment_pb2.Deployment:
    """One that answers, for all."""
    return deployer.ready(deployer.create(config=deployment_pb2.DeploymentConfig(probes=QUICK)).id)


@pytest.fixture(scope="module")
def stranger(server: ServerProcess) -> Iterator[Client]:
    """A user who is a member of nothing."""
    with Client(server.address) as anonymous:
        token = register(anonymous).session.access_token
    with Client(server.address, token) as client:
        yield client


def call(client: Client, method: str) -> Any:
    """A method of the protocol, as its own stubs call it."""
    response = {"ModelStreamInfer": "ModelStreamInferResponse"}.get(method, f"{method}Response")
    kind = "stream_stream" if "Stream" in method else "unary_unary"
    raw = client.raw(f"{SERVICE}{method}", kind=kind)

    def ask(request: Any, **options: Any) -> Any:
        if kind == "unary_unary":
            return getattr(pb, response).FromString(raw(request.SerializeToString(), **options))
        answers = raw(iter([each.SerializeToString() for each in request]), **options)
        return (getattr(pb, response).FromString(answer) for answer in answers)

    return ask


def a_question(name: str, *, leave_out: str = "", **changes: Any) -> pb.ModelInferRequest:
    """Three rows."""
    request = pb.ModelInferRequest(model_name=name, id="7", **changes)
    columns = {"x": ("FP64", {"fp64_contents": [1.0, 5.0, 2.0]}), "z": ("INT64", {"int64_contents": [3, 4, 5]})}
    for column, (datatype, contents) in columns.items():
        if column != leave_out:
            request.inputs.add(name=column, datatype=datatype, shape=[3], contents=pb.InferTensorContents(**contents))
    return request


def names_of(deployer: Deployer, deployment: deployment_pb2.Deployment) -> list[str]:
    return [deployment.id, f"{deployer.project_id}/{deployment.name}"]


def test_a_server_that_answers_is_live_and_ready_for_everybody(server: ServerProcess) -> None:
    with Client(server.address) as anonymous:
        assert call(anonymous, "ServerLive")(pb.ServerLiveRequest()).live
        assert call(anonymous, "ServerReady")(pb.ServerReadyRequest()).ready
        told = call(anonymous, "ServerMetadata")(pb.ServerMetadataRequest())
    assert (told.name, told.version) == ("easyml", __version__)


def test_a_deployment_is_asked_by_its_id_and_by_project_and_name(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    for name in (*names_of(deployer, deployed), deployed.id.upper()):
        told = call(deployer.client, "ModelMetadata")(pb.ModelMetadataRequest(name=name))
        assert (told.name, list(told.versions)) == (name, [deployer.first])
        assert {tensor.name: tensor.datatype for tensor in told.inputs} == {"x": "FP64", "z": "INT64"}
        assert call(deployer.client, "ModelReady")(pb.ModelReadyRequest(name=name)).ready
        answer = call(deployer.client, "ModelInfer")(a_question(name))
        assert (answer.model_name, answer.model_version, answer.id) == (name, deployer.first, "7")
        assert list(answer.outputs[0].contents.bytes_contents) == [b"a", b"b", b"a"]


def test_a_request_that_does_not_begin_with_its_name_is_answered_too(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    first, rest = pb.ModelInferRequest(model_name=deployed.id), a_question("")
    raw = rest.SerializeToString() + first.SerializeToString()
    answer = pb.ModelInferResponse.FromString(deployer.client.raw(f"{SERVICE}ModelInfer")(raw))
    assert answer.model_version == deployer.first


def test_a_stream_answers_each_request_in_its_place(deployer: Deployer, deployed: deployment_pb2.Deployment) -> None:
    questions = [
        a_question(deployed.id),
        a_question(deployed.id, leave_out="z"),
        a_question(str(uuid4())),
        a_question(deployed.id),
    ]
    first, lacking, elsewhere, last = call(deployer.client, "ModelStreamInfer")(questions)
    for answered in (first, last):
        assert list(answered.infer_response.outputs[0].contents.bytes_contents) == [b"a", b"b", b"a"]
    assert "'z'" in lacking.error_message
    assert "There is no model" in elsewhere.error_message


def test_calls_are_shared_by_weight(deployer: Deployer) -> None:
    deployment = deployer.ready(deployer.create().id)
    standing_by(deployer, deployment.id, with_steps((50, 0)))
    answered = {call(deployer.client, "ModelInfer")(a_question(deployment.id)).model_version for _ in range(60)}
    # All by one of them: once in 5 * 10^17.
    assert answered == {deployer.first, deployer.second}
    deployer.delete(deployment.id)


def test_the_index_lists_what_the_caller_sees(
    deployer: Deployer, deployed: deployment_pb2.Deployment, stranger: Client
) -> None:
    starting = deployer.create()
    everything = {
        each.name: each for each in call(deployer.client, "RepositoryIndex")(pb.RepositoryIndexRequest()).models
    }
    for name in names_of(deployer, deployed):
        listed = everything[name]
        assert (listed.version, listed.state, listed.reason) == (deployer.first, "READY", "")
    unready = everything[starting.id]
    assert (unready.version, unready.state) == ("", "UNAVAILABLE")
    assert unready.reason
    only = call(deployer.client, "RepositoryIndex")(pb.RepositoryIndexRequest(ready=True)).models
    assert starting.id not in {each.name for each in only if each.version == ""}
    other = pb.RepositoryIndexRequest(repository_name="another")
    assert not call(deployer.client, "RepositoryIndex")(other).models
    assert not call(stranger, "RepositoryIndex")(pb.RepositoryIndexRequest()).models
    deployer.delete(starting.id)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
def test_another_tenant_s_deployment_is_not_there(
    deployer: Deployer, deployed: deployment_pb2.Deployment, stranger: Client, method: str
) -> None:
    def asked(client: Client, name: str) -> Any:
        request = a_question(name) if method == "ModelInfer" else pb.ModelMetadataRequest(name=name)
        return refusal(call(client, method), request)

    missing = str(uuid4())
    others, nobodys = asked(stranger, deployed.id), asked(stranger, missing)
    assert others.short == nobodys.short == ("NOT_FOUND", "NOT_FOUND")
    assert others.message.replace(deployed.id, missing) == nobodys.message
    assert asked(stranger, names_of(deployer, deployed)[1]).short == ("NOT_FOUND", "NOT_FOUND")
    assert not call(stranger, "ModelReady")(pb.ModelReadyRequest(name="another")).ready
    assert not call(stranger, "ModelReady")(pb.ModelReadyRequest(name=deployed.id)).ready
    assert "did you mean" in asked(deployer.client, f"{deployer.project_id}/{deployed.name.upper()}").message


def test_who_may_see_a_project_may_ask_its_deployments(
    deployer: Deployer, deployed: deployment_pb2.Deployment, server: ServerProcess
) -> None:
    with Client(server.address) as anonymous:
        registered = register(anonymous)
    member = project_service_pb2.SetMemberRequest(
        project_id=deployer.project_id, email=registered.user.email, role=project_pb2.ROLE_VIEWER
    )
    with Client(server.address, registered.session.access_token) as viewer:
        assert refusal(call(viewer, "ModelInfer"), a_question(deployed.id)).short == ("NOT_FOUND", "NOT_FOUND")
        deployer.client.projects.SetMember(member)
        assert call(viewer, "ModelInfer")(a_question(deployed.id)).model_version == deployer.first
        index = call(viewer, "RepositoryIndex")(pb.RepositoryIndexRequest())
        assert deployed.id in {each.name for each in index.models}


def test_what_cannot_be_answered_is_refused_with_the_way_out(
    deployer: Deployer, deployed: deployment_pb2.Deployment, server: ServerProcess
) -> None:
    infer = call(deployer.client, "ModelInfer")
    nameless = refusal(infer, a_question(""))
    assert (nameless.short, nameless.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["model_name"])
    for name in ("species", "species/one", f"{deployer.project_id}/", f"{deployer.project_id.upper()}/{deployed.name}"):
        unknown = refusal(infer, a_question(name))
        assert unknown.short == ("NOT_FOUND", "NOT_FOUND")
        assert "by its id, or as PROJECT_ID/NAME" in unknown.message
    assert "'z'" in refusal(infer, a_question(deployed.id, leave_out="z")).message
    other = refusal(infer, a_question(deployed.id, model_version=deployer.second))
    assert other.short == ("NOT_FOUND", "NOT_FOUND")
    large = refusal(infer, a_question(deployed.id, raw_input_contents=[bytes(1 << 20)]))
    assert (large.short, large.metadata["limit"]) == (("INVALID_ARGUMENT", "TOO_LARGE"), "EASYML_MAX_MESSAGE_BYTES")
    for raw in (b"\n\xff", b"\n\x02\xff\xff", b"\x12\x05a"):
        with pytest.raises(grpc.RpcError) as caught:
            deployer.client.raw(f"{SERVICE}ModelInfer")(raw)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with Client(server.address) as anonymous:
        for method, request in (
            ("ModelInfer", a_question(deployed.id)),
            ("RepositoryIndex", pb.RepositoryIndexRequest()),
        ):
            assert refusal(call(anonymous, method), request).short == ("UNAUTHENTICATED", "NOT_SIGNED_IN")
        streamed = refusal(lambda questions: list(call(anonymous, "ModelStreamInfer")(questions)), [a_question("x")])
        assert streamed.short == ("UNAUTHENTICATED", "NOT_SIGNED_IN")


def test_a_stopped_deployment_is_not_ready_and_says_how_to_start_it(deployer: Deployer) -> None:
    deployment = deployer.ready(deployer.create().id)
    deployer.stop(deployment.id)
    assert not call(deployer.client, "ModelReady")(pb.ModelReadyRequest(name=deployment.id)).ready
    said = refusal(call(deployer.client, "ModelInfer"), a_question(deployment.id))
    assert said.short == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert "to start it again update it, or roll it back" in said.message
    listed = call(deployer.client, "RepositoryIndex")(pb.RepositoryIndexRequest()).models
    assert deployment.id not in {each.name for each in listed}
    deployer.client.deployments.DeleteDeployment(deployments.DeleteDeploymentRequest(deployment_id=deployment.id))


def test_a_deployment_may_be_called_as_its_version_is(deployer: Deployer) -> None:
    deployment = deployer.ready(deployer.create(name=deployer.first).id)
    assert deployer.ask(deployment.id) == deployer.first
    deployer.delete(deployment.id)
