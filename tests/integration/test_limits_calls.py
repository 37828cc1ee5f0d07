"""How many calls are answered at once: of a kind, of one user; and how large their messages may be.

The server runs in this process, with use cases that wait until they are told: so a place is taken for as long as a test
wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import auth_service_pb2, prediction_service_pb2
from easyml.v1 import project_service_pb2 as projects
from easyml.v1 import training_service_pb2 as trainings
from easyml_server.app import run_server
from easyml_server.domain.errors import NotFound
from easyml_server.services.predictions import PredictionService
from easyml_server.services.projects import ProjectService
from easyml_server.services.trainings import TrainingService
from easyml_server.settings import Settings
from tests.builders import a_training, register
from tests.marks import limits
from tests.servers import Client, Refusal, refusal, refusal_of

pytestmark = pytest.mark.slow

HEALTH = "/grpc.health.v1.Health/Check"
NOTHING = str(uuid4())


@dataclass
class Gate:
    """Calls that came in, and the word to go on."""

    came: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, *_: Any) -> None:
        self.came.release()
        await self.open.wait()
        raise NotFound.of("thing", NOTHING)

    async def stream(self, *_: Any) -> AsyncIterator[None]:
        await self.wait()
        yield None


@asynccontextmanager
async def a_server(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[tuple[Gate, str]]:
    """A server whose GetProject, WatchTraining and Predict wait at a gate; with the key of its owner."""
    gate = Gate()
    monkeypatch.setattr(ProjectService, "get", gate.wait)
    monkeypatch.setattr(TrainingService, "watch", gate.stream)
    monkeypatch.setattr(PredictionService, "predict", gate.wait)
    values = {"admission_wait_ms": 0, "open_registration": True, **settings}
    async with run_server(Settings(port=0, data_dir=folder, **values)) as running:
        yield gate, f"{running.address} {running.folder.owner_key.read_text().strip()}"
        gate.open.set()


class Callers:
    """Callers of a server in this process: sync stubs, never waited for on its loop."""

    def __init__(self, place: str) -> None:
        self.address, key = place.split()
        self.owner = Client(self.address, key)
        self._all = [self.owner]

    async def another(self) -> Client:
        """A new user."""
        with Client(self.address) as anonymous:
            account = await asyncio.to_thread(register, anonymous)
        client = Client(self.address, account.session.access_token)
        self._all.append(client)
        return client

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._all:
            client.close()


def unary(client: Client) -> Any:
    return client.projects.GetProject, projects.GetProjectRequest(project_id=NOTHING)


def stream(client: Client) -> Any:
    return client.trainings.WatchTraining, trainings.WatchTrainingRequest(experiment_id=NOTHING)


def prediction(client: Client) -> Any:
    return client.predictions.Predict, prediction_service_pb2.PredictRequest(model_version_id=NOTHING)


async def held(gate: Gate, kind: Any, client: Client) -> asyncio.Task[Refusal]:
    """A call that is being answered: it waits at the gate."""
    call, request = kind(client)
    task = asyncio.create_task(asyncio.to_thread(refusal, call, request))
    coming = asyncio.create_task(gate.came.acquire())
    await asyncio.wait({task, coming}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task.result()
    return task


async def is_refused(kind: Any, client: Client, setting: str, maximum: int) -> None:
    call, request = kind(client)
    said = await asyncio.to_thread(refusal, call, request)
    assert said.short == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert said.metadata == {"limit": f"EASYML_{setting}", "maximum": str(maximum)}
    assert said.retry_seconds
    assert int(said.trailers["grpc-retry-pushback-ms"]) == said.retry_seconds * 1000


@limits("MAX_IN_FLIGHT", "MAX_IN_FLIGHT_PER_USER", "MAX_STREAMS", "MAX_STREAMS_PER_USER")
@pytest.mark.parametrize(("kind", "setting"), [(unary, "MAX_IN_FLIGHT"), (stream, "MAX_STREAMS")])
async def test_a_kind_of_call_has_places_in_all_and_for_each_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, setting: str
) -> None:
    small = {setting.lower(): 3, f"{setting.lower()}_per_user": 2}
    async with a_server(tmp_path / "data", monkeypatch, **small) as (gate, place):
        with Callers(place) as callers:
            second, third = await callers.another(), await callers.another()
            calls = [await held(gate, kind, callers.owner) for _ in range(2)]
            await is_refused(kind, callers.owner, f"{setting}_PER_USER", 2)
            calls.append(await held(gate, kind, second))
            await is_refused(kind, third, setting, 3)
            # Whoever looks after the server is answered all the same.
            probe = second.channel.unary_unary(HEALTH)
            assert await asyncio.to_thread(probe, b"", timeout=30) == b"\x08\x01"
            gate.open.set()
            assert {call.reason for call in await asyncio.gather(*calls)} == {"NOT_FOUND"}
            call, request = kind(callers.owner)
            assert (await asyncio.to_thread(refusal, call, request)).reason == "NOT_FOUND"


@limits("MAX_PREDICTIONS")
async def test_predictions_have_places_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"max_predictions": 2, "max_in_flight": 1}
    async with a_server(tmp_path / "data", monkeypatch, **small) as (gate, place):
        with Callers(place) as callers:
            calls = [await held(gate, prediction, callers.owner) for _ in range(2)]
            await is_refused(prediction, callers.owner, "MAX_PREDICTIONS", 2)
            calls.append(await held(gate, unary, callers.owner))
            gate.open.set()
            assert {call.reason for call in await asyncio.gather(*calls)} == {"NOT_FOUND"}


@limits("ADMISSION_WAIT_MS")
async def test_a_call_waits_for_a_place_before_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"max_in_flight": 1, "admission_wait_ms": 60_000}
    async with a_server(tmp_path / "data", monkeypatch, **small) as (gate, place):
        with Callers(place) as callers:
            first = await held(gate, unary, callers.owner)
            call, request = unary(callers.owner)
            second = asyncio.create_task(asyncio.to_thread(refusal, call, request))
            gate.open.set()
            assert {(await first).reason, (await second).reason} == {"NOT_FOUND"}


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field on the wire."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def padded(message: Any, size: int) -> bytes:
    """A message of this size, by a field that nobody knows."""
    raw: bytes = message.SerializeToString()
    content = b"x" * (size - len(raw))
    while len(raw) + len(field(1023, content)) > size:
        content = content[1:]
    return raw + field(1023, content)


@limits("MAX_CONTROL_BYTES", "MAX_MESSAGE_BYTES")
@pytest.mark.parametrize(
    ("path", "setting", "maximum"),
    [
        ("ProjectService/ListProjects", "MAX_CONTROL_BYTES", 256 * 1024),
        ("PredictionService/Predict", "MAX_MESSAGE_BYTES", 4 << 20),
    ],
)
def test_a_message_has_as_many_bytes_as_are_taken(
    owner: Client, world: Any, path: str, setting: str, maximum: int
) -> None:
    request: Any = projects.ListProjectsRequest()
    if "Predict" in path:
        request = prediction_service_pb2.PredictRequest(model_version_id=world.model_version_id)
        request.rows.rows.add().update({"x": 1, "z": 1})
    call = owner.raw(f"/easyml.v1.{path}")
    assert call(padded(request, maximum))
    said = refusal(call, padded(request, maximum + 1))
    assert said.short == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert said.metadata == {"limit": f"EASYML_{setting}", "maximum": str(maximum)}


@limits("MAX_METADATA_BYTES")
@pytest.mark.parametrize("name", ["x-padding", "x-padding-bin"])
def test_a_call_has_as_many_bytes_of_metadata_as_are_taken(owner: Client, name: str) -> None:
    request = auth_service_pb2.GetCurrentUserRequest()
    sizes = range(7_000, 8_300, 4)
    refused = []
    for size in sizes:
        value = "x" * size if name == "x-padding" else b"x" * size
        try:
            owner.auth.GetCurrentUser(request, metadata=((name, value),))
        except grpc.RpcError as error:
            refused.append((size, refusal_of(error)))
    # Some of the 8 KiB are the credentials and what gRPC itself sends.
    first, said = refused[0]
    assert 7_500 < first < 8_192
    assert [size for size, _ in refused] == [size for size in sizes if size >= first]
    assert said.short == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert said.metadata == {"limit": "EASYML_MAX_METADATA_BYTES", "maximum": "8192"}


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth - 1):
        value = {"a": value}
    return {"n_estimators": value}


@pytest.mark.parametrize(
    ("depth", "reason"), [(16, "INVALID_HYPERPARAMETER"), (17, "MALFORMED_MESSAGE"), (30, "MALFORMED_MESSAGE")]
)
def test_values_nest_as_deep_as_is_taken(owner: Client, world: Any, depth: int, reason: str) -> None:
    request = a_training(world.project_id, world.dataset_id, algorithm="random_forest")
    request.spec.hyperparameters.update(nested(depth))
    said = refusal(owner.trainings.StartTraining, request)
    assert said.short == ("INVALID_ARGUMENT", reason)


@pytest.mark.parametrize("depth", [34, 100, 20_000])
@pytest.mark.parametrize("service", ["ProjectService/UpdateProjectConfig", "PredictionService/Predict"])
def test_what_nests_deeper_than_can_be_decoded_is_malformed(
    owner: Client, world: Any, service: str, depth: int
) -> None:
    # Written by hand: this side's library would not make such a message.
    value = b"\x20\x01"
    for _ in range(depth):
        # Lists, which are shorter, where objects would make the message too large.
        value = field(5, field(1, field(1, b"a") + field(2, value))) if depth < 1000 else field(6, field(1, value))
    struct = field(1, field(1, b"x") + field(2, value))
    if service.startswith("Project"):
        config = field(1, world.project_id.encode()) + field(2, field(1, b"gaussian_nb") + field(2, struct))
        raw = field(1, config) + field(2, field(1, b"default_hyperparameters"))
    else:
        raw = field(1, world.model_version_id.encode()) + field(8, field(1, struct))
    said = refusal(owner.raw(f"/easyml.v1.{service}"), raw)
    assert said.short == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
