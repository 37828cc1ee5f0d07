"""Real servers in processes of their own, and callers that speak the contract to them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil  # type: ignore[import-untyped]  # it ships no types
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from easyml.v1 import (
    auth_service_pb2_grpc,
    dataset_service_pb2_grpc,
    deployment_service_pb2_grpc,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    project_service_pb2_grpc,
    training_service_pb2_grpc,
)

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "easyml"
# Runs before the server in the same process, so that it never outlives the tests.
SHIM = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
CALL_SECONDS = 150.0
END_SECONDS = 90.0
POLL_SECONDS = 0.05
T = TypeVar("T")
DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RequestInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.RetryInfo,
    error_details_pb2.ResourceInfo,
)


@dataclass
class ServerProcess:
    """`easyml-server serve` on a data folder; it can be killed, and started again at the same address."""

    data: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1:0"
    process: subprocess.Popen[str] | None = None
    program: str = "easyml_server"

    @property
    def key(self) -> str:
        """The local owner's key."""
        return (self.data / "owner.key").read_text().strip()

    @property
    def running(self) -> subprocess.Popen[str]:
        """The process, which must be there."""
        assert self.process is not None
        return self.process

    def start(self) -> ServerProcess:
        """Returns when it says READY."""
        port = self.address.rsplit(":", 1)[1]
        self.process = launch(self.data, self.settings, port, self.program)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("READY "):
            self._end(signal.SIGKILL)
            raise AssertionError(f"{line!r}: {log_of(self.data).read_text()}")
        self.address = line.split()[1]
        return self

    def kill(self) -> None:
        """SIGKILL; returns when it and all its children are gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code when it and all its children are gone."""
        return self._end(signal.SIGTERM)

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code when it, all its children and its deployments are gone."""
        return self._end(signal.SIGINT)

    def leave(self, number: int = signal.SIGKILL) -> None:
        """End the server alone; what outlives it goes on."""
        process, self.process = self.running, None
        process.send_signal(number)
        process.wait(END_SECONDS)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def ended(self) -> int:
        """The exit code of a server that was told to stop already, when it and all its children are gone."""
        return self._end(None)

    def family(self) -> list[psutil.Process]:
        """The server and everything it started."""
        server = psutil.Process(self.running.pid)
        return [server, *server.children(recursive=True)]

    def _end(self, number: int | None) -> int:
        process, self.process = self.running, None
        family = psutil.Process(process.pid).children(recursive=True)
        if number is not None:
            process.send_signal(number)
        code = process.wait(END_SECONDS)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        _, left = psutil.wait_procs(family, timeout=END_SECONDS)
        assert not left, f"processes stayed behind: {left}"
        return code


def launch(
    data: Path, settings: Mapping[str, str], port: str = "0", program: str = "easyml_server"
) -> subprocess.Popen[str]:
    """The command as people start it, with nothing of the environment's own settings."""
    command = [sys.executable, "-m", program, "serve", "--port", port, "--data-dir", str(data)]
    with log_of(data).open("a") as errors:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(settings), cwd=data.parent
        )


def log_of(data: Path) -> Path:
    """What servers on a data folder wrote to standard error."""
    return data.with_name(f"{data.name}.log")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server, with settings by their names without EASYML_."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EASYML_")}
    # Most servers of the tests end before they have trained, and all share two processors.
    given = {"LOG_LEVEL": "warning", "PRELOAD": "false", **settings}
    return {
        **own,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        **{f"EASYML_{name}": value for name, value in given.items()},
    }


@contextmanager
def serving(data: Path, **settings: str) -> Iterator[ServerProcess]:
    """A server for a while, whatever happens to it."""
    server = ServerProcess(data, settings).start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop()


@contextmanager
def deploying(data: Path, **settings: str) -> Iterator[ServerProcess]:
    """A server for a while, whose deployments end with it."""
    server = ServerProcess(data, settings).start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.interrupt()


def eventually(look: Callable[[], T | None], seconds: float = END_SECONDS) -> T:
    """What `look` finds once it finds something; for what nobody tells of when it happens."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(POLL_SECONDS)
    return found


def free_port() -> int:
    """A port that nobody has, for programs that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class _Call:
    """A method with the caller's credentials and a deadline."""

    def __init__(self, method: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._method = method
        self._metadata = metadata

    def __call__(self, request: Any, *, timeout: float = CALL_SECONDS, metadata: Any = ()) -> Any:
        return self._method(request, timeout=timeout, metadata=(*self._metadata, *metadata))

    def with_call(self, request: Any, *, timeout: float = CALL_SECONDS, metadata: Any = ()) -> Any:
        return self._method.with_call(request, timeout=timeout, metadata=(*self._metadata, *metadata))

    def future(self, request: Any, *, timeout: float = CALL_SECONDS, metadata: Any = ()) -> Any:
        return self._method.future(request, timeout=timeout, metadata=(*self._metadata, *metadata))


class _SignedChannel:
    """A channel whose methods send the caller's credentials."""

    def __init__(self, channel: grpc.Channel, token: str | None) -> None:
        self._channel = channel
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)

    def __getattr__(self, kind: str) -> Callable[..., _Call]:
        make = getattr(self._channel, kind)
        return lambda *args, **options: _Call(make(*args, **options), self._metadata)


class Client:
    """A caller: the stubs of all services, with its credentials."""

    def __init__(self, address: str, token: str | None = None, *options: tuple[str, int]) -> None:
        self.address = address
        self.token = token
        # Service configurations are off: tests see each answer, not what a retry makes of it.
        plain = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(address, options=[*plain, *options])
        signed: Any = _SignedChannel(self.channel, token)
        self.auth: Any = auth_service_pb2_grpc.AuthServiceStub(signed)
        self.projects: Any = project_service_pb2_grpc.ProjectServiceStub(signed)
        self.datasets: Any = dataset_service_pb2_grpc.DatasetServiceStub(signed)
        self.trainings: Any = training_service_pb2_grpc.TrainingServiceStub(signed)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(signed)
        self.deployments: Any = deployment_service_pb2_grpc.DeploymentServiceStub(signed)
        self.predictions: Any = prediction_service_pb2_grpc.PredictionServiceStub(signed)

    def raw(self, path: str, *, kind: str = "unary_unary") -> Any:
        """A method by its path that takes and gives bytes."""
        signed: Any = _SignedChannel(self.channel, self.token)
        return getattr(signed, kind)(path)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Refusal:
    """How the server said no."""

    code: grpc.StatusCode
    message: str
    details: Mapping[str, Any]
    trailers: Mapping[str, Any]

    @property
    def reason(self) -> str:
        """Of google.rpc.ErrorInfo; empty where it did not come."""
        return self.details["ErrorInfo"].reason if "ErrorInfo" in self.details else ""

    @property
    def metadata(self) -> dict[str, str]:
        """Of google.rpc.ErrorInfo."""
        return dict(self.details["ErrorInfo"].metadata)

    @property
    def fields(self) -> list[str]:
        """Of google.rpc.BadRequest."""
        if "BadRequest" not in self.details:
            return []
        return [violation.field for violation in self.details["BadRequest"].field_violations]

    @property
    def retry_seconds(self) -> float | None:
        """Of google.rpc.RetryInfo."""
        if "RetryInfo" not in self.details:
            return None
        return float(self.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds())

    @property
    def call_id(self) -> str:
        """Of google.rpc.RequestInfo."""
        return str(self.details["RequestInfo"].request_id)

    @property
    def short(self) -> tuple[str, str]:
        """Code and reason."""
        return self.code.name, self.reason

    def without_call_id(self) -> tuple[Any, ...]:
        """Everything a caller can tell two refusals apart by, but the id of the call."""
        details = {
            name: detail.SerializeToString(deterministic=True)
            for name, detail in self.details.items()
            if name != "RequestInfo"
        }
        trailers = {name: value for name, value in self.trailers.items() if name != "grpc-status-details-bin"}
        return self.code, self.message, details, trailers


def refusal_of(error: Any) -> Refusal:
    """The refusal in an error of gRPC."""
    found: dict[str, Message] = {}
    rich = rpc_status.from_call(error)
    for packed in rich.details if rich is not None else ():
        for kind in DETAILS:
            if packed.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind.FromString(packed.value)
    trailers = {each.key: each.value for each in error.trailing_metadata() or ()}
    return Refusal(error.code(), error.details() or "", found, trailers)


def refusal(call: Callable[..., Any], request: Any, **options: Any) -> Refusal:
    """Make a call that must be refused, as the contract says of the reason; a stream is read to its end."""
    try:
        answer = call(request, **options)
        if not isinstance(answer, (Message, bytes)):
            answer = list(answer)
    except grpc.RpcError as error:
        refused = refusal_of(error)
        assert refused.code.name == documented_codes().get(refused.reason), refused
        return refused
    raise AssertionError(f"it was answered: {answer}")


@cache
def documented_codes() -> Mapping[str, str]:
    """The status code of each reason, as the contract's comments have it."""
    text = (ROOT / "protos/easyml/v1/error_reason.proto").read_text()
    return {
        reason: code
        for code, reason in re.findall(r"  // ([A-Z_]+): .*\n(?:  //.*\n)*  ERROR_REASON_([A-Z_]+) =", text)
    }
