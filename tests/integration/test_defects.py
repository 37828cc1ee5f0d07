"""A use case that is broken on purpose, in a server in this process: what its caller is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from easyml.v1 import project_service_pb2 as pb
from easyml_server.app import run_server
from easyml_server.domain.errors import Reason
from easyml_server.services.projects import ProjectService
from easyml_server.settings import Settings
from tests.integration.test_reasons import Scenario, holds
from tests.marks import limits
from tests.servers import Client, Refusal, refusal

pytestmark = pytest.mark.slow

CANARY = "canary-7f3a"


async def refused(folder: Path, **settings: Any) -> Refusal:
    """How GetProject is refused by a server with these settings."""
    async with run_server(Settings(port=0, data_dir=folder, **settings)) as running:
        with Client(running.address, running.folder.owner_key.read_text().strip()) as client:
            request = pb.GetProjectRequest(project_id=str(uuid4()))
            return await asyncio.to_thread(refusal, client.projects.GetProject, request)


async def test_a_defect_is_internal_and_tells_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError(f"{CANARY} at {tmp_path}")

    monkeypatch.setattr(ProjectService, "get", broken)
    said = await refused(tmp_path / "data")
    holds(said, Reason.INTERNAL, Scenario(lambda _: said))
    assert said.call_id in said.message
    assert not [word for word in (CANARY, str(tmp_path), "RuntimeError", "Traceback") if word in repr(said)]


@limits("DEFAULT_DEADLINE_SECONDS")
async def test_what_takes_longer_than_the_servers_own_deadline_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def never(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(ProjectService, "get", never)
    said = await refused(tmp_path / "data", default_deadline_seconds=0.1)
    holds(said, Reason.DEADLINE_EXCEEDED, Scenario(lambda _: said))
    assert ended.is_set()
