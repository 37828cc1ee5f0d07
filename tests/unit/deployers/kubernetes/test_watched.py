"""A view of a kind on an API server of a few lines, which says what a real one rarely does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from easyml_server.deployers.kubernetes.api import SERVICES, Client, KubernetesApi
from easyml_server.deployers.kubernetes.watched import Watched

SECONDS = 30


def an_object(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


class Server:
    """Answers lists and watches by what was put there, in order; then each waits."""

    def __init__(self) -> None:
        self.lists: list[Any] = []
        self.watches: list[list[Any]] = []
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.asked.append("list")
            said = self.lists.pop(0)
            return said if isinstance(said, web.Response) else web.json_response(said)
        self.asked.append(f"watch {request.query['resourceVersion']}")
        response = web.StreamResponse()
        await response.prepare(request)
        if not self.watches:
            await asyncio.Event().wait()
        for event in self.watches.pop(0):
            text = event if isinstance(event, bytes) else json.dumps(event).encode()
            await response.write(text + b"\n")
        return response


@asynccontextmanager
async def watching(server: Server) -> AsyncIterator[tuple[Watched, list[tuple[str, bool]]]]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/models/services", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def connect() -> Client:
        from kubernetes.aio import client

        return client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))

    api = KubernetesApi(connect, "models")
    told: list[tuple[str, bool]] = []
    watched = Watched(
        api, SERVICES, {}, lambda found, gone: told.append((found["metadata"]["name"], gone)), lambda: None
    )
    running = asyncio.create_task(watched.run())
    try:
        yield watched, told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await api.aclose()
        await runner.cleanup()


async def until(server: Server, asked: list[str]) -> None:
    async with asyncio.timeout(SECONDS):
        while server.asked != asked:  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.02)


async def test_a_watch_goes_on_where_it_ended() -> None:
    server = Server()
    server.lists = [{"metadata": {"resourceVersion": "5"}, "items": [an_object("a", 3)]}]
    server.watches = [
        [
            {"type": "ADDED", "object": an_object("b", 6)},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
        ],
        [{"type": "DELETED", "object": an_object("a", 10)}],
    ]
    async with watching(server) as (watched, told):
        await until(server, ["list", "watch 5", "watch 9", "watch 10"])
    assert told == [("a", False), ("b", False), ("a", True)]
    assert list(watched.objects) == ["b"]
    assert watched.trouble is None


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}},
        {"type": "ADDED", "object": {}},
        b"<html>",
    ],
)
async def test_what_was_missed_is_listed_again_and_what_is_gone_is_told(broken: object) -> None:
    server = Server()
    server.lists = [
        {"metadata": {"resourceVersion": "5"}, "items": [an_object("a", 3), an_object("b", 4)]},
        {"metadata": {"resourceVersion": "20"}, "items": [an_object("b", 4), an_object("c", 15)]},
    ]
    server.watches = [[broken]]
    async with watching(server) as (watched, told):
        await until(server, ["list", "watch 5", "list", "watch 20"])
        assert watched.trouble is None
    assert told[:2] == [("a", False), ("b", False)]
    assert told[2:] == [("a", True), ("b", False), ("c", False)]
    assert set(watched.objects) == {"b", "c"}


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_trouble_lasts_until_it_is_over(status: int) -> None:
    server = Server()
    refusal = {"message": "not now", "reason": "Because"}
    wrong = [web.json_response(refusal, status=status) for _ in range(2 if status == 401 else 1)]
    server.lists = [*wrong, {"metadata": {"resourceVersion": "5"}, "items": None}]
    asked = ["list"] * len(server.lists) + ["watch 5"]
    async with watching(server) as (watched, _):
        await until(server, asked)
        assert watched.synced.is_set()
        assert watched.trouble is None
