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
from tempfile import NamedTemporaryFile

MOUNTS = Path("/proc/self/mounts")
ALONE = frozenset(("nolock", "local_lock=all", "local_lock=flock", "nobrl"))
"""Options of NFS and CIFS under which locks are this machine's own."""


class TakenError(Exception):
    """Somebody holds the lock."""


class NoLocksError(Exception):
    """The file system does not lock for all; the message is a sentence that says why."""


def check_locks(folder: Path) -> None:
    """Whether locks in a folder hold for all that mount it, as far as one machine can tell; NoLocksError if not."""
    place, options = _mount_of(folder)
    if alone := ALONE & options:
        raise NoLocksError(f"{place} is mounted with {', '.join(alone)}: flock holds on this machine only.")
    try:
        with NamedTemporaryFile(dir=folder, prefix="locks-") as first, Path(first.name).open("r+b") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
    except OSError as error:
        raise NoLocksError(f"The file system of {folder} does not know flock ({error.strerror}).") from error
    raise NoLocksError(f"The file system of {folder} lets two hold one lock.")


def _mount_of(folder: Path) -> tuple[str, frozenset[str]]:
    """Where the file system of a folder is mounted and with which options; nothing where nobody can be asked."""
    lines = MOUNTS.read_text().splitlines() if MOUNTS.exists() else []
    # A blank in a name is written as its octal number. Of two mounts at one place the later one is seen.
    mounts = [(fields[1].replace("\\040", " "), fields[3]) for fields in map(str.split, lines)]
    around = [mount for mount in mounts if folder.resolve().is_relative_to(mount[0])]
    place, options = max(reversed(around), key=lambda mount: len(mount[0]), default=("", ""))
    return place, frozenset(options.split(","))


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
