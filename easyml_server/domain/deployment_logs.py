"""Lines that replicas write to their logs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z")
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a replica, and when it was written where it says that.

    So many lines before it were left out, because they came faster than they were read.
    """

    replica_id: UUID
    revision: int
    text: str
    time: datetime | None = None
    omitted: int = 0


def time_of(text: str) -> datetime | None:
    """The time in UTC that a line begins with."""
    found = _TIME.match(text)
    if found is None:
        return None
    try:
        return datetime.fromisoformat(found.group())
    except ValueError:
        return None


def by_time(lines: Iterable[LogLine]) -> list[LogLine]:
    """Those of all replicas by time, and those of each as they were; one without a time belongs to the one before."""
    latest: dict[UUID, datetime] = {}
    timed = []
    for line in lines:
        time = max(latest.get(line.replica_id, _EARLIEST), line.time or _EARLIEST)
        latest[line.replica_id] = time
        timed.append((time, line))
    return [line for _, line in sorted(timed, key=lambda each: each[0])]
