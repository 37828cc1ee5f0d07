"""Start on an existing data folder: time to READY, and resident memory then. Budget: 2 s, 150 MB."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.report import Figure, Measured, Say
from benchmarks.servers import serving

RUNS = 5


def measure(say: Say) -> Measured:
    seconds, memory = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "data")
        with serving(folder):
            pass
        for run in range(RUNS):
            with serving(folder) as server:
                seconds.append(server.ready_seconds)
                memory.append(server.memory_bytes() / 1e6)
            say(f"start {run + 1} of {RUNS}: {seconds[-1]:.2f} s, {memory[-1]:.0f} MB")
    return Measured(
        [
            Figure("start on an existing data folder, to READY", statistics.median(seconds), "s", at_most=2),
            Figure("memory of the server then, resident", statistics.median(memory), "MB", at_most=150),
        ],
        {"runs": RUNS},
    )
