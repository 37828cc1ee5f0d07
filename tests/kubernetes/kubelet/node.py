"""A node: it runs the pods that the scheduler gives to it, and hands out their logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from kubernetes.aio.client import ApiClient, CoreV1Api, V1Pod
from kubernetes.aio.client.exceptions import ApiException

from tests.kubernetes import parts
from tests.kubernetes.control_plane import MERGE
from tests.kubernetes.events import objects
from tests.kubernetes.kubelet.configuration import NOT_FOUND
from tests.kubernetes.kubelet.images import Images
from tests.kubernetes.kubelet.log_server import Certificate, log_server
from tests.kubernetes.kubelet.pods import PodRun
from tests.kubernetes.kubelet.statuses import now

AMOUNTS = {"cpu": "64", "memory": "256Gi", "pods": "250"}
CONFLICT = 409


class Node:
    """Registered as long as it is open. `lose` and `find_again` are its faults."""

    def __init__(self, api: ApiClient, name: str, network: IPv4Network, folder: Path, images: Images) -> None:
        self.name = name
        self.runs: dict[str, PodRun] = {}
        self._core = CoreV1Api(api)
        self._folder = folder
        self._images = images
        self._network = network
        self._addresses: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._faults: list[BaseException] = []

    @asynccontextmanager
    async def open(self, certificate: Certificate) -> AsyncIterator[Node]:
        """A node for a while; nothing of it runs afterwards."""
        async with log_server(self.runs.values, certificate) as port:
            await self._register(port)
            self._watching = self._started(self._watch())
            try:
                yield self
            finally:
                await self._stop_all()

    async def lose(self) -> None:
        """The machine is gone with all that ran there, and its heartbeat has been missed for long enough."""
        await self._stop_all()
        await self._say_ready("Unknown", "NodeStatusUnknown")

    async def find_again(self) -> None:
        """It is back, and runs what is still meant for it."""
        await self._say_ready("True", "KubeletReady")
        self._watching = self._started(self._watch())

    async def send(self, namespace: str, pod: str, number: int) -> None:
        """A signal to the processes of a pod."""
        for run in self.runs.values():
            if (run.pod.metadata.namespace, run.pod.metadata.name) == (namespace, pod):
                for container in run.containers.values():
                    if container.process is not None:
                        container.process.send(number)

    async def refresh(self) -> None:
        """Volumes have what their ConfigMaps and Secrets have now; a real kubelet does this within a minute."""
        for run in list(self.runs.values()):
            await run.refresh()

    def check(self) -> None:
        """Raises what went wrong in here."""
        if self._faults:
            raise self._faults[0]

    async def _register(self, port: int) -> None:
        key, value = parts.PROCESSES.split("=")
        metadata = {"name": self.name, "labels": {"kubernetes.io/hostname": self.name, key: value}}
        await self._core.create_node({"metadata": metadata})
        status = {
            "capacity": AMOUNTS,
            "allocatable": AMOUNTS,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        await self._core.patch_node_status(self.name, {"status": status}, _content_type=MERGE)
        await self._say_ready("True", "KubeletReady")

    async def _say_ready(self, status: str, reason: str) -> None:
        condition = {"type": "Ready", "status": status, "reason": reason, "message": ""}
        times = {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
        body = {"status": {"conditions": [{**condition, **times}]}}
        await self._core.patch_node_status(self.name, body, _content_type=MERGE)

    async def _watch(self) -> None:
        where = f"spec.nodeName={self.name}"
        async for kind, pod in objects(self._core.list_pod_for_all_namespaces, field_selector=where):
            uid = pod.metadata.uid
            if kind == "DELETED" or pod.metadata.deletion_timestamp:
                self._begin_end(pod, gone=kind == "DELETED")
            elif uid not in self._tasks and pod.status.phase not in ("Succeeded", "Failed"):
                self._begin(pod)

    def _begin(self, pod: V1Pod) -> None:
        address = next(str(each) for each in self._network.hosts() if str(each) not in self._addresses)
        self._addresses.add(address)
        uid = pod.metadata.uid
        run = self.runs[uid] = PodRun(self._core, self._images, pod, address, self._folder / uid)
        self._tasks[uid] = self._started(run.run())

    def _begin_end(self, pod: V1Pod, *, gone: bool) -> None:
        """Once, and again at once where somebody does not want to wait for it any more."""
        uid = pod.metadata.uid
        if uid in self._ends and not gone:
            return
        if before := self._ends.pop(uid, None):
            before.cancel()
        self._ends[uid] = self._started(self._end(pod, gone=gone))

    async def _end(self, pod: V1Pod, *, gone: bool) -> None:
        metadata = pod.metadata
        if task := self._tasks.pop(metadata.uid, None):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if run := self.runs.get(metadata.uid):
            if gone:
                await run.kill()
            else:
                await run.say("Normal", "Killing", "Stopping containers")
                await run.stop(metadata.deletion_grace_period_seconds or 0)
            del self.runs[metadata.uid]
            self._addresses.discard(run.address)
        if gone:
            self._ends.pop(metadata.uid, None)
        else:
            await self._forget(pod)

    async def _forget(self, pod: V1Pod) -> None:
        """The API has it no more."""
        metadata, whom = pod.metadata, {"preconditions": {"uid": pod.metadata.uid}, "gracePeriodSeconds": 0}
        try:
            await self._core.delete_namespaced_pod(metadata.name, metadata.namespace, body=whom)
        except ApiException as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    def _started(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_fault)
        return task

    def _note_fault(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._faults.append(error)

    async def _stop_all(self) -> None:
        tasks = [task for task in (self._watching, *self._tasks.values(), *self._ends.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(run.kill() for run in self.runs.values()))
        self.runs.clear()
        self._tasks.clear()
        self._ends.clear()
        self._addresses.clear()
