"""What the kubelet says of a pod and its containers, in the words of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client import V1Container

NOT_READY = {"reason": "ContainersNotReady", "message": "containers with unready status"}


def now() -> str:
    """A time of the API."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerStatus:
    """Of one container; `state` and `last` are waiting, running or terminated."""

    container: V1Container
    state: Mapping[str, Any] = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Mapping[str, Any] = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0

    @property
    def exit_code(self) -> int | None:
        """Once it ended for good."""
        return self.state["terminated"]["exitCode"] if "terminated" in self.state else None

    @property
    def begun(self) -> bool:
        """Whether it ran at all."""
        return bool(self.last) or "waiting" not in self.state

    def message(self) -> dict[str, Any]:
        """As the API has it; each state is told whole, the others are taken away."""
        return {
            "name": self.container.name,
            "image": self.container.image,
            "imageID": "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }


class PodStatus:
    """Of a pod on a node; conditions keep the time of their last change."""

    def __init__(self, address: str, containers: Sequence[ContainerStatus]) -> None:
        self._address = address
        self._containers = containers
        self._begun = now()
        self._conditions: dict[str, dict[str, Any]] = {}
        self._set("PodScheduled", True, {})

    def message(self) -> dict[str, Any]:
        """The patch of its status."""
        phase = self._phase()
        ready = all(each.ready for each in self._containers)
        done = {"reason": "PodCompleted"} if phase == "Succeeded" else NOT_READY
        self._set("PodReadyToStartContainers", True, {})
        self._set("Initialized", True, {})
        self._set("ContainersReady", ready, done)
        self._set("Ready", ready, done)
        return {
            "phase": phase,
            "hostIP": "127.0.0.1",
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "startTime": self._begun,
            "conditions": list(self._conditions.values()),
            "containerStatuses": [each.message() for each in self._containers],
        }

    def _phase(self) -> str:
        codes = [each.exit_code for each in self._containers]
        if None not in codes:
            return "Failed" if any(codes) else "Succeeded"
        return "Running" if all(each.begun for each in self._containers) else "Pending"

    def _set(self, kind: str, holds: bool, otherwise: Mapping[str, str]) -> None:
        status = "True" if holds else "False"
        before = self._conditions.get(kind)
        since = before["lastTransitionTime"] if before and before["status"] == status else now()
        details = {} if holds else otherwise
        self._conditions[kind] = {"type": kind, "status": status, "lastTransitionTime": since, **details}
