"""From CreateDeployment to the first answer through the main port, on this machine. Budget: 2 s."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence

import grpc

from benchmarks.predict import METHOD, table
from benchmarks.servers import MeasuredServer
from benchmarks.serving.models import PROJECT, Stored
from benchmarks.serving.questions import typed_columns
from easyml.v1 import prediction_service_pb2 as pb
from easyml_client import EasyML

RUNS = 9
PAUSE_SECONDS = 0.005
PATIENCE_SECONDS = 60.0


def first_answer(stored: Sequence[Stored], server: MeasuredServer) -> Mapping[str, Mapping[str, float]]:
    """By model, in seconds: median and longest of some runs, each with a deployment of its own."""
    return {model.name: _figures([_seconds(model, server, run) for run in range(RUNS)]) for model in stored}


def _figures(seconds: Sequence[float]) -> Mapping[str, float]:
    return {"median_seconds": statistics.median(seconds), "longest_seconds": max(seconds), "runs": len(seconds)}


def _seconds(model: Stored, server: MeasuredServer, run: int) -> float:
    question = typed_columns(table().drop(columns="target")[:1], model.version_id).body
    with EasyML(server.target, token=server.token) as client:
        began = time.perf_counter()
        rollout = client.deployments.create(PROJECT, f"first-{model.name.replace('_', '-')}-{run}", model.version_id)
        request = pb.PredictRequest.FromString(question)
        request.deployment_id = rollout.id
        asyncio.run(_answered(server, request.SerializeToString()))
        took = time.perf_counter() - began
        client.deployments.delete(rollout.deployment, project=PROJECT)
    return took


async def _answered(server: MeasuredServer, request: bytes) -> None:
    """Ask until there is an answer: a deployment without a ready replica is UNAVAILABLE."""
    metadata = (("authorization", f"Bearer {server.token}"),)
    # Clients would wait between two tries for as long as they are told.
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        grpc.aio.insecure_channel(server.target, options=[("grpc.enable_retries", 0)]) as channel,
    ):
        call = channel.unary_unary(METHOD)
        while True:
            try:
                await call(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return
