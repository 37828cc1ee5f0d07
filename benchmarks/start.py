"""Start on an existing data folder: time to READY, and resident memory then. Budget: 2 s, 150 MB."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.servers import serving

RUNS = 5


def measure() -> dict[str, Any]:
    seconds, memory = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "data")
        with serving(folder):
            pass
        for _ in range(RUNS):
            with serving(folder) as server:
                seconds.append(server.ready_seconds)
                memory.append(server.memory_bytes())
    return {
        "ready_seconds": statistics.median(seconds),
        "ready_seconds_budget": 2.0,
        "resident_megabytes": statistics.median(memory) / 1e6,
        "resident_megabytes_budget": 150,
        "runs": RUNS,
    }
