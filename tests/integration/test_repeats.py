"""What our client repeats of what our server refuses: gRPC waits as told, and repeats no call once headers came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from easyml.v1 import project_service_pb2 as pb
from easyml_client import EasyML, errors
from easyml_server.app import run_server
from easyml_server.domain.errors import LimitReached, Reason, Unavailable
from easyml_server.services.projects import ProjectService
from easyml_server.settings import Settings
from easyml_server.transport.status import LONGEST_PUSHBACK_SECONDS
from tests.proxy import proxy
from tests.servers import Client, refusal, serving

pytestmark = pytest.mark.slow


@asynccontextmanager
async def refusing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *refusals: Exception
) -> AsyncIterator[tuple[str, str, list[Any]]]:
    """A server that refuses to name projects so often; its address, its owner's key, and the calls that came."""
    calls: list[Any] = []
    get = ProjectService.get

    async def refuse(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) <= len(refusals):
            raise refusals[len(calls) - 1]
        return await get(*arguments)

    monkeypatch.setattr(ProjectService, "get", refuse)
    async with run_server(Settings(port=0, data_dir=folder)) as running:
        yield running.address, running.folder.owner_key.read_text().strip(), calls


def named(address: str, key: str) -> str:
    with EasyML(address, token=key) as client:
        return client.projects.get(client.projects.create("iris").id).name


async def test_what_is_refused_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = Unavailable("Not now.", retry_after=0.01)
    full = LimitReached("Full.", Reason.OVERLOADED, retry_after=0.01)
    async with refusing(tmp_path / "data", monkeypatch, moment, full) as (address, key, calls):
        assert await asyncio.to_thread(named, address, key) == "iris"
    assert len(calls) == 3


async def test_what_takes_longer_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Unavailable("Not today.", retry_after=LONGEST_PUSHBACK_SECONDS + 1)
    async with refusing(tmp_path / "data", monkeypatch, later) as (address, key, calls):
        with pytest.raises(errors.Unavailable, match="Not today") as caught:
            await asyncio.to_thread(named, address, key)
    assert len(calls) == 1
    assert caught.value.retry_after == LONGEST_PUSHBACK_SECONDS + 1


async def test_who_has_no_time_to_come_back_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = Unavailable("Not now.", retry_after=LONGEST_PUSHBACK_SECONDS)
    async with refusing(tmp_path / "data", monkeypatch, moment) as (address, key, _calls):
        with Client(address, key) as client:
            project = await asyncio.to_thread(client.projects.CreateProject, pb.CreateProjectRequest(name="iris"))

            def hurried(request: pb.GetProjectRequest) -> Any:
                return client.projects.GetProject(request, timeout=LONGEST_PUSHBACK_SECONDS - 0.1)

            said = await asyncio.to_thread(refusal, hurried, pb.GetProjectRequest(project_id=project.project.id))
    assert (said.code.name, said.trailers["grpc-retry-pushback-ms"]) == ("UNAVAILABLE", "-1")


def test_a_call_whose_connection_ends_before_its_answer_is_asked_again(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        host, port = server.address.rsplit(":", 1)
        with proxy(host, int(port)) as between, EasyML(f"{host}:{between.port}", token=server.key) as client:
            client.projects.create("iris")
            between.stall()
            with ThreadPoolExecutor() as threads:
                asking = threads.submit(client.projects.get, "iris")
                between.holding.wait()
                between.down()
                between.up()
                assert asking.result().name == "iris"
