"""One pod of a node: what its containers have around them, and what the API hears of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path

from kubernetes.aio.client import CoreV1Api, V1Container, V1Pod
from kubernetes.aio.client.exceptions import ApiException

from tests.kubernetes.addresses import here
from tests.kubernetes.control_plane import MERGE
from tests.kubernetes.kubelet.causes import NotYet
from tests.kubernetes.kubelet.configuration import NOT_FOUND, Configuration
from tests.kubernetes.kubelet.containers import ContainerRun, Launch
from tests.kubernetes.kubelet.environment import expanded, variables_of
from tests.kubernetes.kubelet.images import Image, Images
from tests.kubernetes.kubelet.statuses import PodStatus, now
from tests.kubernetes.kubelet.volumes import Places, filled, mounted

PROGRAMS = Path(sys.executable).parent


class PodRun:
    """A pod from the time it was given to this node until its processes are gone."""

    def __init__(self, core: CoreV1Api, images: Images, pod: V1Pod, address: str, folder: Path) -> None:
        self.pod = pod
        self.address = address
        self.containers = {each.name: ContainerRun(pod, each, here(address), self) for each in pod.spec.containers}
        self._core = core
        self._images = images
        self._folder = folder
        self._configuration = Configuration(core, pod.metadata.namespace)
        self._status = PodStatus(address, [each.status for each in self.containers.values()])
        self._reporting = asyncio.Lock()

    async def run(self) -> None:
        """Returns when all containers ended for good."""
        self._folder.mkdir(parents=True, exist_ok=True)
        await asyncio.gather(*(each.run() for each in self.containers.values()))

    async def stop(self, seconds: float) -> None:
        """End its processes gracefully; `run` was cancelled before."""
        await asyncio.gather(*(each.stop(seconds) for each in self.containers.values()))
        self._clean()

    async def kill(self) -> None:
        """End its processes at once; `run` was cancelled before."""
        await asyncio.gather(*(each.kill() for each in self.containers.values()))
        self._clean()

    async def refresh(self) -> None:
        """Its volumes have what their ConfigMaps and Secrets have now."""
        await filled(self.pod.spec.volumes or [], self._folder / "volumes", self._configuration)

    async def launch(self, container: V1Container) -> Launch:
        if self.pod.spec.init_containers:
            raise NotYet("CreateContainerError", "this kubelet runs no init containers")
        image = self._image(container.image)
        volumes = await filled(self.pod.spec.volumes or [], self._folder / "volumes", self._configuration)
        places = Places(mounted(container, volumes), here(self.address))
        variables = await variables_of(self.pod, container, self.address, self._configuration)
        command = [expanded(word, variables) for word in _command(container, image)]
        environment = {
            "PATH": os.pathsep.join([str(PROGRAMS), os.environ["PATH"]]),
            "HOME": str(self._folder),
            "TMPDIR": places.real("/tmp"),
            **{name: places.real(value) for name, value in {**image.environment, **variables}.items()},
        }
        return Launch([places.real(word) for word in command], environment, self._folder)

    async def report(self) -> None:
        metadata = self.pod.metadata
        async with self._reporting:
            body = {"metadata": {"uid": metadata.uid}, "status": self._status.message()}
            await _if_there(
                self._core.patch_namespaced_pod_status(metadata.name, metadata.namespace, body, _content_type=MERGE)
            )

    async def say(self, kind: str, reason: str, message: str) -> None:
        metadata = self.pod.metadata
        involved = {"kind": "Pod", "apiVersion": "v1", "name": metadata.name, "namespace": metadata.namespace}
        event = {
            "metadata": {"generateName": f"{metadata.name}.", "namespace": metadata.namespace},
            "involvedObject": {**involved, "uid": metadata.uid},
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "source": {"component": "kubelet", "host": self.pod.spec.node_name},
        }
        await _if_there(self._core.create_namespaced_event(metadata.namespace, event))

    def _image(self, reference: str) -> Image:
        image = self._images.find(reference)
        if image is None:
            raise NotYet("ImagePullBackOff", f'Back-off pulling image "{reference}": not found')
        return image

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _command(container: V1Container, image: Image) -> Sequence[str]:
    """As Kubernetes has it: `command` takes the place of the entry point, and of the image's arguments too."""
    if container.command:
        return [*container.command, *(container.args or [])]
    return [*image.entrypoint, *(container.args or image.command)]


async def _if_there(asking: Awaitable[object]) -> None:
    """A pod or a namespace may be gone while something is said of it."""
    try:
        await asking
    except ApiException as error:
        if error.status != NOT_FOUND and not _ends(error):
            raise


def _ends(error: ApiException) -> bool:
    return "because it is being terminated" in str(error.body)
