"""A full disk, in the words of the domain."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from easyml_server.domain.errors import LimitReached, Reason

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full() -> LimitReached:
    """The one sentence for a full disk."""
    return LimitReached("The server's disk is full; free some space and try again.", Reason.DISK_FULL)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise LimitReached (DISK_FULL) where the system says that the disk, a quota or a file is full."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full() from error
        raise
