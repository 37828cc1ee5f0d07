"""A model server, as a process, that exchanges models while it is asked, and holds several within a budget."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.serving.budget import bytes_in_memory
from inference import open_inference_grpc_pb2 as oip
from inference import open_inference_grpc_pb2_grpc as oip_grpc
from tests.model_servers import model_server
from tests.servers import free_port
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed
from tests.unit.serving.refusals import told
from tests.unit.serving.requests import a_row, rows
from tests.unit.serving.stored import copy_of, manifest_of
from tests.unit.serving.tensors import FITTING, Tensor, raw

OLD, NEW, THIRD, BROKEN = (f"00000000-0000-4000-8000-{number:012d}" for number in (1, 2, 3, 4))
NAME = "levels"
PATIENCE = 60
CALLERS = 3
"""Of each kind of call."""
EXCHANGES = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = a_job(tmp_path_factory.mktemp("trained"), a_mixed_table(), target="level", features=FEATURES)
    succeed(job)
    return Path(job.output_path)


@pytest.fixture
def broken(trained: Path, tmp_path: Path) -> Path:
    folder = copy_of(trained, tmp_path / "broken")
    (folder / "model.onnx").write_bytes(b"damaged")
    return folder


class Server:
    """A model server by its file of models, and what it counts."""

    def __init__(self, channel: grpc.aio.Channel, pid: int, file: Path, metrics_port: int) -> None:
        self.inference = oip_grpc.GRPCInferenceServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        self.predict = channel.unary_unary(
            "/easyml.v1.PredictionService/Predict",
            request_serializer=pb.PredictRequest.SerializeToString,
            response_deserializer=pb.PredictResponse.FromString,
        )
        self._pid = pid
        self._file = file
        self._metrics_port = metrics_port

    async def exchange(self, models: Mapping[str, Path], name: str, outcome: str) -> None:
        """Write the file, and wait until it was read with this outcome."""
        before = await self.exchanges(outcome)
        write(self._file, models, name)
        os.kill(self._pid, signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            while await self.exchanges(outcome) == before:  # noqa: ASYNC110 (counters tell nobody)
                await asyncio.sleep(0.02)

    async def exchanges(self, outcome: str) -> float:
        return await asyncio.to_thread(self.count, "easyml_model_exchanges_total", outcome=outcome)

    def count(self, name: str, **labels: str) -> float:
        with urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=PATIENCE) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


def write(file: Path, models: Mapping[str, Path], name: str) -> None:
    named = {NAME: name} if name else {}
    said = {"models": {version: str(folder) for version, folder in models.items()}, "names": named}
    file.write_text(json.dumps(said))


@contextmanager
def started(*arguments: str) -> Iterator[tuple[str, int]]:
    # Nobody reads its log: a pipe that is full would stop it.
    with model_server(*arguments, "--insecure", errors=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        try:
            yield ready.removeprefix("READY ").strip(), process.pid
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


@asynccontextmanager
async def serving(file: Path, models: Mapping[str, Path], name: str = "", *more: str) -> AsyncIterator[Server]:
    write(file, models, name)
    port = free_port()
    arguments = (f"--models={file}", f"--metrics-port={port}", *more)
    with started(*arguments) as (address, pid):
        async with grpc.aio.insecure_channel(address) as channel:
            yield Server(channel, pid, file, port)


class Load:
    """Callers who ask by name, on and on: small calls, large ones that threads answer, and messages of a stream."""

    def __init__(self, server: Server) -> None:
        self.answered = 0
        self._server = server
        self._seen: list[set[str]] = []
        self._changed = asyncio.Condition()
        self._stop = False

    async def small(self) -> str:
        answer = await self._server.inference.ModelInfer(raw(FITTING, NAME), timeout=PATIENCE)
        return str(answer.model_version)

    async def large(self) -> str:
        many = [Tensor(each.name, each.datatype, list(each.values) * 300) for each in FITTING]
        answer = await self._server.inference.ModelInfer(raw(many, NAME), timeout=PATIENCE)
        return str(answer.model_version)

    async def call(self, ask: Callable[[], Awaitable[str]], seen: set[str]) -> None:
        """Any error ends this, and the test."""
        while not self._stop:
            await self._saw(seen, await ask())

    async def stream(self, seen: set[str]) -> None:
        answers = self._server.inference.ModelStreamInfer()
        while not self._stop:
            await answers.write(raw(FITTING, NAME))
            answer = await answers.read()
            assert not answer.error_message
            await self._saw(seen, answer.infer_response.model_version)
        await answers.done_writing()

    async def _saw(self, seen: set[str], version: str) -> None:
        self.answered += 1
        async with self._changed:
            seen.add(version)
            self._changed.notify_all()

    async def all_see(self, version: str) -> None:
        """Each caller gets an answer of this version that came from now on."""
        async with asyncio.timeout(PATIENCE), self._changed:
            for seen in self._seen:
                seen.clear()
            await self._changed.wait_for(lambda: all(version in seen for seen in self._seen))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._seen = [set() for _ in range(3 * CALLERS)]
        async with asyncio.TaskGroup() as group:
            for number, seen in enumerate(self._seen):
                kinds = (lambda s: self.call(self.small, s), lambda s: self.call(self.large, s), self.stream)
                group.create_task(kinds[number % 3](seen))
            try:
                yield
            finally:
                self._stop = True


async def test_versions_are_exchanged_under_load_without_a_failed_call(
    trained: Path, broken: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path / "models.json", {OLD: trained}, OLD) as server:
        load = Load(server)
        async with load.running():
            await load.all_see(OLD)
            for turn in range(EXCHANGES):
                version = (NEW, OLD)[turn % 2]
                await server.exchange({version: trained}, version, "accepted")
                await load.all_see(version)
            await server.exchange({BROKEN: broken}, BROKEN, "refused")
            await load.all_see(OLD)
            assert (await server.inference.ModelReady(oip.ModelReadyRequest(name=NAME, version=OLD))).ready
        failed = server.count("grpc_server_handled_total") - server.count("grpc_server_handled_total", grpc_code="OK")
        assert failed == 0
        assert load.answered > 3 * CALLERS * EXCHANGES


async def test_what_was_exchanged_is_told_by_index_health_and_counters(trained: Path, tmp_path: Path) -> None:
    async with serving(tmp_path / "models.json", {OLD: trained}, OLD) as server:
        await server.exchange({NEW: trained, THIRD: trained}, NEW, "accepted")
        index = await server.inference.RepositoryIndex(oip.RepositoryIndexRequest())
        assert [(each.name, each.version) for each in index.models] == [(NEW, NEW), (THIRD, THIRD), (NAME, NEW)]
        for name, status in ((NEW, "SERVING"), (NAME, "SERVING"), (OLD, "SERVICE_UNKNOWN")):
            answer = await server.health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.ServingStatus.Value(status)
        assert server.count("easyml_model_loads_total") == 3
        assert server.count("easyml_model_memory_bytes", model_version_id=NEW) > 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.inference.ModelInfer(raw(FITTING, OLD))
        assert told(caught.value).code == code_pb2.NOT_FOUND


async def test_a_file_that_says_nothing_sensible_changes_nothing(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    async with serving(file, {OLD: trained}, OLD) as server:
        await server.exchange({}, "", "refused")
        await server.exchange({NEW: tmp_path / "nowhere"}, NEW, "refused")
        await server.exchange({NEW: trained}, OLD, "refused")
        answer = await server.inference.ModelInfer(raw(FITTING, NAME))
    assert answer.model_version == OLD


async def test_three_models_answer_where_there_is_room_for_two(trained: Path, tmp_path: Path) -> None:
    served = manifest_of(trained).served
    assert served is not None
    budget = 2 * bytes_in_memory(served)
    models = dict.fromkeys((OLD, NEW, THIRD), trained)
    async with serving(tmp_path / "models.json", models, OLD, f"--memory-budget={budget}") as server:
        for version in (OLD, NEW, THIRD) * 2:
            request = rows(a_row())
            request.model_version_id = version
            assert (await server.predict(request, timeout=PATIENCE)).model_version_id == version
            assert server.count("easyml_model_memory_bytes") <= budget
        metadata = await server.inference.ModelMetadata(oip.ModelMetadataRequest(name=NAME), timeout=PATIENCE)
        assert list(metadata.versions) == [OLD]
        index = await server.inference.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))
        assert [each.state for each in index.models] == ["READY"] * 4
        assert sorted(each.reason for each in index.models) == ["", "", "", "Its next call loads it."]
        assert server.count("easyml_model_loads_total") > len(models)


def test_a_model_that_never_fits_is_refused_at_the_start(trained: Path) -> None:
    arguments = (f"--model={OLD}={trained}", "--insecure", "--memory-budget=1000")
    with model_server(*arguments) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    line = errors.splitlines()[-1]
    assert line.startswith(f"easyml-model-server: Model version {OLD} cannot be served: ")
    assert "--memory-budget is 1000; raise it" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--insecure", "--models=/nowhere.json"], "/nowhere.json cannot be read"),
        (["--insecure", f"--model={OLD}=/x", "--memory-budget=-1"], "--memory-budget is a number of bytes"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong_with_its_models(arguments: list[str], sentence: str) -> None:
    with model_server(*arguments) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert sentence in errors.splitlines()[-1]
