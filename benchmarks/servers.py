"""A server of its own for a measurement."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MeasuredServer:
    """A server that was started for a measurement."""

    target: str
    process: subprocess.Popen[str]
    folder: Path
    ready_seconds: float

    @property
    def token(self) -> str:
        """The owner's key."""
        return (self.folder / "owner.key").read_text().strip()

    def memory_bytes(self) -> int:
        """Resident memory of the server process, now."""
        return memory_bytes(self.process.pid)


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[MeasuredServer]:
    """A server on a data folder, from before its start to after its end."""
    environment = {
        **os.environ,
        "EASYML_LOG_LEVEL": "warning",
        **{f"EASYML_{k.upper()}": v for k, v in settings.items()},
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "easyml_server", "serve", "--port", "0", "--data-dir", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    ready = time.perf_counter() - started
    if not line.startswith("READY "):
        raise SystemExit(f"the server did not start: {line}")
    try:
        yield MeasuredServer(line.split()[1], process, folder, ready)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
