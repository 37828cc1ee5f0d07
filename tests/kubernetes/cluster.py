"""The whole: a control plane, two nodes and a proxy for Services, in a thread of their own with a loop of its own.

Tests of any kind use it, with a loop or without one; what it does is asked for through plain methods.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient

from tests.kubernetes.addresses import network
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.kubelet.images import Images
from tests.kubernetes.kubelet.node import Node
from tests.kubernetes.metrics import Metrics
from tests.kubernetes.service_proxy import ServiceProxy

NODES = ("node-a", "node-b")
CALL_SECONDS = 60.0
T = TypeVar("T")


class Cluster:
    """`plane` is the API; `images` what can be pulled; the methods are what happens to nodes and pods."""

    def __init__(self, plane: ControlPlane, loop: asyncio.AbstractEventLoop, api: ApiClient) -> None:
        self.plane = plane
        self.images = Images()
        self._loop = loop
        self._api = api
        self._nodes: dict[str, Node] = {}
        self._proxy = ServiceProxy(api)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Cluster]:
        """Everything that stands in for machines runs."""
        # Half of the addresses that are this control plane's alone for each node.
        networks = network(self.plane.place.api_port).subnets(new_prefix=24)
        async with AsyncExitStack() as stack:
            for name, own in zip(NODES, networks, strict=True):
                node = Node(self._api, name, own, self.plane.place.folder / name, self.images)
                self._nodes[name] = await stack.enter_async_context(node.open(self.plane.place.certificate))
            await stack.enter_async_context(self._proxy.open())
            yield self

    def lose(self, node: str) -> None:
        """A machine is gone."""
        self._run(self._nodes[node].lose())

    def find_again(self, node: str) -> None:
        """A machine is back."""
        self._run(self._nodes[node].find_again())

    def send(self, namespace: str, pod: str, number: int) -> None:
        """A signal to the processes of a pod."""
        for node in self._nodes.values():
            self._run(node.send(namespace, pod, number))

    def refresh(self) -> None:
        """What changed in ConfigMaps and Secrets is in the volumes of pods."""
        for node in self._nodes.values():
            self._run(node.refresh())

    @contextmanager
    def metrics(self) -> Iterator[Metrics]:
        """The cluster has a metrics server for a while."""
        with _entered(self._loop, Metrics(self._api).open(self.plane.place.certificate)) as metrics:
            yield metrics

    def check(self) -> None:
        """Raises what went wrong in a stand-in, which is a fault of its own."""
        for each in (*self._nodes.values(), self._proxy):
            each.check()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)


@contextmanager
def running_cluster(plane: ControlPlane) -> Iterator[Cluster]:
    """It runs for a while."""
    with _a_loop() as loop, _entered(loop, _opened(plane, loop)) as found:
        yield found
        found.check()


@asynccontextmanager
async def _opened(plane: ControlPlane, loop: asyncio.AbstractEventLoop) -> AsyncIterator[Cluster]:
    api = await config.new_client_from_config(str(plane.kubeconfig()))
    async with api, Cluster(plane, loop, api).open() as found:
        yield found


@contextmanager
def _a_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """In a thread, as long as somebody needs it."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = CALL_SECONDS
    thread = threading.Thread(target=loop.run_forever, name="cluster")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def _entered(loop: asyncio.AbstractEventLoop, work: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """An asynchronous context in the loop of another thread."""
    found = asyncio.run_coroutine_threadsafe(work.__aenter__(), loop).result(CALL_SECONDS)
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(work.__aexit__(None, None, None), loop).result(CALL_SECONDS)
