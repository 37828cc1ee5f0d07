"""What a container wrote, line by line, for those who ask by the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

Line = tuple[datetime, bytes]


class Log:
    """Of one start of a container."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.ended = False
        self._news = asyncio.Event()

    def write(self, text: bytes) -> None:
        """A line, with its end."""
        self.lines.append((datetime.now(UTC), text))
        self._tell()

    def end(self) -> None:
        """There will be no more."""
        self.ended = True
        self._tell()

    def tail(self, lines: int, characters: int) -> str:
        """The end of it."""
        text = b"".join(line for _, line in self.lines[-lines:]).decode(errors="replace")
        return text[-characters:]

    async def read(self, since: datetime | None, last: int | None, *, follow: bool) -> AsyncIterator[Line]:
        """The last so many lines since a time, and with `follow` all that come until the container ends."""
        found = [line for line in self.lines if since is None or line[0] >= since]
        position = len(self.lines)
        for line in found if last is None else found[max(0, len(found) - last) :]:
            yield line
        while follow:
            ended, news = self.ended, self._news
            for line in list(islice(self.lines, position, None)):
                position += 1
                yield line
            if ended and position == len(self.lines):
                return
            if position == len(self.lines):
                await news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


@dataclass(frozen=True)
class Question:
    """What the API server asks of a log."""

    follow: bool
    previous: bool
    timestamps: bool
    last: int | None
    since: datetime | None
    bytes: int | None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Question:
        """By the names of the API."""
        since = datetime.fromisoformat(query["sinceTime"]) if "sinceTime" in query else None
        if "sinceSeconds" in query:
            since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
        return cls(
            follow=query.get("follow") == "true",
            previous=query.get("previous") == "true",
            timestamps=query.get("timestamps") == "true",
            last=int(query["tailLines"]) if "tailLines" in query else None,
            since=since,
            bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
        )

    async def answer(self, log: Log) -> AsyncIterator[bytes]:
        """The lines as they are sent."""
        left = self.bytes
        async for time, text in log.read(self.since, self.last, follow=self.follow):
            line = f"{time.isoformat(timespec='microseconds').replace('+00:00', '000Z')} ".encode() + text
            part = (line if self.timestamps else text)[:left]
            yield part
            if left is not None:
                left -= len(part)
                if not left:
                    return
