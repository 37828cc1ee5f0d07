"""What a model server counts, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from easyml_server.serving.known import CannotStart
from easyml_server.serving.metrics import InFlight
from easyml_server.serving.process import Options, run_model_server
from easyml_server.serving.sources import Source
from inference import open_inference_grpc_pb2_grpc as oip_grpc
from tests.servers import free_port
from tests.unit.serving.requests import VERSION, a_row, rows
from tests.unit.serving.tensors import FITTING, raw, typed

PREDICT = {"grpc_service": "easyml.v1.PredictionService", "grpc_method": "Predict"}
INFER = {"grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelInfer"}
STREAM = {"grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelStreamInfer"}
MODEL = {"model_version_id": VERSION}


class Counted:
    """A channel to a server, and what it has counted so far."""

    def __init__(self, channel: grpc.aio.Channel, port: int) -> None:
        self.channel = channel
        self.inference = oip_grpc.GRPCInferenceServiceStub(channel)
        self._url = f"http://127.0.0.1:{port}/metrics"

    def value(self, name: str, **labels: str) -> float | None:
        with urlopen(self._url, timeout=60) as answer:
            text = answer.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return next((each.value for each in samples if each.name == name and each.labels == labels), None)


@pytest.fixture
async def counted(trained: Path) -> AsyncIterator[Counted]:
    port = free_port()
    options = Options({VERSION: Source(trained)}, insecure=True, metrics_port=port, grace_seconds=0)
    async with run_model_server(options) as listening, grpc.aio.insecure_channel(listening.address) as channel:
        yield Counted(channel, port)


async def ask(counted: Counted, request: bytes) -> None:
    await counted.channel.unary_unary("/easyml.v1.PredictionService/Predict")(request)


async def test_calls_are_counted_by_how_they_ended(counted: Counted) -> None:
    await ask(counted, rows(a_row()).SerializeToString())
    await ask(counted, rows(a_row(), a_row()).SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError):
        await ask(counted, b"\xff")
    with pytest.raises(grpc.aio.AioRpcError):
        await counted.inference.ModelInfer(typed(FITTING, "another"))
    assert counted.value("grpc_server_handled_total", **PREDICT, grpc_code="OK") == 2
    assert counted.value("grpc_server_handled_total", **PREDICT, grpc_code="InvalidArgument") == 1
    assert counted.value("grpc_server_handled_total", **INFER, grpc_code="NotFound") == 1
    assert counted.value("grpc_server_handling_seconds_count", **PREDICT) == 3
    assert counted.value("easyml_calls_in_flight", **PREDICT) == 0


async def test_a_call_counts_by_its_seconds_before_it_ends(counted: Counted) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield typed(FITTING)
        await ended.wait()

    ended = asyncio.Event()
    assert counted.value("easyml_call_seconds_total", **STREAM) == 0
    stream = counted.inference.ModelStreamInfer(requests())
    await stream.read()
    assert counted.value("easyml_calls_in_flight", **STREAM) == 1
    first = counted.value("easyml_call_seconds_total", **STREAM) or 0
    assert 0 < first < (counted.value("easyml_call_seconds_total", **STREAM) or 0)
    ended.set()
    await stream.read()
    last = counted.value("easyml_call_seconds_total", **STREAM)
    assert counted.value("easyml_calls_in_flight", **STREAM) == 0
    assert counted.value("easyml_call_seconds_total", **STREAM) == last


def test_two_calls_at_once_count_twice() -> None:
    calls = InFlight()
    began = time.perf_counter()
    calls.change(2, began)
    calls.change(-1, began + 1)
    calls.change(-1, began + 3)
    assert calls.read() == (0, pytest.approx(4))


async def test_runs_and_rows_are_counted_by_model(counted: Counted) -> None:
    await ask(counted, rows(a_row(), a_row(), a_row()).SerializeToString())
    many = [type(each)(each.name, each.datatype, list(each.values) * 500) for each in FITTING]
    await counted.inference.ModelInfer(raw(many))
    assert counted.value("easyml_model_rows_total", **MODEL) == 1003
    assert counted.value("easyml_model_run_seconds_count", **MODEL) == 2
    assert counted.value("easyml_model_run_requests_sum", **MODEL) == 2


async def test_a_stream_is_one_call_however_many_requests_it_has(counted: Counted) -> None:
    requests = [typed(FITTING), typed(FITTING[1:]), typed(FITTING)]
    assert len([answer async for answer in counted.inference.ModelStreamInfer(iter(requests))]) == 3
    assert counted.value("grpc_server_handled_total", **STREAM, grpc_code="OK") == 1
    assert counted.value("easyml_model_rows_total", **MODEL) == 4


async def test_memory_and_processor_time_are_there(counted: Counted) -> None:
    assert (counted.value("process_resident_memory_bytes") or 0) > 1 << 20
    assert counted.value("process_cpu_seconds_total")


async def test_a_port_that_is_taken_is_said(trained: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port: Any = busy.getsockname()[1]
        with pytest.raises(CannotStart, match=str(port)):
            async with run_model_server(Options({VERSION: Source(trained)}, insecure=True, metrics_port=port)):
                raise AssertionError("it started")
