"""Where the API server asks a node for the logs of its pods."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.kubernetes.kubelet.containers import ContainerRun
from tests.kubernetes.kubelet.logs import Log, Question
from tests.kubernetes.kubelet.pods import PodRun

Certificate = tuple[Path, Path]


@asynccontextmanager
async def log_server(pods: Callable[[], Iterable[PodRun]], certificate: Certificate) -> AsyncIterator[int]:
    """It runs; its port."""

    async def answer(request: web.Request) -> web.StreamResponse:
        question = Question.of(request.query)
        log = _log_of(_container(pods(), request.match_info), request.match_info, question)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for part in question.answer(log):
            await response.write(part)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", answer)
    async with served(app, certificate) as port:
        yield port


@asynccontextmanager
async def served(app: web.Application, certificate: Certificate) -> AsyncIterator[int]:
    """It answers over TLS; its port."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _container(pods: Iterable[PodRun], wanted: web.UrlMappingMatchInfo) -> ContainerRun:
    for run in pods:
        metadata = run.pod.metadata
        if (metadata.namespace, metadata.name) == (wanted["namespace"], wanted["pod"]):
            return run.containers[wanted["container"]]
    raise web.HTTPNotFound(text=f'pod "{wanted["pod"]}" not found')


def _log_of(container: ContainerRun, wanted: web.UrlMappingMatchInfo, question: Question) -> Log:
    """Of the start that runs or ran last, or of the one before."""
    name, pod = wanted["container"], wanted["pod"]
    waiting = container.status.state.get("waiting")
    if question.previous:
        # What waits to be started again has ended: its last start is the one before.
        before = -1 if waiting else -2
        if len(container.logs) < -before:
            raise web.HTTPBadRequest(text=f'previous terminated container "{name}" in pod "{pod}" not found')
        return container.logs[before]
    if not container.logs:
        reason = waiting["reason"] if waiting else "ContainerCreating"
        raise web.HTTPBadRequest(text=f'container "{name}" in pod "{pod}" is waiting to start: {reason}')
    return container.logs[-1]
