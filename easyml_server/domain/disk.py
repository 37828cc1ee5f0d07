"""A disk that takes nothing more, in the words of the domain."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from easyml_server.domain.errors import LimitReached, Reason, Unavailable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RETRY_SECONDS = 5.0


def disk_full() -> LimitReached:
    """The one sentence for a full disk."""
    return LimitReached("The server's disk is full; free some space and try again.", Reason.DISK_FULL)


def disk_broken() -> Unavailable:
    """The one sentence for a disk that fails."""
    return Unavailable(
        "The server's disk cannot be written just now; try again, and look after the disk if it stays so.",
        retry_after=RETRY_SECONDS,
        metadata={"part": "disk"},
    )


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise LimitReached (DISK_FULL) where the disk, a quota or a file is full, Unavailable where the disk fails."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full() from error
        if error.errno == errno.EIO:
            raise disk_broken() from error
        raise
