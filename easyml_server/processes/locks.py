"""Locks that end with the process that holds them, for servers that share a folder of files.

A lock is a file that exists while it is held, or until somebody finds it left behind by a crash. The file system must
know flock between all servers that mount it, as local disks and NFS 4 do.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TakenError(Exception):
    """Somebody holds the lock."""


@contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock; TakenError if somebody else does, in this process or another, unless it is to `wait` for them."""
    descriptor = _take(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        # While it is held: whoever opened the file meanwhile sees that it is no longer the one at this path.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, operation: int) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise TakenError(path.name) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
