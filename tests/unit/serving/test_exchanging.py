"""A file of models that is read again: what is served then, and what is told of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from easyml_server.serving.exchanging import Exchange
from easyml_server.serving.metrics import ServingMetrics
from tests.unit.serving.test_repository import PATIENCE, Served, serving, until

ONE, TWO, THREE = (f"00000000-0000-4000-8000-{number:012}" for number in (1, 2, 3))


class Told:
    """An exchange, and what it told."""

    def __init__(self, served: Served) -> None:
        self.metrics = ServingMetrics()
        self.health = health_aio.HealthServicer()
        self.exchange = Exchange(served.models, self.health, self.metrics)

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("easyml_model_exchanges_total", {"outcome": outcome}) or 0

    async def status(self, name: str) -> str:
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=name), None)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def write(file: Path, version: str, *more: str) -> Path:
    models = {each: f"/{each}" for each in (version, *more)}
    file.write_text(json.dumps({"models": models, "names": {"name": version}}))
    return file


async def test_names_that_come_and_go_are_told(tmp_path: Path) -> None:
    async with serving([ONE], name=ONE) as served:
        told = Told(served)
        await told.exchange.announce(served.models.known.all_names)
        await told.exchange.read(write(tmp_path / "models.json", TWO, THREE))
        assert await served.ask("name") == TWO
        assert [await told.status(each) for each in (TWO, THREE, "name")] == ["SERVING"] * 3
        assert await told.status(ONE) == "SERVICE_UNKNOWN"
        assert (told.count("accepted"), told.count("refused")) == (1, 0)


@pytest.mark.parametrize("trouble", ["damaged", "unreadable"])
async def test_whatever_is_in_the_way_of_a_file_the_next_one_is_read(tmp_path: Path, trouble: str) -> None:
    asked, file = asyncio.Event(), tmp_path / "models.json"
    async with serving([ONE], name=ONE) as served:
        getattr(served.files, trouble).add(TWO)
        told = Told(served)
        reading = asyncio.create_task(told.exchange.whenever(asked, write(file, TWO)))
        asked.set()
        await until(lambda: told.count("refused") == 1)
        assert await served.ask("name") == ONE
        write(file, THREE)
        asked.set()
        await until(lambda: told.count("accepted") == 1)
        assert await served.ask("name") == THREE
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(reading, PATIENCE)
