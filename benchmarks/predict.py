"""Predictions of one row against a bare grpc.aio echo of the same bytes. Budget: at least half of its throughput.

Asked are the model server directly, as services do it, and the main port, which forwards. The three take turns for a
few rounds, so that a busy moment of the machine falls on all; figures are medians over the rounds. The row has ten
typed columns, the model is a random forest of a hundred trees.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import grpc
import numpy as np
import pandas as pd

from benchmarks.report import Figure, Measured, Say
from benchmarks.servers import MeasuredServer, serving
from easyml.v1 import prediction_service_pb2 as pb
from easyml_client import EasyML
from easyml_server.security.tokens import Ed25519Signer

ROWS, NUMBERS, TREES = 2_000, 7, 100
ROUNDS, ROUND_SECONDS = 15, 1.0
CALLERS = 16
"""Calls in flight: where the echo peaks."""
CITIES = ("Rome", "Oslo", "Bern", "Lima")
METHOD = "/easyml.v1.PredictionService/Predict"
USER = UUID("00000000-0000-4000-8000-000000000001")


@dataclass
class Asked:
    """A server, how it is asked, and what was measured."""

    address: str
    request: bytes
    metadata: Sequence[tuple[str, str]] = ()
    per_second: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def measure(say: Say) -> Measured:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(serving(scratch / "data", workers="1"))
        version_id, folder = trained(server)
        request = one_row(version_id)
        echo = Asked(stack.enter_context(process("benchmarks.echo")), request)
        signer = Ed25519Signer(server.folder / "keys")
        own = stack.enter_context(
            process(
                "easyml_server.serving",
                f"--model={version_id}={folder}",
                f"--jwks={signer.jwks_path}",
                f"--audience={version_id}",
            )
        )
        token = signer.sign_identity(USER, version_id, datetime.now(UTC))
        direct = Asked(own, request, (("authorization", f"Bearer {token}"),))
        main_port = Asked(server.target, request, (("authorization", f"Bearer {server.token}"),))
        say("asking")
        asyncio.run(take_turns([echo, direct, main_port], say))
    return Measured(
        [
            Figure("prediction of one row, throughput to a bare echo", ratio(direct, echo), "x", at_least=0.5),
        ],
        {
            "main_port_to_echo_throughput": ratio(main_port, echo),
            **figures("echo", echo),
            **figures("direct", direct),
            **figures("main_port", main_port),
            "callers": CALLERS,
            "request_bytes": len(request),
        },
    )


def trained(server: MeasuredServer) -> tuple[str, Path]:
    """A model version, and the folder it lies in."""
    with EasyML(server.target, token=server.token) as client:
        project = client.projects.create("bench")
        dataset = client.datasets.upload(project, table(), name="bench")
        training = client.trainings.start(
            project,
            dataset=dataset,
            target="target",
            algorithm="random_forest",
            seed=1,
            hyperparameters={"n_estimators": TREES, "max_depth": 10},
        )
        for _event in training.watch():
            pass
        version_id = training.result().model_version_id
    return version_id, server.folder / "files" / project.id / "models" / version_id


def table() -> pd.DataFrame:
    """Seven numbers, a whole number, two categories, and three classes."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(ROWS, NUMBERS)), columns=[f"x{index}" for index in range(NUMBERS)])
    frame["age"] = random.integers(18, 80, ROWS)
    frame["city"] = random.choice(CITIES, ROWS)
    frame["plan"] = random.choice(["basic", "pro"], ROWS)
    score = frame["x0"] * frame["x1"] + frame["age"] / 30 + (frame["city"] == "Rome") + random.normal(size=ROWS) / 2
    frame["target"] = np.where(score > 2.5, "high", np.where(score < 1, "low", "middle"))
    return frame


def one_row(version_id: str) -> bytes:
    """The bytes of a request in typed columns."""
    request = pb.PredictRequest(model_version_id=version_id)
    columns = request.columns.columns
    for index in range(NUMBERS):
        columns.add(name=f"x{index}").doubles.values.append(0.1 * index)
    columns.add(name="age").int64s.values.append(42)
    columns.add(name="city").strings.values.append("Oslo")
    columns.add(name="plan").strings.values.append("pro")
    return request.SerializeToString()


@contextmanager
def process(module: str, *arguments: str) -> Iterator[str]:
    """A server in a process of its own; its address."""
    with running(module, *arguments) as (address, _pid):
        yield address


@contextmanager
def running(module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """The same, with the id of the process."""
    started = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    line = started.stdout.readline()
    try:
        if not line.startswith("READY "):
            raise SystemExit(f"{module} did not start: {line}")
        yield line.split()[1], started.pid
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(60)


async def take_turns(servers: Sequence[Asked], say: Say) -> None:
    for asked in servers:
        await ask(asked, CALLERS, 1.0)
    for number in range(ROUNDS):
        for asked in servers:
            asked.per_second.append(len(await ask(asked, CALLERS, ROUND_SECONDS)) / ROUND_SECONDS)
        for asked in servers:
            asked.seconds += await ask(asked, 1, ROUND_SECONDS / 2)
        rates = ", ".join(f"{asked.per_second[-1]:,.0f}" for asked in servers)
        say(f"round {number + 1} of {ROUNDS}: {rates} a second (echo, direct, main port)")


async def ask(asked: Asked, callers: int, seconds: float) -> list[float]:
    """How long each call took, of callers who ask again as soon as they are answered."""
    async with grpc.aio.insecure_channel(asked.address) as channel:
        call = channel.unary_unary(METHOD)
        await call(asked.request, metadata=asked.metadata)
        end = time.perf_counter() + seconds
        took: list[float] = []

        async def caller() -> None:
            while (started := time.perf_counter()) < end:
                await call(asked.request, metadata=asked.metadata)
                took.append(time.perf_counter() - started)

        await asyncio.gather(*(caller() for _ in range(callers)))
    return took


def ratio(asked: Asked, echo: Asked) -> float:
    """Of the two, round by round: the machine is not the same from second to second."""
    return statistics.median(ours / bare for ours, bare in zip(asked.per_second, echo.per_second, strict=True))


def throughput(asked: Asked) -> float:
    return statistics.median(asked.per_second)


def figures(name: str, asked: Asked) -> dict[str, float]:
    percentiles = statistics.quantiles(asked.seconds, n=100)
    return {
        f"{name}_per_second": throughput(asked),
        f"{name}_p50_ms": percentiles[49] * 1000,
        f"{name}_p99_ms": percentiles[98] * 1000,
    }
