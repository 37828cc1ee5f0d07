"""What a registry would have: which program an image starts, by the last part of its name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Image:
    """As a Dockerfile has it."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Images:
    """Which can be pulled; tests put others in, and take them away."""

    def __init__(self) -> None:
        self._known = {
            "easyml": Image(("easyml-server",), ("serve",), {"EASYML_HOST": "0.0.0.0", "EASYML_LOG_FORMAT": "json"}),
            "python": Image((sys.executable,)),
        }

    def put(self, name: str, image: Image) -> None:
        """Have it, whatever its tag."""
        self._known[name] = image

    def get(self, name: str) -> Image:
        """One that is there."""
        return self._known[name]

    def withdraw(self, name: str) -> None:
        """Have it no more: pods that start from now on wait for it."""
        del self._known[name]

    def find(self, reference: str) -> Image | None:
        """By registry.example/team/NAME:tag@sha256:digest."""
        return self._known.get(reference.partition("@")[0].rpartition("/")[2].partition(":")[0])
