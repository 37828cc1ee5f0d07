"""Named points where a test can make this program fail, so that every state a crash can leave is tried on purpose.

EASYML_FAULT names a point, the time it is passed (the first if it does not say), and what happens there:
`upload.fsync@2=enospc`; a pattern such as `publish.*` means several points. `kill`, which is what happens when nothing
is said, and `stop` send the process SIGKILL and SIGSTOP; any other word is an error of the system. The value may also
be the path of a file with such a line: then it can be changed while processes run, `<path>.passed` counts for all of
them, and tells which points were passed when. Unset, which it is outside tests, a point costs an empty call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

FAULT_VARIABLE: Final = "EASYML_FAULT"
_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, and when."""

    points: str
    number: int
    action: str

    @classmethod
    def parse(cls, text: str) -> Fault:
        """From `<point>[@n][=action]`."""
        point, _, action = text.strip().partition("=")
        points, _, number = point.partition("@")
        return cls(points, int(number or 1), action or "kill")

    def strikes(self, passed: Sequence[str]) -> bool:
        """Whether the last of the points that were passed is the one where it happens."""
        matching = [fnmatchcase(point, self.points) for point in passed]
        return matching[-1] and sum(matching) == self.number

    def happen(self) -> None:
        """Kill or stop this process, or raise the error."""
        if self.action in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[self.action])
            return
        number = getattr(errno, self.action.upper())
        raise OSError(number, os.strerror(number))


class OneFault:
    """A fault of this process alone."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._passed: list[str] = []

    def __call__(self, point: str) -> None:
        """Pass a point."""
        self._passed.append(point)
        if self._fault.strikes(self._passed):
            self._fault.happen()


class SharedFault:
    """A fault that a file describes, counted over all processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passed = path.with_name(f"{path.name}.passed")

    def __call__(self, point: str) -> None:
        """Pass a point."""
        passed = self._note(point)
        text = self._path.read_text()
        if text and (fault := Fault.parse(text)).strikes(passed):
            fault.happen()

    def _note(self, point: str) -> Sequence[str]:
        with self._passed.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{time.monotonic()} {point}\n")
            file.seek(0)
            return [line.split()[1] for line in file]


def _nothing(_point: str) -> None:
    """Go on."""


def _armed(given: str) -> Callable[[str], None]:
    if not given:
        return _nothing
    return SharedFault(Path(given)) if os.sep in given else OneFault(Fault.parse(given))


fault_point = _armed(os.environ.get(FAULT_VARIABLE, ""))
"""Called with the name of a point where it is passed."""
