"""The servers that are asked: each a process of its own that serves one stored model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pandas as pd

from benchmarks.serving.asking import Address, GrpcAddress, HttpAddress
from benchmarks.serving.environments import PEERS
from benchmarks.serving.questions import Question, json_rows, split_frame, tensors

INFER = "/inference.GRPCInferenceService/ModelInfer"
START_SECONDS = 180.0
NAME = "pipeline"


class DidNotStart(Exception):
    """A server that does not answer; the sentence says what it wrote last."""


@dataclass(frozen=True)
class Serving:
    """A server that answers, and how it is asked."""

    name: str
    address: Address
    question: Callable[[pd.DataFrame], Question]


async def first_answer(address: Address, body: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for it. Raises DidNotStart."""
    end = time.monotonic() + START_SECONDS
    last: Exception | None = None
    while process.poll() is None and time.monotonic() < end:
        try:
            async with address.connect() as ask:
                await ask(body)
        except (OSError, EOFError, grpc.aio.AioRpcError) as error:
            last = error
            await asyncio.sleep(0.2)
        else:
            return
    raise DidNotStart(f"{_last_words(log)} ({last!r})")


@asynccontextmanager
async def peer(name: str, binaries: Path, model: Path, scratch: Path, row: pd.DataFrame) -> AsyncIterator[Serving]:
    """A peer with a model, from before its first answer to after its end. Raises DidNotStart."""
    folder = scratch / f"{name}-{model.name}"
    folder.mkdir()
    environment = {
        **os.environ,
        "EASYML_BENCH_MODEL": str(model),
        "PYTHONPATH": str(PEERS),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    http, grpc_port, metrics = _free_ports(3)
    command, serving = PEER_KINDS[name](binaries, folder, http, grpc_port, metrics, environment)
    log = folder / "log.txt"
    process = _begin(command, folder, environment, log)
    try:
        await first_answer(serving.address, serving.question(row).body, process, log)
        yield serving
    finally:
        _end(process)


def _begin(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def _last_words(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split())[-300:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """The peer and its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


Environment = Mapping[str, str]
Started = tuple[Sequence[str | Path], Serving]


def _mlserver(binaries: Path, folder: Path, http: int, grpc_port: int, metrics: int, _env: Environment) -> Started:
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc_port,
        "metrics_port": metrics,
        # In the server's own process: handing a row to a worker costs more than to predict for it.
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": NAME, "implementation": "mlserver_model.Pipeline"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    serving = Serving("mlserver", GrpcAddress(f"127.0.0.1:{grpc_port}", INFER), lambda frame: tensors(frame, NAME))
    return [binaries / "mlserver", "start", folder], serving


def _mlflow(binaries: Path, folder: Path, http: int, _grpc: int, _metrics: int, environment: Environment) -> Started:
    saved = folder / "model"
    subprocess.run([binaries / "python", PEERS / "mlflow_model.py", saved], env=environment, check=True)
    command = [binaries / "mlflow", "models", "serve", "--model-uri", saved, "--port", str(http)]
    serving = Serving("mlflow", HttpAddress(http, "/invocations"), split_frame)
    return [*command, "--env-manager", "local"], serving


def _bentoml(binaries: Path, _folder: Path, http: int, _grpc: int, _metrics: int, _env: Environment) -> Started:
    command = [binaries / "bentoml", "serve", "bentoml_service:Pipeline", "--working-dir", PEERS]
    serving = Serving("bentoml", HttpAddress(http, "/predict"), lambda frame: json_rows(frame, lambda said: said))
    return [*command, "--host", "127.0.0.1", "--port", str(http), "--quiet"], serving


def _kserve(binaries: Path, _folder: Path, http: int, grpc_port: int, _metrics: int, _env: Environment) -> Started:
    serving = Serving("kserve", GrpcAddress(f"127.0.0.1:{grpc_port}", INFER), lambda frame: tensors(frame, NAME))
    return [binaries / "python", PEERS / "kserve_server.py", str(http), str(grpc_port)], serving


def _litserve(binaries: Path, _folder: Path, http: int, _grpc: int, _metrics: int, _env: Environment) -> Started:
    address = HttpAddress(http, "/predict")
    serving = Serving("litserve", address, lambda frame: json_rows(frame, lambda said: said["predictions"]))
    return [binaries / "python", PEERS / "litserve_server.py", str(http)], serving


PEER_KINDS = {
    "mlserver": _mlserver,
    "mlflow": _mlflow,
    "bentoml": _bentoml,
    "kserve": _kserve,
    "litserve": _litserve,
}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
