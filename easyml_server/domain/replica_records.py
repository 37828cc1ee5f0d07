"""How a process that outlives the server is found again: a file that names it, locked as long as it lives.

The kernel drops the lock when the process ends, however it ends; so a process id that now belongs to another program
is never mistaken for it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A process, where it answers, and where it tells what it counts (host:port; empty if nowhere)."""

    address: str
    pid: int
    metrics_address: str = ""


def hold(path: Path, address: str, metrics_address: str) -> int:
    """Write the record of this process and lock it until it ends; the descriptor that holds the lock."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    record = ReplicaRecord(address, os.getpid(), metrics_address)
    os.write(descriptor, json.dumps(asdict(record)).encode())
    draft.rename(path)
    return descriptor


def find_living(path: Path) -> ReplicaRecord | None:
    """The process of a record, if it lives; None also where there is no record."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ReplicaRecord(**json.loads(os.read(descriptor, 4096)))
    else:
        return None
    finally:
        os.close(descriptor)
