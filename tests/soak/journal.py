"""What clients asked and what they were told, as JSON lines: one before each call, one after it.

A call without a second line was cut off with its client; like one that was not answered, it may have happened.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4

from easyml_client.errors import DeadlineExceeded, EasyMLError, Unavailable

ANSWERED, REFUSED, UNKNOWN, LEFT, BROKEN = "answered", "refused", "unknown", "left", "broken"
"""LEFT: the client did not want to hear the end. BROKEN: no refusal of the server, but a defect of the client."""


class LeftEarly(Exception):
    """The client goes away in the middle of a call."""


@dataclass(frozen=True)
class Call:
    """One call; what of it was not answered may have happened, then or later."""

    id: str
    client: str
    kind: str
    asked: Mapping[str, Any]
    begin: float
    end: float = inf
    outcome: str = UNKNOWN
    told: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    message: str = ""

    @property
    def answered(self) -> bool:
        """Whether the client was told that it happened."""
        return self.outcome == ANSWERED

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


class Journal:
    """One client's; `counted` is told the kind and outcome of each call."""

    def __init__(self, folder: Path, client: str, counted: Callable[[str, str], object]) -> None:
        self._file = (folder / f"{client}.jsonl").open("a", encoding="utf-8")
        self._client = client
        self._counted = counted

    @contextmanager
    def call(self, kind: str, **asked: Any) -> Iterator[dict[str, Any]]:
        """The block makes the call and notes what it is told."""
        identity, told = str(uuid4()), dict[str, Any]()
        self._write(id=identity, client=self._client, kind=kind, asked=asked, begin=time.monotonic())
        outcome, reason, message = ANSWERED, "", ""
        try:
            yield told
        except LeftEarly:
            outcome = LEFT
            raise
        except EasyMLError as error:
            outcome = UNKNOWN if isinstance(error, Unavailable | DeadlineExceeded) else REFUSED
            reason, message = error.reason, f"{error.message} ({error.call_id})"
            raise
        except BaseException as error:
            outcome, reason, message = BROKEN, type(error).__name__, str(error)
            raise
        finally:
            ending = {"outcome": outcome, "told": told, "reason": reason, "message": message}
            self._write(id=identity, end=time.monotonic(), **ending)
            self._counted(kind, outcome if not reason else f"{outcome}: {reason}")

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()

    def _write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class Tally:
    """How many calls of each kind came to what, so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, kind: str, outcome: str) -> None:
        """One more."""
        with self._lock:
            outcomes = self._counts.setdefault(kind, {})
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    def counts(self) -> dict[str, dict[str, int]]:
        """By kind and outcome."""
        with self._lock:
            return {kind: dict(sorted(outcomes.items())) for kind, outcomes in sorted(self._counts.items())}


def read_journals(folder: Path) -> list[Call]:
    """All calls of all clients, in the order in which they began."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in _lines(path):
            found.setdefault(line["id"], {}).update(line)
    return sorted((Call(**values) for values in found.values()), key=lambda call: call.begin)


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
