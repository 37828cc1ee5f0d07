"""What is to go wrong in a server that runs, and how far it has come: the file that EASYML_FAULT names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

LONGEST_SECONDS = 120.0
POLL_SECONDS = 0.001


class FaultPlan:
    """Points that processes passed since the plan was last changed, and what happens at which."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._passed = path.with_name(f"{path.name}.passed")
        self.arm()

    def arm(self, fault: str = "") -> None:
        """This happens from now on, or nothing."""
        self._passed.unlink(missing_ok=True)
        self.path.write_text(fault)

    @property
    def times(self) -> list[tuple[float, str]]:
        """All points in the order they were passed, with the time."""
        if not self._passed.exists():
            return []
        lines = [line.split() for line in self._passed.read_text().splitlines()]
        return [(float(line[0]), line[1]) for line in lines if len(line) == 2]

    @property
    def points(self) -> list[str]:
        """All points in the order they were passed."""
        return [point for _, point in self.times]

    def wait_for(self, point: str) -> None:
        """Return when a point is passed."""
        until(lambda: point in self.points, point)


def until(happened: Callable[[], bool], what: str, longest: float = LONGEST_SECONDS) -> None:
    """Wait for what no other way tells."""
    last = time.monotonic() + longest
    while not happened():
        assert time.monotonic() < last, f"this did not happen: {what}"
        time.sleep(POLL_SECONDS)
