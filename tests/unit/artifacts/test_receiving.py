"""What counts as safe when the disk says no."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from easyml_server.artifacts.receiving import BATCH_BYTES, Receiver, open_at
from easyml_server.domain.errors import LimitReached, Reason


def a_full_disk() -> BinaryIO:
    return Path("/dev/full").open("wb")


async def test_bytes_that_could_not_be_flushed_are_not_safe_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail(_descriptor: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_at(tmp_path / "upload", 0) as file:
        receiver = Receiver(file, 0)
        await receiver.take(b"x" * 10)
        assert await receiver.sync() == 10
        monkeypatch.setattr(os, "fsync", fail)
        await receiver.take(b"y" * 10)
        with pytest.raises(LimitReached) as refused:
            await receiver.sync()
        assert refused.value.reason is Reason.DISK_FULL
        assert await receiver.sync() == 10
    assert calls == 1


async def test_bytes_that_could_not_be_written_are_not_safe() -> None:
    with a_full_disk() as full:
        receiver = Receiver(full, 0)
        with pytest.raises(LimitReached):
            await receiver.take(b"x" * BATCH_BYTES)
        assert await receiver.sync() == 0


async def test_what_lies_behind_the_safe_bytes_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"safe, and torn")
    with open_at(path, 4) as file:
        receiver = Receiver(file, 4)
        await receiver.take(b"ty")
        assert await receiver.sync() == 6
    assert path.read_bytes() == b"safety"
