"""What a model server counted, as a deployer reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import grpc
import pytest
from prometheus_client import generate_latest, start_http_server

from easyml_server.deployers.replica_counters import (
    Unreadable,
    parse_counters,
    read_call_seconds,
    read_counters,
)
from easyml_server.serving.metrics import ServingMetrics

PREDICTIONS, INFERENCE = "easyml.v1.PredictionService", "inference.GRPCInferenceService"
REPLICA = uuid4()


@pytest.fixture
def counted() -> ServingMetrics:
    """Of two models: some calls, one of which failed, one of a stream, and one that asked no model."""
    metrics = ServingMetrics()
    for service, method, code in (
        (PREDICTIONS, "Predict", grpc.StatusCode.OK),
        (PREDICTIONS, "Predict", grpc.StatusCode.INTERNAL),
        (INFERENCE, "ModelInfer", grpc.StatusCode.OK),
        (INFERENCE, "ModelStreamInfer", grpc.StatusCode.OK),
        (INFERENCE, "ServerReady", grpc.StatusCode.OK),
    ):
        calls = metrics.method(service, method)
        calls.ended(calls.began(), code)
    # It goes on, and keeps no model busy.
    metrics.method(INFERENCE, "ModelMetadata").began()
    for requests, rows in ((3, 30), (2, 12)):
        with metrics.model(str(uuid4())).run(requests, rows):
            pass
    return metrics


def test_calls_that_ask_a_model_are_read(counted: ServingMetrics) -> None:
    read = parse_counters(REPLICA, generate_latest(counted.registry).decode())
    counters = read.counters
    assert read.replica_id == REPLICA
    assert counters.calls == {"OK": 3, "Internal": 1}
    assert (counters.requests, counters.errors) == (4, 1)
    assert (counters.answered, counters.runs, counters.rows) == (5, 2, 42)
    assert counters.cpu_seconds > 0
    assert read.resident_bytes > 1 << 20


def test_the_time_of_a_stream_is_no_latency(counted: ServingMetrics) -> None:
    latency = parse_counters(REPLICA, generate_latest(counted.registry).decode()).counters.latency
    assert latency.bounds[-1] == float("inf")
    assert latency.counts[-1] == 3


async def test_they_are_read_from_an_address(counted: ServingMetrics) -> None:
    server, thread = start_http_server(0, "127.0.0.1", counted.registry)
    try:
        read = await read_counters(REPLICA, f"127.0.0.1:{server.server_port}")
        seconds, again = [await read_call_seconds(f"127.0.0.1:{server.server_port}") for _ in range(2)]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (read.counters.requests, read.counters.rows) == (4, 42)
    assert 0 < seconds == again
    with pytest.raises(Unreadable):
        await read_counters(REPLICA, f"127.0.0.1:{server.server_port}")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.0 500 Internal Server Error\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n\xff",
        b"HTTP/1.0 200 OK\r\n\r\ngrpc_server_handled_total{ 1",
        b"HTTP/1.0 200 OK\r\n\r\n" + b"# much\n" * (1 << 18),
    ],
    ids=["nothing", "an error", "no counters", "no text", "damaged", "too much"],
)
async def test_whatever_else_answers_there_is_not_believed(answer: bytes) -> None:
    async with answering(answer) as address:
        with pytest.raises(Unreadable):
            await read_counters(REPLICA, address)
        with pytest.raises(Unreadable):
            await read_call_seconds(address)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """An address that gives this answer to every request."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
