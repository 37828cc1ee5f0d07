"""Model servers as child processes: started when asked, warm, replaced when they die, and none left behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import grpc
import psutil
import pytest
import structlog
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from easyml.v1 import prediction_service_pb2
from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.deployers.identities import RENEW_AFTER, Identities
from easyml_server.deployers.limits import ModelServerLimits
from easyml_server.deployers.local import LocalModelServers, start_model_servers
from easyml_server.domain.errors import InvalidInput, Unavailable
from easyml_server.domain.users import Caller
from easyml_server.ports.model_servers import ModelServerError, ServedModel
from easyml_server.security.tokens import Ed25519Signer
from easyml_server.transport.admission import Admission, ClassLimit
from easyml_server.transport.calls import Context
from easyml_server.transport.methods import CallClass, methods_of
from easyml_server.transport.pipeline import MessageLimits, Pipeline
from easyml_server.transport.validation import Validator
from tests.model_servers import model_server
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed
from tests.unit.serving.requests import a_row, rows

CALLER = Caller(UUID("00000000-0000-4000-8000-000000000002"))
SECRET = "EASYML_CANARY"
GONE_SECONDS = 30
LIMITS = ModelServerLimits(
    max_predict_rows=100,
    max_predict_cells=100_000,
    max_arrow_bytes=1 << 20,
    max_message_bytes=1 << 20,
    max_predictions=16,
    default_deadline_seconds=60,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = a_job(tmp_path_factory.mktemp("trained"), a_mixed_table(), target="level", features=FEATURES)
    succeed(job)
    return Path(job.output_path)


@asynccontextmanager
async def model_servers(folder: Path, kept_warm: int = 4, **limits: int) -> AsyncIterator[LocalModelServers]:
    signer = Ed25519Signer(folder / "keys")
    async with start_model_servers(
        Identities(signer, lambda: datetime.now(UTC)),
        signer.jwks_path,
        kept_warm=kept_warm,
        limits=replace(LIMITS, **limits),
    ) as servers:
        yield servers


def a_model(folder: Path, number: int = 1) -> ServedModel:
    return ServedModel(UUID(f"00000000-0000-4000-8000-{number:012d}"), lambda: nullcontext(folder))


def request(model: ServedModel, count: int = 1, **changes: object) -> bytes:
    message = rows(*[a_row(**changes)] * count)
    message.model_version_id = str(model.version_id)
    return message.SerializeToString()


async def ask(servers: LocalModelServers, model: ServedModel, timeout: float | None = 60) -> pb.PredictResponse:
    return pb.PredictResponse.FromString(await servers.predict(model, CALLER, request(model), timeout))


async def ask_again(servers: LocalModelServers, model: ServedModel) -> pb.PredictResponse:
    """Ask until the end of a server has been noticed."""
    async with asyncio.timeout(GONE_SECONDS):
        while True:
            try:
                return await ask(servers, model)
            except Unavailable:
                await asyncio.sleep(0.01)


async def left_alone(servers: LocalModelServers, model: ServedModel) -> Unavailable:
    """Ask until nothing is started any more."""
    async with asyncio.timeout(GONE_SECONDS):
        while True:
            try:
                await ask(servers, model)
            except Unavailable as error:
                if "left alone" in error.message:
                    return error
                await asyncio.sleep(0.01)


async def stream(
    servers: LocalModelServers, model: ServedModel, requests: AsyncIterator[bytes]
) -> AsyncIterator[pb.StreamPredictResponse]:
    async for raw in servers.stream_predict(model, CALLER, requests):
        yield pb.StreamPredictResponse.FromString(raw)


def children() -> dict[str, psutil.Process]:
    """Model servers of this process, and not those of a server that it started, by the version they serve."""
    found = {}
    for child in psutil.Process().children():
        arguments = child.cmdline()
        if "easyml_server.serving" in arguments:
            found[next(a for a in arguments if a.startswith("--model=")).split("=")[1]] = child
    return found


async def gone(process: psutil.Process) -> None:
    await asyncio.to_thread(psutil.wait_procs, [process], GONE_SECONDS)
    assert not process.is_running()


async def test_the_first_call_starts_a_server_and_many_first_calls_start_one(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)
    async with model_servers(tmp_path) as servers:
        assert not children()
        answers = await asyncio.gather(*(ask(servers, model) for _ in range(10)))
        assert len(children()) == 1
        (child,) = children().values()
    assert {answer.model_version_id for answer in answers} == {str(model.version_id)}
    assert not child.is_running()


async def test_an_error_of_the_model_server_passes_on_with_all_its_details(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)
    structlog.contextvars.clear_contextvars()
    async with model_servers(tmp_path, max_predict_rows=7, max_message_bytes=16_384) as servers:
        with structlog.contextvars.bound_contextvars(call_id="call-7"), pytest.raises(ModelServerError) as caught:
            await servers.predict(model, CALLER, request(model, beak=1), 60)
        with pytest.raises(ModelServerError) as too_many:
            await servers.predict(model, CALLER, request(model, 8), 60)
        with pytest.raises(ModelServerError, match="EASYML_MAX_MESSAGE_BYTES"):
            await servers.predict(model, CALLER, request(model, 200), 60)
    assert caught.value.code == code_pb2.INVALID_ARGUMENT
    assert "beak" in caught.value.message
    details = status_pb2.Status.FromString(dict(caught.value.trailers)["grpc-status-details-bin"])  # type: ignore[arg-type]
    info, call = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    assert details.details[0].Unpack(info)
    assert details.details[1].Unpack(call)
    assert info.reason == "UNKNOWN_COLUMN"
    assert call.request_id == "call-7"
    assert "EASYML_MAX_PREDICT_ROWS" in too_many.value.message


@asynccontextmanager
async def main_port(servers: LocalModelServers, model: ServedModel) -> AsyncIterator[grpc.aio.Channel]:
    """The main server's pipeline in front of a model."""

    async def identify(_token: str) -> Caller:
        return CALLER

    async def predict(raw: bytes, context: Context) -> bytes:
        return await servers.predict(model, CALLER, raw, context.time_remaining())

    limits = {kind: ClassLimit(10, 10, "EASYML_MAX_IN_FLIGHT") for kind in CallClass}
    message_limits = MessageLimits(1 << 18, 4 << 20, 1 << 20, 8 << 10)
    methods = methods_of([prediction_service_pb2.DESCRIPTOR])
    pipeline = Pipeline(methods, identify, Admission(limits, 0.2), Validator(), message_limits, 60)
    server = grpc.aio.server(interceptors=[pipeline])
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("easyml.v1.PredictionService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


async def test_the_main_port_gives_its_caller_the_error_unchanged(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)
    metadata = (("authorization", "Bearer x"), ("x-request-id", "call-7"))
    async with model_servers(tmp_path) as servers, main_port(servers, model) as channel:
        predict = channel.unary_unary("/easyml.v1.PredictionService/Predict")
        answer = pb.PredictResponse.FromString(await predict(request(model), metadata=metadata))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await predict(request(model, beak=1), metadata=metadata)
    assert answer.model_version_id == str(model.version_id)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert (status.code, caught.value.code()) == (code_pb2.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT)
    info, call, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo(), error_details_pb2.BadRequest()
    assert [detail.Unpack(kind) for detail, kind in zip(status.details, (info, call, bad), strict=True)] == [True] * 3
    assert (info.reason, info.metadata["column"]) == ("UNKNOWN_COLUMN", "beak")
    assert call.request_id == "call-7"
    assert bad.field_violations[0].field == "rows.rows[0].beak"


async def test_a_stream_passes_through_and_a_failing_client_keeps_its_answers(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)

    async def requests() -> AsyncIterator[bytes]:
        message = pb.StreamPredictRequest.FromString(request(model))
        message.id = "first"
        yield message.SerializeToString()
        raise InvalidInput("The message cannot be decoded.")

    async with model_servers(tmp_path) as servers:
        answers = stream(servers, model, requests())
        first = await anext(answers)
        with pytest.raises(InvalidInput):
            await anext(answers)
    assert first.id == "first"
    assert first.response.prediction_id


async def test_the_one_that_was_not_asked_for_longest_makes_room(trained: Path, tmp_path: Path) -> None:
    first, second, third = (a_model(trained, number) for number in (1, 2, 3))
    async with model_servers(tmp_path, kept_warm=2) as servers:
        await ask(servers, first)
        await ask(servers, second)
        await ask(servers, first)
        leaving = children()[str(second.version_id)]
        await ask(servers, third)
        await gone(leaving)
        assert set(children()) == {str(first.version_id), str(third.version_id)}
        assert (await ask(servers, second)).model_version_id == str(second.version_id)


async def test_a_call_in_flight_fails_when_its_server_dies_and_the_next_gets_a_new_one(
    trained: Path, tmp_path: Path
) -> None:
    model = a_model(trained)
    async with model_servers(tmp_path) as servers:
        await ask(servers, model)
        (child,) = children().values()
        child.suspend()
        in_flight = asyncio.create_task(ask(servers, model))
        with pytest.raises(TimeoutError):
            await ask(servers, model, timeout=0.2)
        child.kill()
        with pytest.raises(Unavailable) as caught:
            await in_flight
        assert caught.value.retry_after is not None
        assert caught.value.metadata == {"part": "model_server"}
        assert (await ask_again(servers, model)).prediction_id
        assert next(iter(children().values())).pid != child.pid


async def test_a_server_that_keeps_dying_is_left_alone_for_a_while(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)
    async with model_servers(tmp_path) as servers:
        for _ in range(2):
            await ask_again(servers, model)
            (child,) = children().values()
            child.kill()
            await gone(child)
        assert (await left_alone(servers, model)).retry_after is not None
        assert not children()


async def test_a_damaged_model_is_told_and_not_started_again_and_again(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((trained / "manifest.json").read_bytes())
    (folder / "model.onnx").write_bytes(b"damaged")
    model = a_model(folder)
    async with model_servers(tmp_path) as servers:
        with pytest.raises(Unavailable, match="cannot be loaded"):
            await ask(servers, model)
        await left_alone(servers, model)
        assert not children()
    assert "SHA-256" in capfd.readouterr().err


async def test_a_version_that_is_forgotten_is_stopped(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)
    async with model_servers(tmp_path) as servers:
        await ask(servers, model)
        (child,) = children().values()
        await servers.forget(model.version_id)
        assert not child.is_running()
        await servers.forget(model.version_id)


async def test_a_start_goes_on_when_its_first_caller_leaves(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)
    async with model_servers(tmp_path) as servers:
        with pytest.raises(TimeoutError):
            await ask(servers, model, timeout=0.01)
        waiting = asyncio.create_task(ask(servers, model))
        await asyncio.sleep(0)
        waiting.cancel()
        assert (await ask(servers, model)).prediction_id
        assert len(children()) == 1


async def test_closing_ends_a_start_and_whoever_waits_for_it(trained: Path, tmp_path: Path) -> None:
    async with model_servers(tmp_path) as servers:
        waiting = asyncio.create_task(ask(servers, a_model(trained)))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await waiting
    assert not children()
    with pytest.raises(Unavailable):
        await ask(servers, a_model(trained))


async def test_a_model_server_sees_no_secrets_and_ignores_ctrl_c(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "do not pass on")
    model = a_model(trained)
    async with model_servers(tmp_path) as servers:
        await ask(servers, model)
        (child,) = children().values()
        environment = child.environ()
        assert SECRET not in environment
        assert environment["OMP_NUM_THREADS"] == "1"
        child.send_signal(signal.SIGINT)
        await ask(servers, model)
        assert [each.pid for each in children().values()] == [child.pid]


async def test_nobody_else_on_this_machine_can_ask_it(trained: Path, tmp_path: Path) -> None:
    model = a_model(trained)
    async with model_servers(tmp_path) as servers:
        await ask(servers, model)
        (child,) = children().values()
        addresses = [each.laddr for each in child.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        assert [address.ip.removeprefix("::ffff:") for address in addresses] == ["127.0.0.1"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{addresses[0].port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/easyml.v1.PredictionService/Predict")(request(model))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


SERVER = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_model_server import a_model, ask, children, model_servers

async def main():
    async with model_servers(Path(sys.argv[1])) as servers:
        await ask(servers, a_model(Path(sys.argv[2])))
        print("CHILD", next(iter(children().values())).pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_no_model_server_outlives_a_server_that_is_killed(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(tmp_path), str(trained)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        told = next(line for line in server.stdout if line.startswith("CHILD "))
        child = psutil.Process(int(told.split()[1]))
        server.kill()
        psutil.wait_procs([child], GONE_SECONDS)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_command_ends_when_its_input_is_closed(trained: Path) -> None:
    arguments = (f"--model={a_model(trained).version_id}={trained}", "--insecure", "--lifeline")
    with model_server(*arguments) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY 127.0.0.1:")
        process.stdin.close()
        assert process.wait(GONE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_at_a_signal(trained: Path, number: signal.Signals) -> None:
    with model_server(f"--model={a_model(trained).version_id}={trained}", "--insecure") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(GONE_SECONDS) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--model=x=y", "--insecure"], 2, "VERSION_ID=FOLDER"),
        (["--model=00000000-0000-4000-8000-000000000001=/nowhere"], 2, "--jwks"),
        (["--model=00000000-0000-4000-8000-000000000001=/nowhere", "--insecure"], 3, "manifest.json cannot be read"),
    ],
)
def test_the_command_says_in_one_line_why_it_cannot_start(arguments: list[str], code: int, sentence: str) -> None:
    with model_server(*arguments) as process:
        _, errors = process.communicate(timeout=GONE_SECONDS)
    assert process.returncode == code
    assert sentence in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("easyml-model-server: ")


async def test_a_token_is_signed_again_before_it_expires(tmp_path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    identities = Identities(Ed25519Signer(tmp_path / "keys"), lambda: now)
    first = identities.token(CALLER.user_id, "a")
    assert identities.token(CALLER.user_id, "a") == first
    assert identities.token(CALLER.user_id, "b") != first
    now += RENEW_AFTER
    second = identities.token(CALLER.user_id, "a")
    assert second != first
    now -= timedelta(hours=1)
    assert identities.token(CALLER.user_id, "a") not in (first, second)
