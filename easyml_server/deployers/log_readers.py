"""The logs of a deployment's replicas, read on while they are written; also those of replicas that come and go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from easyml_server.deployers.log_files import LogFolder, older_of
from easyml_server.domain.deployment_logs import LogLine, by_time, time_of
from easyml_server.domain.secrets import redacted

LINE_BYTES: Final = 8 * 1024
TAIL_BYTES: Final = 1 << 20
"""Of each log, from which the last lines come."""
BEHIND_BYTES: Final = 1 << 20
"""A reader who is further behind goes on near the end."""
READ_BYTES: Final = 256 * 1024
MOST_LOGS: Final = 100
"""Those written last, of replicas that were there before."""


class LogReaders:
    """Fulfils `ports.deployer.LogReader`."""

    def __init__(self, folders: Callable[[], Iterable[LogFolder]], tail_lines: int) -> None:
        """`folders` are the revisions that have logs now."""
        self._folders = folders
        self._tail_lines = tail_lines
        self._logs: dict[Path, _Log] = {}
        self._left_out: set[Path] | None = None

    async def read(self) -> Sequence[LogLine]:
        """See LogReader."""
        return await asyncio.to_thread(self._read, list(self._folders()))

    def close(self) -> None:
        """See LogReader."""
        for log in self._logs.values():
            log.close()

    def _read(self, folders: Sequence[LogFolder]) -> list[LogLine]:
        lines = []
        first = self._left_out is None
        self._find(folders)
        for path, log in list(self._logs.items()):
            if first:
                lines += log.last(self._tail_lines)
            lines += log.read()
            if not path.exists():
                # What was written last can still be read.
                while more := log.read():
                    lines += more
                log.close()
                del self._logs[path]
        return by_time(lines)

    def _find(self, folders: Sequence[LogFolder]) -> None:
        found = {path: folder for folder in folders for path in folder.logs()}
        if self._left_out is None:
            written = sorted(found, key=_written)
            self._left_out = set(written[:-MOST_LOGS])
        for path, folder in found.items():
            if path not in self._logs and path not in self._left_out:
                with suppress(OSError):
                    self._logs[path] = _Log(path, folder.number)


class _Log:
    """One log, which stays readable when it is removed."""

    def __init__(self, path: Path, revision: int) -> None:
        self._file = path.open("rb")
        self._older = older_of(path)
        self._replica_id = UUID(path.stem)
        self._revision = revision
        self._position = 0
        self._begun = b""
        self._omitted = 0

    def last(self, count: int) -> list[LogLine]:
        """The last lines there are; reading goes on after them."""
        self._position = self._size()
        texts, whole = self._tail(self._file.fileno(), self._position)
        self._begun = texts.pop() if texts else b""
        if whole and len(texts) < count:
            with suppress(OSError), self._older.open("rb") as older:
                before, _ = self._tail(older.fileno(), older.seek(0, os.SEEK_END))
                texts = [*before[:-1], *texts]
        return self._lines(texts[-count:] if count else [])

    def read(self) -> list[LogLine]:
        """What came since, at most so much at a time."""
        data = self._rest_of_older() if self._size() < self._position else b""
        self._catch_up()
        data += self._next(READ_BYTES)
        *texts, begun = (self._begun + data).split(b"\n")
        self._begun = begun[:LINE_BYTES]
        return self._lines(texts)

    def close(self) -> None:
        self._file.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _next(self, most: int) -> bytes:
        data = os.pread(self._file.fileno(), most, self._position)
        self._position += len(data)
        return data

    def _tail(self, descriptor: int, size: int) -> tuple[list[bytes], bool]:
        """The last lines, the very last of which may have only begun, and whether they are all."""
        start = max(0, size - TAIL_BYTES)
        texts = os.pread(descriptor, size - start, start).split(b"\n")
        return (texts, True) if start == 0 else (texts[1:], False)

    def _rest_of_older(self) -> bytes:
        """The log was cut off; what had not been read yet lies beside it."""
        position, self._position = self._position, 0
        try:
            with self._older.open("rb") as older:
                older.seek(position)
                return older.read(BEHIND_BYTES)
        except OSError:
            return b""

    def _catch_up(self) -> None:
        """Leave out what is too far behind, up to the beginning of a line."""
        behind = self._size() - self._position
        if behind <= BEHIND_BYTES:
            return
        end = self._position + behind - READ_BYTES
        self._begun = b""
        while self._position < end:
            self._omitted += self._next(min(READ_BYTES, end - self._position)).count(b"\n")
        while line_goes_on := self._next(LINE_BYTES):
            ended = line_goes_on.find(b"\n")
            if ended >= 0:
                self._omitted += 1
                self._position -= len(line_goes_on) - ended - 1
                break

    def _lines(self, texts: Iterable[bytes]) -> list[LogLine]:
        return [self._line(text) for text in texts]

    def _line(self, raw: bytes) -> LogLine:
        text = redacted(raw.rstrip(b"\r")[:LINE_BYTES].decode(errors="replace"))
        omitted, self._omitted = self._omitted, 0
        return LogLine(self._replica_id, self._revision, text, time_of(text), omitted)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
