"""The Open Inference Protocol of a model server, over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server import __version__
from easyml_server.security.tokens import Ed25519Signer
from easyml_server.serving.known import CannotStart, parse_names
from easyml_server.serving.process import Options, run_model_server
from easyml_server.serving.sources import Source
from inference import open_inference_grpc_pb2 as oip
from inference import open_inference_grpc_pb2_grpc as oip_grpc
from tests.unit.serving.refusals import Refused, told
from tests.unit.serving.requests import VERSION, a_row, rows
from tests.unit.serving.tensors import FITTING, Tensor, raw, typed

NAME = "levels"


class Client:
    """Asks as a client of the protocol does."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.inference = oip_grpc.GRPCInferenceServiceStub(channel)
        self.predictions = channel.unary_unary(
            "/easyml.v1.PredictionService/Predict",
            request_serializer=pb.PredictRequest.SerializeToString,
            response_deserializer=pb.PredictResponse.FromString,
        )

    async def refused(self, method: str, request: Any) -> Refused:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(self.inference, method)(request)
        return told(caught.value)


@pytest.fixture
async def client(trained: Path) -> AsyncIterator[Client]:
    options = Options({VERSION: Source(trained)}, {NAME: VERSION}, insecure=True, grace_seconds=0)
    async with run_model_server(options) as listening, grpc.aio.insecure_channel(listening.address) as channel:
        yield Client(channel)


def row() -> pb.PredictRequest:
    return rows(a_row(size=1.5, age=42, city="Rome"), a_row(size=2.5, age=43, city="Łódź", member=False))


@pytest.mark.parametrize("name", [VERSION, VERSION.upper(), NAME])
@pytest.mark.parametrize("version", ["", VERSION])
@pytest.mark.parametrize("pack", [typed, raw])
async def test_it_answers_what_the_prediction_service_answers(
    client: Client, pack: Any, name: str, version: str
) -> None:
    expected = await client.predictions(row())
    answer = await client.inference.ModelInfer(pack(FITTING, name, model_version=version, id="7"))
    assert (answer.model_name, answer.model_version, answer.id) == (name, VERSION, "7")
    labels, probabilities = answer.outputs
    expected_probabilities = np.array([each.values for each in expected.probabilities]).T
    if pack is raw:
        texts, values = answer.raw_output_contents
        assert texts == b"".join(
            len(text).to_bytes(4, "little") + text.encode() for text in expected.predictions.strings.values
        )
        assert np.frombuffer(values).reshape(probabilities.shape) == pytest.approx(expected_probabilities, abs=1e-6)
    else:
        assert [text.decode() for text in labels.contents.bytes_contents] == list(expected.predictions.strings.values)
        given = np.array(probabilities.contents.fp64_contents).reshape(probabilities.shape)
        assert given == pytest.approx(expected_probabilities, abs=1e-6)


async def test_cells_that_were_filled_or_not_known_are_counted(client: Client) -> None:
    tensors = [Tensor("city", "BYTES", [b"Atlantis", b"Rome"]) if each.name == "city" else each for each in FITTING]
    tensors[0] = Tensor("size", "FP64", [1.5, float("nan")])
    answer = await client.inference.ModelInfer(typed(tensors))
    assert answer.parameters["noted_cells"].int64_param == 2
    assert "noted_cells" not in (await client.inference.ModelInfer(typed(FITTING))).parameters


async def test_larger_requests_are_answered_in_a_thread(client: Client) -> None:
    many = [Tensor(each.name, each.datatype, list(each.values) * 500) for each in FITTING]
    answer = await client.inference.ModelInfer(raw(many))
    assert list(answer.outputs[0].shape) == [1000, 1]


async def test_the_metadata_says_what_a_model_takes_and_gives(client: Client) -> None:
    said = await client.inference.ModelMetadata(oip.ModelMetadataRequest(name=NAME))
    assert (said.name, list(said.versions)) == (NAME, [VERSION])
    assert {tensor.name: tensor.datatype for tensor in said.inputs} == {each.name: each.datatype for each in FITTING}
    assert [list(tensor.shape) for tensor in said.inputs] == [[-1, 1]] * 5
    assert [(each.name, each.datatype, list(each.shape)) for each in said.outputs] == [
        ("level", "BYTES", [-1, 1]),
        ("level_probabilities", "FP64", [-1, 3]),
    ]


async def test_server_and_models_tell_that_they_are_ready(client: Client) -> None:
    stub = client.inference
    assert (await stub.ServerLive(oip.ServerLiveRequest())).live
    assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
    for name, version, ready in [
        (NAME, "", True),
        (VERSION, VERSION, True),
        (NAME, "3", False),
        ("another", "", False),
        ("", "", False),
    ]:
        assert (await stub.ModelReady(oip.ModelReadyRequest(name=name, version=version))).ready is ready
    said = await stub.ServerMetadata(oip.ServerMetadataRequest())
    assert (said.name, said.version) == ("easyml-model-server", __version__)


async def test_the_index_names_each_model_under_each_of_its_names(client: Client) -> None:
    index = await client.inference.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))
    assert [(each.name, each.version, each.state) for each in index.models] == [
        (VERSION, VERSION, "READY"),
        (NAME, VERSION, "READY"),
    ]
    none = await client.inference.RepositoryIndex(oip.RepositoryIndexRequest(repository_name="other"))
    assert not none.models


async def test_health_is_told_for_each_model(client: Client) -> None:
    health = health_pb2_grpc.HealthStub(client.channel)  # type: ignore[no-untyped-call]
    for name in ("inference.GRPCInferenceService", VERSION, NAME):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_knows_the_protocol(client: Client) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)  # type: ignore[no-untyped-call]
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")
    async for answer in reflection.ServerReflectionInfo(iter([request])):
        assert answer.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason"),
    [
        ("ModelInfer", typed(FITTING, "another"), code_pb2.NOT_FOUND, "NOT_FOUND"),
        ("ModelInfer", typed(FITTING, NAME, model_version="3"), code_pb2.NOT_FOUND, "NOT_FOUND"),
        ("ModelInfer", typed(FITTING[1:]), code_pb2.INVALID_ARGUMENT, "MISSING_COLUMN"),
        ("ModelMetadata", oip.ModelMetadataRequest(name="another"), code_pb2.NOT_FOUND, "NOT_FOUND"),
    ],
)
async def test_refusals_have_reasons(client: Client, method: str, request_: Any, code: int, reason: str) -> None:
    refused = await client.refused(method, request_)
    assert (refused.code, refused.info.reason) == (code, reason)
    assert refused.call_id


async def test_bytes_that_are_no_message_are_refused(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff\xff")
    assert told(caught.value).info.reason == "MALFORMED_MESSAGE"


async def test_a_stream_answers_each_under_its_id_and_goes_on_after_an_error(client: Client) -> None:
    requests = [typed(FITTING, id="1"), typed(FITTING[1:], NAME, id="2"), raw(FITTING, id="3")]
    answers = [answer async for answer in client.inference.ModelStreamInfer(iter(requests))]
    assert [answer.infer_response.id for answer in answers] == ["1", "2", "3"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert "'size'" in answers[1].error_message
    assert answers[1].infer_response.model_name == NAME
    assert answers[0].infer_response.outputs[0].contents.bytes_contents


async def test_who_may_not_ask_learns_nothing_of_models(trained: Path, tmp_path: Path) -> None:
    Ed25519Signer(tmp_path / "keys")
    options = Options(
        {VERSION: Source(trained)}, jwks=tmp_path / "keys" / "jwks.json", audience=VERSION, grace_seconds=0
    )
    async with run_model_server(options) as listening, grpc.aio.insecure_channel(listening.address) as channel:
        client = Client(channel)
        assert (await client.inference.ServerReady(oip.ServerReadyRequest())).ready
        for method, request in [
            ("ModelInfer", typed(FITTING)),
            ("ModelMetadata", oip.ModelMetadataRequest(name=VERSION)),
            ("ModelReady", oip.ModelReadyRequest(name=VERSION)),
            ("RepositoryIndex", oip.RepositoryIndexRequest()),
        ]:
            refused = await client.refused(method, request)
            assert (refused.code, refused.info.reason) == (code_pb2.UNAUTHENTICATED, "NOT_SIGNED_IN")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.inference.ModelStreamInfer(iter([typed(FITTING)])).read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "argument", ["", "levels", "=", "levels=", f"={VERSION}", "levels=another", f"{VERSION}={VERSION}"]
)
def test_a_name_that_is_none_is_refused(argument: str) -> None:
    with pytest.raises(CannotStart, match="--name"):
        parse_names([argument], {VERSION: Source(Path())})


def test_a_name_is_given_once() -> None:
    assert parse_names([f"a=b={VERSION.upper()}"], {VERSION: Source(Path())}) == {"a=b": VERSION}
    with pytest.raises(CannotStart, match="already"):
        parse_names([f"a={VERSION}"] * 2, {VERSION: Source(Path())})
