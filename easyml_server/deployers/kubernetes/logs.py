"""What pods write, asked of the API server, which asks the kubelet: line after line with the time of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from easyml_server.deployers.kubernetes.api import Away, KubernetesApi, Object, Refused
from easyml_server.deployers.kubernetes.names import NUMBER
from easyml_server.deployers.kubernetes.pods import CONTAINER
from easyml_server.deployers.log_files import LAST_LINES, LINE_CHARACTERS
from easyml_server.deployers.log_readers import LINE_BYTES
from easyml_server.domain.deployment_logs import LogLine, by_time
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.secrets import redacted

AT_ONCE_BYTES: Final = 1 << 20
"""Of each pod, in one look."""
RETRY_SECONDS: Final = 2.0


class PodLogs:
    """Fulfils `ports.deployer.LogReader`."""

    def __init__(self, api: KubernetesApi, pods: Callable[[], Sequence[Object]], tail_lines: int) -> None:
        """`pods` are those of the deployment now."""
        self._api = api
        self._pods = pods
        self._tail_lines: int | None = tail_lines
        # The time of the last line of each pod, as the kubelet wrote it.
        self._read: dict[UUID, str] = {}

    async def read(self) -> Sequence[LogLine]:
        """See LogReader. Raises Unavailable."""
        pods = self._pods()
        try:
            read = await asyncio.gather(*(self._read_pod(pod) for pod in pods))
        except (Away, Refused) as error:
            raise Unavailable(
                f"The logs of the cluster cannot be read just now: {error}", retry_after=RETRY_SECONDS
            ) from error
        self._tail_lines = None
        return by_time([line for lines in read for line in lines])

    def close(self) -> None:
        """See LogReader."""
        self._read.clear()

    async def _read_pod(self, pod: Object) -> list[LogLine]:
        identity, number = UUID(pod["metadata"]["uid"]), int(pod["metadata"]["labels"][NUMBER])
        query = {"container": CONTAINER, "timestamps": "true", "limitBytes": str(AT_ONCE_BYTES)}
        last = self._read.get(identity, "")
        if last:
            # Of whole seconds: lines of that second come again, and are known by their times.
            query["sinceTime"] = last[:19] + "Z"
        elif self._tail_lines is not None:
            query["tailLines"] = str(self._tail_lines)
        lines = []
        for text in (await self._api.log(pod["metadata"]["name"], query)).decode(errors="replace").splitlines():
            time, _, said = text.partition(" ")
            if time > last:
                self._read[identity] = time
                lines.append(LogLine(identity, number, redacted(said[:LINE_BYTES]), _time(time)))
        return lines


async def last_lines(api: KubernetesApi, pod: Object, *, previous: bool) -> tuple[str, ...]:
    """What its container said last; nothing where nobody knows any more. Raises Away and Refused."""
    query = {"container": CONTAINER, "tailLines": str(LAST_LINES)} | ({"previous": "true"} if previous else {})
    said = await api.log(pod["metadata"]["name"], query)
    return tuple(redacted(line[:LINE_CHARACTERS]) for line in said.decode(errors="replace").splitlines()[-LAST_LINES:])


def _time(text: str) -> datetime | None:
    """With microseconds: those that kubelets write are cut."""
    try:
        return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        return None
