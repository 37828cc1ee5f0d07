"""Puts a model server together and runs it: models, tokens, services, health, reflection, and a graceful end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import jwt
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from easyml_server.domain.replica_records import hold
from easyml_server.serving import inference
from easyml_server.serving.calls import Calls, CheckToken, ServingLimits
from easyml_server.serving.exchanging import Exchange
from easyml_server.serving.known import CannotStart, Known
from easyml_server.serving.lifeline import abandoned, on_end_of_input, outlive_parent
from easyml_server.serving.loaded import LoadedModels
from easyml_server.serving.loading import stored_model
from easyml_server.serving.metrics import ServingMetrics
from easyml_server.serving.repository import ModelRepository
from easyml_server.serving.server import SERVICE, PredictionServicer
from easyml_server.serving.sources import Source
from easyml_server.serving.tokens import TokenCheck

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
LIVENESS = "liveness"
READINESS = ""
MAX_METADATA_BYTES = 8 * 1024
MOST_THREADS = 4

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outliving:
    """From when on a model server outlives whoever started it, and for how long nobody may touch the heartbeat."""

    record: Path
    heartbeat: Path
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class Options:
    """What a model server is told. Without `jwks` anyone may ask, which takes `insecure` and a loopback address.

    `models_file` is where `models` and `names` were read, if they are to be read again at SIGHUP.
    """

    models: Mapping[str, Source]
    names: Mapping[str, str] = field(default_factory=dict)
    models_file: Path | None = None
    memory_budget: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    jwks: Path | None = None
    audience: str = ""
    insecure: bool = False
    metrics_port: int | None = None
    lifeline: bool = False
    outliving: Outliving | None = None
    grace_seconds: float = 20.0
    limits: ServingLimits = field(default_factory=ServingLimits)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a model server answers calls, and where `GET /metrics` (host:port; empty if nowhere)."""

    address: str
    metrics_address: str


def parse_outliving(
    record: Path | None, heartbeat: Path | None, patience_seconds: float, *, lifeline: bool
) -> Outliving | None:
    """From the options of these names. Raises CannotStart."""
    if record is None and heartbeat is None:
        return None
    if record is None or heartbeat is None or not lifeline:
        raise CannotStart("--record and --heartbeat belong together, and to --lifeline.")
    return Outliving(record, heartbeat, patience_seconds)


async def serve(options: Options, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    With `lifeline` also until standard input is closed, or, with `outliving` too, until nobody wants it any more.
    Raises CannotStart and CannotLoad.
    """
    stopping, exchanging = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    if options.lifeline:
        # Ctrl-C reaches the whole terminal; the server that started this one decides when it ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        on_end_of_input(stopping.set)
    else:
        loop.add_signal_handler(signal.SIGINT, stopping.set)
    if options.models_file is not None:
        loop.add_signal_handler(signal.SIGHUP, exchanging.set)
    async with run_model_server(options, exchanging) as listening, _outliving(options.outliving, listening, stopping):
        ready(listening.address)
        await stopping.wait()


@asynccontextmanager
async def _outliving(options: Outliving | None, listening: Listening, stopping: asyncio.Event) -> AsyncIterator[None]:
    """In this block the process can be found again, and needs its parent no more."""
    if options is None:
        yield
        return
    record = hold(options.record, listening.address, listening.metrics_address)
    outlive_parent()

    async def stop_when_abandoned() -> None:
        await abandoned(options.heartbeat, options.patience_seconds)
        log.warning("abandoned", seconds=options.patience_seconds)
        stopping.set()

    watching = asyncio.create_task(stop_when_abandoned(), name="heartbeat")
    try:
        yield
    finally:
        watching.cancel()
        options.record.unlink(missing_ok=True)
        os.close(record)


@asynccontextmanager
async def run_model_server(options: Options, exchanging: asyncio.Event | None = None) -> AsyncIterator[Listening]:
    """A model server that answers where it says; calls in flight may end before it closes.

    Whenever `exchanging` is set, the file of models is read again.
    """
    check_token = _token_check(options)
    metrics = ServingMetrics()
    async with _repository(options, metrics) as models, _served(models, check_token, options, metrics) as served:
        listening, exchange = served
        async with _exchanging(exchange, exchanging, options.models_file):
            yield listening


@asynccontextmanager
async def _repository(options: Options, metrics: ServingMetrics) -> AsyncIterator[ModelRepository]:
    if options.memory_budget < 0:
        raise CannotStart("--memory-budget is a number of bytes; 0 is none.")
    loaded = LoadedModels(options.memory_budget, metrics)
    opened = partial(stored_model, limits=options.limits.table)
    models = ModelRepository(Known(options.models, options.names), loaded, opened)
    try:
        await models.start()
        # What is loaded stays: the collector need not walk through it again and again.
        gc.collect()
        gc.freeze()
        yield models
    finally:
        await models.close()


@asynccontextmanager
async def _exchanging(exchange: Exchange, asked: asyncio.Event | None, file: Path | None) -> AsyncIterator[None]:
    if asked is None or file is None:
        yield
        return
    task = asyncio.create_task(exchange.whenever(asked, file), name="exchange of models")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _served(
    models: ModelRepository, check_token: CheckToken, options: Options, metrics: ServingMetrics
) -> AsyncIterator[tuple[Listening, Exchange]]:
    with (
        ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "predict") as threads,
        _exposed(metrics, options) as metrics_address,
    ):
        server = grpc.aio.server(options=_channel_options(options.limits))
        health = health_aio.HealthServicer()
        calls = Calls(models, check_token, options.limits, threads, metrics)
        server.add_generic_rpc_handlers(
            (PredictionServicer(calls).handler(), inference.InferenceServicer(calls).handler())
        )
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        services = [SERVICE, inference.SERVICE]
        reflection.enable_server_reflection([*services, HEALTH, reflection.SERVICE_NAME], server)
        address = _listen(server, options)
        await server.start()
        exchange = Exchange(models, health, metrics)
        await exchange.announce((LIVENESS, *services, *models.known.all_names, READINESS))
        try:
            yield Listening(address, metrics_address), exchange
        finally:
            await health.enter_graceful_shutdown()
            await server.stop(options.grace_seconds)


def _token_check(options: Options) -> CheckToken:
    if options.jwks is not None:
        if not options.audience:
            raise CannotStart("Say with --audience which tokens are meant for this server.")
        try:
            return TokenCheck(options.jwks, options.audience).check
        except (OSError, ValueError, jwt.PyJWTError) as error:
            raise CannotStart(f"{options.jwks} holds no public keys.") from error
    if not options.insecure:
        raise CannotStart("Name the public keys of those who may ask with --jwks, or let anyone ask with --insecure.")
    if options.host not in LOOPBACK:
        raise CannotStart("--insecure lets anyone ask, so it takes a loopback address.")
    return lambda _authorization: None


@contextmanager
def _exposed(metrics: ServingMetrics, options: Options) -> Iterator[str]:
    """`GET /metrics` is answered in this block, if that was asked for; where."""
    if options.metrics_port is None:
        yield ""
        return
    try:
        server, thread = start_http_server(options.metrics_port, options.host.strip("[]"), metrics.registry)
    except OSError as error:
        raise CannotStart(f"Port {options.metrics_port} on {options.host} is taken or not allowed.") from error
    address = f"{options.host}:{server.server_port}"
    log.info("metrics", url=f"http://{address}/metrics")
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(server: grpc.aio.Server, options: Options) -> str:
    host = f"[{options.host.strip('[]')}]" if ":" in options.host else options.host
    try:
        port = server.add_insecure_port(f"{host}:{options.port}")
    except RuntimeError as error:
        raise CannotStart(f"Port {options.port} on {options.host} is taken or not allowed.") from error
    return f"{host}:{port}"


def _channel_options(limits: ServingLimits) -> list[tuple[str, int]]:
    return [
        # A little more than is taken, so that what is too large gets an answer that says so.
        ("grpc.max_receive_message_length", limits.max_message_bytes + 64 * 1024),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        # Else a second server gets the same port without an error.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
    ]
