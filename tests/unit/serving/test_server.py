"""PredictionService of a model server over a real channel."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import numpy as np
import onnx
import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from onnx import TensorProto, helper

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.security.tokens import Ed25519Signer
from easyml_server.serving.calls import INLINE_BYTES, Calls, ServingLimits
from easyml_server.serving.known import CannotStart, Known, parse_models
from easyml_server.serving.layout import Layout, PreparedBlock
from easyml_server.serving.loaded import LoadedModels
from easyml_server.serving.metrics import ServingMetrics
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.predictors import Answers, GraphPredictor, Predictor, Run
from easyml_server.serving.process import Options, run_model_server
from easyml_server.serving.repository import ModelRepository
from easyml_server.serving.server import SERVICE, PredictionServicer
from easyml_server.serving.sources import Source
from easyml_server.serving.tables import TableLimits
from tests.unit.serving.refusals import Refused, told
from tests.unit.serving.requests import VERSION, a_row, columns, rows, without

DEFAULTS = ServingLimits()
OTHER = "00000000-0000-4000-8000-000000000009"
NUMBER = Signature(
    (SignatureColumn("x", StorageType.DOUBLE, ColumnKind.NUMERIC, nullable=True),), "y", StorageType.DOUBLE
)


class Client:
    """Asks in bytes, as any client may."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._predict = channel.unary_unary("/easyml.v1.PredictionService/Predict")
        self._stream = channel.stream_stream("/easyml.v1.PredictionService/StreamPredict")

    async def predict(self, request: pb.PredictRequest | bytes, **options: Any) -> pb.PredictResponse:
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        return pb.PredictResponse.FromString(await self._predict(raw, **options))

    async def refused(self, request: pb.PredictRequest | bytes, **options: Any) -> Refused:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.predict(request, **options)
        return told(caught.value)

    async def stream(self, requests: Sequence[bytes], **options: Any) -> list[pb.StreamPredictResponse]:
        call = self._stream(iter(requests), **options)
        return [pb.StreamPredictResponse.FromString(raw) async for raw in call]


@asynccontextmanager
async def asking(address: str) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Client(channel)


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Client]:
    """A model server of one stored model that lets anyone ask."""
    async with AsyncExitStack() as stack:
        models = {VERSION: Source(folder)}
        listening = await stack.enter_async_context(
            run_model_server(Options(**{"models": models, "insecure": True, "grace_seconds": 0, **options}))
        )
        yield await stack.enter_async_context(asking(listening.address))


@asynccontextmanager
async def serving_models(
    models: Mapping[str, LoadedModel], limits: ServingLimits = DEFAULTS, metrics: ServingMetrics | None = None
) -> AsyncIterator[Client]:
    """The service with models that were never stored."""
    metrics = metrics or ServingMetrics()
    async with serving_repository(in_memory(models, metrics), limits, metrics) as client:
        yield client


@asynccontextmanager
async def serving_repository(
    repository: ModelRepository, limits: ServingLimits, metrics: ServingMetrics
) -> AsyncIterator[Client]:
    with ThreadPoolExecutor(1) as threads:
        server = grpc.aio.server()
        await repository.start()
        servicer = PredictionServicer(Calls(repository, lambda _authorization: None, limits, threads, metrics))
        server.add_generic_rpc_handlers((servicer.handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with asking(f"127.0.0.1:{port}") as client:
                yield client
        finally:
            await server.stop(0)
            await repository.close()


def known(*versions: str) -> Known:
    return Known({version: Source(version) for version in versions}, {})


def in_memory(
    models: Mapping[str, LoadedModel], metrics: ServingMetrics, first: Known | None = None
) -> ModelRepository:
    def opened(version: str, _source: Source) -> AbstractContextManager[Kept]:
        return nullcontext(Kept(models[version]))

    return ModelRepository(first or known(*models), LoadedModels(0, metrics), opened)


@dataclass(frozen=True)
class Kept:
    """A model that was never stored."""

    model: LoadedModel
    bytes: int = 0

    def load(self) -> LoadedModel:
        return self.model


def a_model(predictor: Predictor, version: str = VERSION) -> LoadedModel:
    return LoadedModel(version, NUMBER, predictor, TableLimits())


def numbers(count: int = 1, target: str = VERSION) -> pb.PredictRequest:
    request = pb.PredictRequest(model_version_id=target)
    request.columns.columns.add(name="x").doubles.values.extend([1.0] * count)
    return request


class Waiting:
    """Predicts when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = threading.Event()
        self.rows: list[int] = []

    def predict(self, _blocks: Sequence[PreparedBlock], rows: int, _run: Run | None) -> Answers:
        self.rows.append(rows)
        self.asked.set()
        self.go.wait(60)
        return Answers(np.zeros(rows), None)


class Broken:
    """A model with a defect."""

    def predict(self, _blocks: Sequence[PreparedBlock], _rows: int, _run: Run | None) -> Answers:
        raise RuntimeError("the secret of the model")


class Constant:
    """Predicts one number."""

    def __init__(self, value: float) -> None:
        self._value = value

    def predict(self, _blocks: Sequence[PreparedBlock], rows: int, _run: Run | None) -> Answers:
        return Answers(np.full(rows, self._value), None)


def endless_graph() -> bytes:
    """A graph that counts to 2^62."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["keep"], ["going"]), helper.make_node("Identity", ["value"], ["same"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, [None, 1]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "always", "x"], ["prediction"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("times", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("always", TensorProto.BOOL, [], [True]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("raw", [b"\xff", b"\x42\xff\xff", b"\x0a\x01\xff", b"\x42" * 50], ids=repr)
async def test_bytes_that_are_no_message_are_refused_with_a_reason(trained: Path, raw: bytes) -> None:
    async with serving(trained) as client:
        refused = await client.refused(raw)
    assert refused.code == code_pb2.INVALID_ARGUMENT
    assert refused.info.reason == "MALFORMED_MESSAGE"
    assert refused.info.domain == "easyml"


async def test_deeply_nested_rows_are_refused(trained: Path) -> None:
    nested: Any = 1
    for _ in range(30):
        nested = {"a": nested}
    fits = rows(a_row(size=nested)).SerializeToString()
    too_deep = b""
    for _ in range(300):
        too_deep = b"\x0a" + _length(len(too_deep)) + too_deep
    async with serving(trained) as client:
        assert (await client.refused(fits)).info.reason == "WRONG_COLUMN_TYPE"
        deep = b"\x42" + _length(len(too_deep)) + too_deep
        assert (await client.refused(deep)).code == code_pb2.INVALID_ARGUMENT


def _length(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 0x7F | 0x80]) + _length(number >> 7)


async def test_the_table_at_fault_is_named_on_the_wire(trained: Path) -> None:
    async with serving(trained) as client:
        refused = await client.refused(rows(a_row(), a_row(beak=1)), metadata=(("x-request-id", "call-7"),))
    assert refused.code == code_pb2.INVALID_ARGUMENT
    assert refused.info.reason == "UNKNOWN_COLUMN"
    assert dict(refused.info.metadata) == {"column": "beak"}
    assert refused.fields == ["rows.rows[1].beak"]
    assert refused.call_id == "call-7"


async def test_a_request_names_its_model(trained: Path) -> None:
    nobody = rows(a_row())
    nobody.ClearField("model_version_id")
    other = rows(a_row())
    other.model_version_id = OTHER
    upper = rows(a_row())
    upper.model_version_id = VERSION.upper()
    by_name = rows(a_row())
    by_name.name.model_name = "levels"
    async with serving(trained) as client:
        assert (await client.refused(nobody)).fields == ["target"]
        assert (await client.refused(other)).code == code_pb2.NOT_FOUND
        assert (await client.predict(upper)).model_version_id == VERSION
        assert (await client.predict(by_name)).model_version_id == VERSION


async def test_several_models_are_told_apart_by_id_only() -> None:
    models = {VERSION: a_model(Constant(1)), OTHER: a_model(Constant(2), OTHER)}
    by_name = numbers()
    by_name.name.model_name = "levels"
    async with serving_models(models) as client:
        for version, value in ((VERSION, 1), (OTHER, 2)):
            answer = await client.predict(numbers(target=version))
            assert answer.model_version_id == version
            assert list(answer.predictions.doubles.values) == [value]
        assert (await client.refused(by_name)).fields == ["target"]


async def test_small_and_large_requests_get_the_same_answers(trained: Path) -> None:
    one = rows(a_row())
    many = rows(*[a_row()] * 200)
    assert len(one.SerializeToString()) < INLINE_BYTES < len(many.SerializeToString())
    async with serving(trained) as client:
        alone, together = await client.predict(one), await client.predict(many)
    assert set(together.predictions.strings.values) == set(alone.predictions.strings.values)
    for single, each in zip(alone.probabilities, together.probabilities, strict=True):
        assert each.values == pytest.approx(list(single.values) * 200, abs=1e-6)


async def test_messages_that_are_too_large_are_refused_with_the_limit(trained: Path) -> None:
    async with serving(trained, limits=ServingLimits(max_message_bytes=5000)) as client:
        refused = await client.refused(rows(a_row(city="x" * 6000)))
    assert refused.code == code_pb2.INVALID_ARGUMENT
    assert refused.info.reason == "TOO_LARGE"
    assert dict(refused.info.metadata) == {"limit": "EASYML_MAX_MESSAGE_BYTES", "maximum": "5000"}


async def test_an_answer_that_is_too_large_is_refused_with_a_way_out() -> None:
    async with serving_models({VERSION: a_model(Constant(1))}, ServingLimits(max_message_bytes=1000)) as client:
        refused = await client.refused(numbers(115))
    assert refused.info.reason == "TOO_LARGE"
    assert "answer" in refused.message


async def test_a_defect_is_told_without_its_text() -> None:
    async with serving_models({VERSION: a_model(Broken())}) as client:
        refused = await client.refused(numbers())
        (streamed,) = await client.stream([stream_request(numbers())])
    assert refused.code == code_pb2.INTERNAL
    assert refused.info.reason == "INTERNAL"
    assert "secret" not in refused.message
    assert refused.call_id
    assert refused.call_id in refused.message
    assert streamed.error.reason == "INTERNAL"
    assert "secret" not in streamed.error.message


async def test_a_graph_that_does_not_end_is_stopped_at_the_deadline() -> None:
    """The server's thread ends too, else the test would not."""
    layout = Layout(NUMBER)
    model = a_model(GraphPredictor(endless_graph(), layout, probabilities=False))
    async with serving_models({VERSION: model}, ServingLimits(default_deadline_seconds=0.2)) as client:
        refused = await client.refused(numbers())
        (streamed,) = await client.stream([stream_request(numbers(), "7")])
    assert refused.code == code_pb2.DEADLINE_EXCEEDED
    assert refused.info.reason == "DEADLINE_EXCEEDED"
    assert streamed.id == "7"
    assert streamed.error.reason == "DEADLINE_EXCEEDED"


async def test_a_graph_is_stopped_when_its_caller_leaves() -> None:
    model = a_model(GraphPredictor(endless_graph(), Layout(NUMBER), probabilities=False))
    async with serving_models({VERSION: model}) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.predict(numbers(), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (counters tell nobody)
            await asyncio.sleep(0.01)


async def test_a_call_that_ran_out_of_time_is_counted_as_that_and_one_that_was_left_is_not() -> None:
    model = a_model(GraphPredictor(endless_graph(), Layout(NUMBER), probabilities=False))
    metrics = ServingMetrics()

    def counted(code: str) -> float | None:
        labels = {"grpc_service": SERVICE, "grpc_method": "Predict", "grpc_code": code}
        return metrics.registry.get_sample_value("grpc_server_handled_total", labels)

    def in_flight() -> float | None:
        labels = {"grpc_service": SERVICE, "grpc_method": "Predict"}
        return metrics.registry.get_sample_value("easyml_calls_in_flight", labels)

    async with serving_models({VERSION: model}, metrics=metrics) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await client.predict(numbers(), timeout=0.2)
        left = asyncio.create_task(client.predict(numbers(), timeout=60))
        await until(lambda: counted("DeadlineExceeded") is not None and in_flight() == 1)
        left.cancel()
        await until(lambda: counted("Cancelled") is not None)
    assert (counted("DeadlineExceeded"), counted("Cancelled")) == (1, 1)


async def test_work_of_callers_who_left_before_its_turn_is_not_done() -> None:
    waiting = Waiting()
    metrics = ServingMetrics()

    def counted(name: str, **labels: str) -> float:
        return (
            metrics.registry.get_sample_value(name, {"grpc_method": "Predict", "grpc_service": SERVICE} | labels) or 0
        )

    async with serving_models({VERSION: a_model(waiting)}, metrics=metrics) as client:
        # The only thread is busy with the first.
        first = asyncio.create_task(client.predict(numbers()))
        await asyncio.to_thread(waiting.asked.wait, 60)
        left = asyncio.create_task(client.predict(numbers(2)))
        await until(lambda: counted("easyml_calls_in_flight") == 2)
        with pytest.raises(grpc.aio.AioRpcError):
            await client.predict(numbers(3), timeout=0.1)
        left.cancel()
        await until(lambda: counted("easyml_calls_in_flight") == 1)
        stayed = asyncio.create_task(client.predict(numbers(4)))
        await until(lambda: counted("easyml_calls_in_flight") == 2)
        waiting.go.set()
        await asyncio.gather(first, stayed)
    assert waiting.rows == [1, 4]


async def test_one_that_is_wrong_is_told_so_and_those_it_came_with_are_answered(trained: Path) -> None:
    async with serving(trained) as client:
        wrong = pb.PredictRequest(model_version_id=OTHER, columns=columns().columns)
        sent = [columns(), columns(leave_out="age"), columns(), wrong, b"\xff", columns()] * 4
        raw = [each if isinstance(each, bytes) else each.SerializeToString() for each in sent]
        said = await asyncio.gather(*(client.predict(each) for each in raw), return_exceptions=True)
    codes = [told(each).code if isinstance(each, grpc.aio.AioRpcError) else code_pb2.OK for each in said]
    assert codes == [0, code_pb2.INVALID_ARGUMENT, 0, code_pb2.NOT_FOUND, code_pb2.INVALID_ARGUMENT, 0] * 4


async def test_what_is_too_much_at_once_is_refused_with_a_time_to_come_back() -> None:
    waiting = Waiting()
    async with serving_models({VERSION: a_model(waiting)}, ServingLimits(max_predictions=2)) as client:
        first = [asyncio.create_task(client.predict(numbers())) for _ in range(2)]
        await asyncio.to_thread(waiting.asked.wait, 60)
        refused = await client.refused(numbers())
        while refused.code != code_pb2.RESOURCE_EXHAUSTED:  # the second may still be on its way
            refused = await client.refused(numbers())
        waiting.go.set()
        answers = await asyncio.gather(*first)
    assert refused.info.reason == "OVERLOADED"
    assert refused.retry_seconds is not None
    assert len(answers) == 2


def stream_request(request: pb.PredictRequest, request_id: str = "", *, target: bool = True) -> bytes:
    message = pb.StreamPredictRequest(id=request_id)
    if target:
        message.model_version_id = request.model_version_id
    if request.WhichOneof("table") == "rows":
        message.rows.CopyFrom(request.rows)
    else:
        message.columns.CopyFrom(request.columns)
    return message.SerializeToString()


async def test_a_stream_keeps_its_order_and_an_error_takes_its_place(trained: Path) -> None:
    many = rows(*[a_row()] * 200)
    other = rows(a_row())
    other.model_version_id = OTHER
    async with serving(trained) as client:
        answers = await client.stream(
            [
                stream_request(rows(a_row()), "a"),
                stream_request(rows(a_row(beak=1)), "b", target=False),
                b"\xff\xff",
                stream_request(many, "d", target=False),
                stream_request(other, "e"),
                stream_request(columns(), "f"),
            ]
        )
    assert [answer.id for answer in answers] == ["a", "b", "", "d", "e", "f"]
    assert [answer.error.reason for answer in answers] == [
        "",
        "UNKNOWN_COLUMN",
        "MALFORMED_MESSAGE",
        "",
        "NOT_FOUND",
        "",
    ]
    assert answers[1].error.column == "beak"
    assert [len(answer.response.predictions.strings.values) for answer in answers] == [1, 0, 0, 200, 0, 2]
    assert answers[0].response.prediction_id


async def test_a_stream_asks_one_model_and_names_it_first() -> None:
    models = {VERSION: a_model(Constant(1)), OTHER: a_model(Constant(2), OTHER)}
    async with serving_models(models) as client:
        answers = await client.stream(
            [
                stream_request(numbers(), "0", target=False),
                stream_request(numbers(target=OTHER), "1"),
                stream_request(numbers(), "2"),
                stream_request(numbers(), "3", target=False),
            ]
        )
    assert [bool(answer.error.reason) for answer in answers] == [True, False, True, False]
    assert answers[3].response.model_version_id == OTHER
    assert answers[0].error.reason == answers[2].error.reason == "INVALID_FIELD"


async def test_who_asks_the_only_model_asks_the_new_one_after_an_exchange() -> None:
    models = {version: a_model(Constant(value), version) for version, value in ((VERSION, 1.0), (OTHER, 2.0))}
    asked = numbers()
    asked.deployment_id = "whichever"
    metrics = ServingMetrics()
    repository = in_memory(models, metrics, known(VERSION))
    async with serving_repository(repository, DEFAULTS, metrics) as client:
        before = [await client.predict(asked) for _ in range(3)]
        await repository.exchange(known(OTHER))
        after = [await client.predict(asked) for _ in range(3)]
    assert [list(each.predictions.doubles.values) for each in before + after] == [[1.0]] * 3 + [[2.0]] * 3
    assert {each.model_version_id for each in after} == {OTHER}


async def test_an_empty_stream_has_no_answers(trained: Path) -> None:
    async with serving(trained) as client:
        assert await client.stream([]) == []


async def test_only_tokens_for_this_server_are_let_in(trained: Path, tmp_path: Path) -> None:
    signer = Ed25519Signer(tmp_path / "keys")
    options = {"insecure": False, "jwks": signer.jwks_path, "audience": VERSION}
    now = datetime.now(UTC)
    user = UUID(OTHER)
    good = (("authorization", f"Bearer {signer.sign_identity(user, VERSION, now)}"),)
    bad = (("authorization", f"Bearer {signer.sign_identity(user, OTHER, now)}"),)
    async with serving(trained, **options) as client:
        refused = await client.refused(rows(a_row()))
        assert (refused.code, refused.info.reason) == (code_pb2.UNAUTHENTICATED, "NOT_SIGNED_IN")
        refused = await client.refused(rows(a_row()), metadata=bad)
        assert (refused.code, refused.info.reason) == (code_pb2.UNAUTHENTICATED, "INVALID_TOKEN")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            # Without a message: gRPC's asyncio client tells INTERNAL of one that it could not send any more.
            await client.stream([], metadata=bad)
        assert told(caught.value).code == code_pb2.UNAUTHENTICATED
        assert (await client.predict(rows(a_row()), metadata=good)).prediction_id
        (answer,) = await client.stream([stream_request(rows(a_row()))], metadata=good)
        assert answer.response.prediction_id


async def test_health_and_reflection_are_there_for_everybody(trained: Path, tmp_path: Path) -> None:
    signer = Ed25519Signer(tmp_path / "keys")
    async with serving(trained, insecure=False, jwks=signer.jwks_path, audience="x") as client:
        health = health_pb2_grpc.HealthStub(client.channel)
        for name in ("", "liveness", "easyml.v1.PredictionService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = [each async for each in stub.ServerReflectionInfo(iter([request]))]
    names = {service.name for service in listed.list_services_response.service}
    assert {"easyml.v1.PredictionService", "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "--insecure"),
        ({"insecure": True, "host": "0.0.0.0"}, "loopback"),
        ({"jwks": Path("keys.json")}, "--audience"),
        ({"jwks": Path("keys.json"), "audience": "x"}, "no public keys"),
    ],
)
async def test_a_server_that_anyone_could_ask_does_not_start(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CannotStart, match=sentence):
        async with run_model_server(Options(models={}, **options)):
            pass


async def test_a_port_that_is_taken_is_refused(trained: Path) -> None:
    first = Options(models={VERSION: Source(trained)}, insecure=True, grace_seconds=0)
    async with run_model_server(first) as listening:
        port = int(listening.address.rpartition(":")[2])
        with pytest.raises(CannotStart, match="taken"):
            async with run_model_server(Options(models={VERSION: Source(trained)}, insecure=True, port=port)):
                pass


@pytest.mark.parametrize("argument", ["", "folder", "x=folder", "=folder"])
def test_models_are_named_by_their_version(argument: str) -> None:
    with pytest.raises(CannotStart, match="VERSION_ID=FOLDER"):
        parse_models([argument])


def test_a_folder_may_hold_any_character() -> None:
    assert parse_models([f"{VERSION.upper()}=/a=b/c d@"]) == {VERSION: Source("/a=b/c d@")}


async def answered(client: Client, raw: bytes) -> None:
    """Only two things may come of bytes: an answer, or that they are wrong."""
    try:
        await client.predict(raw)
    except grpc.aio.AioRpcError as error:
        refused = told(error)
        assert refused.code in (code_pb2.INVALID_ARGUMENT, code_pb2.NOT_FOUND), (raw, refused)


FUZZED = [rows(a_row(), without("age")), columns()]


@pytest.mark.parametrize("request_", FUZZED, ids=["rows", "columns"])
async def test_a_request_cut_at_each_byte_is_wrong_and_nothing_worse(trained: Path, request_: Any) -> None:
    raw = request_.SerializeToString()
    async with serving(trained) as client:
        for length in range(len(raw)):
            await answered(client, raw[:length])


@pytest.mark.parametrize("request_", FUZZED, ids=["rows", "columns"])
async def test_a_mutated_request_is_answered_or_wrong(trained: Path, request_: Any) -> None:
    rng = random.Random(7)
    raw = request_.SerializeToString()
    async with serving(trained) as client:
        for _ in range(400):
            changed = bytearray(raw)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            await answered(client, bytes(changed))
