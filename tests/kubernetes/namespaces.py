"""A namespace as people have it in hand: with kubectl, and by looking at pods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.control_plane import ControlPlane
from tests.servers import eventually

LONG_SECONDS = 100


@dataclass(frozen=True)
class Namespace:
    """By its name; `pod`, `container` and `ended` are for those in which there is one pod of one container."""

    plane: ControlPlane
    name: str

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """What it prints; it must succeed."""
        done = self.plane.kubectl("-n", self.name, *arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Have these objects."""
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", given=given)

    def rolled_out(self, deployment: str) -> None:
        """Returns once its pods are available."""
        where = ("-n", self.name, "rollout", "status", f"deployment/{deployment}", f"--timeout={LONG_SECONDS}s")
        assert self.plane.kubectl(*where).returncode == 0, self.plane.described(self.name)

    def get(self, kind: str, name: str = "") -> Any:
        """An object of the core API, or the list of all."""
        return self.plane.call("GET", f"/api/v1/namespaces/{self.name}/{kind}/{name}".rstrip("/"))

    def pods(self) -> list[dict[str, Any]]:
        """As they are now."""
        return list(self.get("pods")["items"])

    def pod(self) -> str:
        """Its name."""
        (found,) = self.pods()
        return str(found["metadata"]["name"])

    def container(self) -> dict[str, Any]:
        """Its status; empty if there is none yet."""
        statuses = [status for pod in self.pods() for status in pod["status"].get("containerStatuses", ())]
        return dict(statuses[0]) if statuses else {}

    def ended(self) -> dict[str, Any]:
        """How it ended the last time."""
        return dict(self.container().get("lastState", {}).get("terminated", {}))

    def waits(self, reason: str, word: str) -> str:
        """The message, once the container waits for that reason, and says so with that word."""

        def look() -> str:
            waiting = self.container().get("state", {}).get("waiting", {})
            message = str(waiting.get("message", ""))
            return message if waiting.get("reason") == reason and word in message else ""

        return eventually(look)
