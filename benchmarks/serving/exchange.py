"""A model exchanged for another version while 16 callers ask it by name: failed calls, and latencies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import grpc

from benchmarks.predict import running, table
from benchmarks.serving.models import Stored
from benchmarks.serving.questions import tensors
from inference import open_inference_grpc_pb2 as oip

METHOD = "/inference.GRPCInferenceService/ModelInfer"
NAME = "model"
CONNECTIONS = 16
EXCHANGES = 10
CALM_SECONDS = 1.0
"""Before the first exchange, and between two."""


@dataclass
class _Asked:
    """What 16 callers saw: when each call began and how long it took, when each version was first seen, and errors."""

    calls: list[tuple[float, float]] = field(default_factory=list)
    seen: dict[str, asyncio.Future[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    stopped: bool = False

    def first(self, version: str) -> asyncio.Future[float]:
        """When an answer of this version came first."""
        if version not in self.seen:
            self.seen[version] = asyncio.get_running_loop().create_future()
        return self.seen[version]

    async def caller(self, address: str, body: bytes) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = channel.unary_unary(METHOD, response_deserializer=oip.ModelInferResponse.FromString)
            while not self.stopped:
                began = time.perf_counter()
                try:
                    answer = await call(body, timeout=60)
                except grpc.aio.AioRpcError as error:
                    self.errors.append(f"{error.code().name}: {error.details()}")
                    continue
                now = time.perf_counter()
                self.calls.append((began, now - began))
                first = self.first(answer.model_version)
                if not first.done():
                    first.set_result(now)


def exchange(stored: Sequence[Stored]) -> Mapping[str, Mapping[str, float]]:
    """By model: exchanges, calls and errors, and latencies in ms with and without an exchange under way."""
    return {model.name: asyncio.run(_of(model)) for model in stored}


async def _of(model: Stored) -> Mapping[str, float]:
    body = tensors(table().drop(columns="target")[:1], NAME).body
    versions = [str(uuid4()) for _ in range(EXCHANGES + 1)]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "models.json")
        _write(file, versions[0], model)
        arguments = (f"--models={file}", "--insecure", "--log-level=warning")
        with running("easyml_server.serving", *arguments) as (address, pid):
            asked = _Asked()
            windows = []
            async with _asking(asked, address, body):
                await asked.first(versions[0])
                for version in versions[1:]:
                    await asyncio.sleep(CALM_SECONDS)
                    began = time.perf_counter()
                    _write(file, version, model)
                    os.kill(pid, signal.SIGHUP)
                    windows.append((began, await asked.first(version)))
                await asyncio.sleep(CALM_SECONDS)
    return _figures(asked, windows)


@asynccontextmanager
async def _asking(asked: _Asked, address: str, body: bytes) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(asked.caller(address, body))
        try:
            yield
        finally:
            asked.stopped = True


def _write(file: Path, version: str, model: Stored) -> None:
    file.write_text(json.dumps({"models": {version: str(model.folder)}, "names": {NAME: version}}))


def _figures(asked: _Asked, windows: Sequence[tuple[float, float]]) -> Mapping[str, float]:
    during, calm = [], []
    for began, took in asked.calls:
        meets = any(began < end and began + took > start for start, end in windows)
        (during if meets else calm).append(took)
    took = [end - start for start, end in windows]
    return {
        "exchanges": len(windows),
        "calls": len(asked.calls),
        "calls_during": len(during),
        "errors": len(asked.errors),
        "exchange_seconds": statistics.median(took),
        **_quantiles("calm", calm),
        **_quantiles("during", during),
    }


def _quantiles(name: str, took: Sequence[float]) -> Mapping[str, float]:
    percentiles = statistics.quantiles(took, n=100)
    return {
        f"{name}_p50_ms": percentiles[49] * 1000,
        f"{name}_p99_ms": percentiles[98] * 1000,
        f"{name}_longest_ms": max(took) * 1000,
    }
