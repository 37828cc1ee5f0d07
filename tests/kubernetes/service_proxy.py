"""A kube-proxy: each port of a Service listens at its cluster address and hands connections to ready pods in turn.

The address is 127.x where the API shows 10.x (`addresses`). A port below 1024 needs root, and ports are those that a
Service is made with. A connection stays where it went, as on a real cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count

from kubernetes.aio.client import ApiClient, CoreV1Api, DiscoveryV1Api, V1EndpointSlice, V1Service

from tests.kubernetes.addresses import here
from tests.kubernetes.events import objects

CHUNK = 64 * 1024
SERVICE_NAME = "kubernetes.io/service-name"
Key = tuple[str, str]
"""Namespace and name."""
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class ServiceProxy:
    """What it knows of Services, and where it listens for them."""

    def __init__(self, api: ApiClient) -> None:
        self._core = CoreV1Api(api)
        self._discovery = DiscoveryV1Api(api)
        self._slices: dict[Key, V1EndpointSlice] = {}
        self._servers: dict[Key, list[asyncio.Server]] = {}
        self._forwarding: set[asyncio.Task[None]] = set()
        self._watching: list[asyncio.Task[None]] = []
        self._turn = count()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ServiceProxy]:
        """It forwards for a while."""
        self._watching = [asyncio.create_task(each()) for each in (self._watch_slices, self._watch_services)]
        try:
            yield self
        finally:
            for key in list(self._servers):
                self._close(key)
            tasks = [*self._watching, *self._forwarding]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises what went wrong in here."""
        for task in self._watching:
            if task.done() and not task.cancelled():
                task.result()

    async def _watch_slices(self) -> None:
        async for kind, found in objects(self._discovery.list_endpoint_slice_for_all_namespaces):
            key = (found.metadata.namespace, found.metadata.name)
            if kind == "DELETED":
                self._slices.pop(key, None)
            else:
                self._slices[key] = found

    async def _watch_services(self) -> None:
        async for kind, service in objects(self._core.list_service_for_all_namespaces):
            key = (service.metadata.namespace, service.metadata.name)
            if kind == "DELETED":
                self._close(key)
            elif key not in self._servers and key != ("default", "kubernetes"):
                await self._listen(key, service)

    async def _listen(self, key: Key, service: V1Service) -> None:
        if service.spec.cluster_ip in (None, "", "None"):
            return
        self._servers[key] = [
            await asyncio.start_server(self._forwarder(key, port.name), here(service.spec.cluster_ip), port.port)
            for port in service.spec.ports
        ]

    def _close(self, key: Key) -> None:
        for server in self._servers.pop(key, ()):
            server.close()

    def _forwarder(self, key: Key, port_name: str | None) -> Callable[[Reader, Writer], None]:
        def forward(reader: Reader, writer: Writer) -> None:
            task = asyncio.create_task(self._forward(key, port_name, reader, writer))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)

        return forward

    async def _forward(self, key: Key, port_name: str | None, reader: Reader, writer: Writer) -> None:
        targets = list(self._targets(key, port_name))
        try:
            if targets:
                host, port = targets[next(self._turn) % len(targets)]
                await _joined(reader, writer, host, port)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _targets(self, key: Key, port_name: str | None) -> Iterator[tuple[str, int]]:
        for (namespace, _), found in self._slices.items():
            if (namespace, (found.metadata.labels or {}).get(SERVICE_NAME)) != key:
                continue
            for port in found.ports or []:
                for endpoint in found.endpoints or []:
                    if (port.name or None) == (port_name or None) and endpoint.conditions.ready:
                        yield here(endpoint.addresses[0]), port.port


async def _joined(reader: Reader, writer: Writer, host: str, port: int) -> None:
    """Until the pod ends the connection, or it is lost; then both ways end."""
    with suppress(OSError):
        back_reader, back_writer = await asyncio.open_connection(host, port)
        there = asyncio.create_task(_pump(reader, back_writer))
        try:
            await _pump(back_reader, writer)
        finally:
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
            back_writer.close()
            with suppress(OSError):
                await back_writer.wait_closed()


async def _pump(source: Reader, sink: Writer) -> None:
    with suppress(OSError):
        while content := await source.read(CHUNK):
            sink.write(content)
            await sink.drain()
        sink.write_eof()
