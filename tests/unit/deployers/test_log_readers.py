"""Logs that are read while they are written, cut off and removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from easyml_server.deployers import log_files
from easyml_server.deployers.log_files import LogFolder, bound, last_lines
from easyml_server.deployers.log_readers import BEHIND_BYTES, LINE_BYTES, MOST_LOGS, LogReaders

SECRET = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


class Revision:
    """A folder with logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def log(self, replica: UUID) -> Path:
        return self.folder / f"{replica}.log"

    def write(self, replica: UUID, text: str) -> None:
        with self.log(replica).open("a") as file:
            file.write(text)


@pytest.fixture
def revision(tmp_path: Path) -> Revision:
    return Revision(tmp_path / "revision")


@pytest.fixture
def readers(revision: Revision) -> Iterator[list[LogReaders]]:
    made: list[LogReaders] = []
    yield made
    for reader in made:
        reader.close()


def reader(revision: Revision, readers: list[LogReaders], tail_lines: int = 10) -> LogReaders:
    readers.append(LogReaders(lambda: [LogFolder(3, revision.folder)] if revision.folder.exists() else [], tail_lines))
    return readers[-1]


async def texts(reader: LogReaders) -> list[str]:
    return [line.text for line in await reader.read()]


async def test_the_last_lines_come_first_and_then_whole_new_ones(revision: Revision, readers: list[LogReaders]) -> None:
    replica = uuid4()
    revision.write(replica, "".join(f"line {number}\n" for number in range(50)))
    reading = reader(revision, readers, 2)
    assert await texts(reading) == ["line 48", "line 49"]
    assert await texts(reading) == []
    revision.write(replica, "begun, ")
    assert await texts(reading) == []
    revision.write(replica, "ended\n2026-01-02T03:04:05.5Z [info] timed\n")
    ended, timed = await reading.read()
    assert (ended.text, ended.time, ended.replica_id, ended.revision) == ("begun, ended", None, replica, 3)
    assert timed.time == datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC)
    assert await texts(reader(revision, readers, 0)) == []


async def test_lines_of_replicas_are_told_by_time_and_those_without_one_stay_where_they_are(
    revision: Revision, readers: list[LogReaders]
) -> None:
    one, other = uuid4(), uuid4()
    revision.write(one, "2026-01-01T00:00:01Z failed\nTraceback\n  detail\n2026-01-01T00:00:03Z again\n")
    revision.write(other, "2026-01-01T00:00:02Z elsewhere\n")
    assert await texts(reader(revision, readers)) == [
        "2026-01-01T00:00:01Z failed",
        "Traceback",
        "  detail",
        "2026-01-01T00:00:02Z elsewhere",
        "2026-01-01T00:00:03Z again",
    ]


async def test_replicas_that_come_are_read_from_their_first_line_and_those_that_go_to_their_last(
    revision: Revision, readers: list[LogReaders]
) -> None:
    here, later = uuid4(), uuid4()
    revision.write(here, "before\n")
    reading = reader(revision, readers, 0)
    assert await texts(reading) == []
    revision.write(later, "first\n")
    assert await texts(reading) == ["first"]
    revision.write(here, "last of one\n")
    revision.write(later, "last of other\n")
    shutil.rmtree(revision.folder)
    assert sorted(await texts(reading)) == ["last of one", "last of other"]
    assert await texts(reading) == []


async def test_a_log_that_is_cut_off_loses_no_line(
    revision: Revision, readers: list[LogReaders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "MAX_BYTES", 100)
    replica = uuid4()
    reading = reader(revision, readers)
    written = [f"line {number} with some more words" for number in range(40)]
    seen = []
    for number, line in enumerate(written):
        revision.write(replica, f"{line}\n")
        if number % 3 == 2:
            bound(revision.log(replica))
        if number % 4 == 0:
            seen += await texts(reading)
    seen += await texts(reading)
    assert seen == written
    assert await texts(reader(revision, readers, 6)) == written[-6:]


async def test_who_reads_too_slowly_is_told_how_many_lines_were_left_out(
    revision: Revision, readers: list[LogReaders]
) -> None:
    replica = uuid4()
    revision.write(replica, "first\n")
    reading = reader(revision, readers)
    assert await texts(reading) == ["first"]
    count = 2 * BEHIND_BYTES // 10
    revision.write(replica, "".join(f"{number:09d}\n" for number in range(count)))
    lines = []
    while more := await reading.read():
        lines += more
    assert lines[-1].text == f"{count - 1:09d}"
    assert lines[0].omitted == int(lines[0].text) > count // 2
    assert len(lines) + lines[0].omitted == count
    assert {line.omitted for line in lines[1:]} == {0}


async def test_long_lines_are_cut_and_what_is_no_text_or_a_secret_is_not_passed_on(
    revision: Revision, readers: list[LogReaders]
) -> None:
    replica = uuid4()
    reading = reader(revision, readers)
    revision.write(replica, "x" * 300_000)
    assert await texts(reading) == []
    revision.write(replica, f"\nAuthorization: Bearer {SECRET}\n")
    with revision.log(replica).open("ab") as file:
        file.write(b"\xff\xfe\r\n")
    long, secret, strange = await texts(reading) + await texts(reading)
    assert long == "x" * LINE_BYTES
    assert secret == "Authorization: Bearer [redacted]"
    assert strange == "\ufffd\ufffd"
    assert last_lines(revision.log(replica))[-2:] == (secret, strange)


async def test_of_many_logs_only_the_newest_are_read(revision: Revision, readers: list[LogReaders]) -> None:
    for _ in range(MOST_LOGS + 5):
        revision.write(uuid4(), "line\n")
    reading = reader(revision, readers)
    assert len(await reading.read()) == MOST_LOGS
    revision.write(uuid4(), "a new one\n")
    assert await texts(reading) == ["a new one"]
