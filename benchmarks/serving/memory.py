"""What another model in a model server's process takes, and what another process of it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from benchmarks.predict import running
from benchmarks.serving.models import Stored

FURTHER = 4


def memory(stored: Sequence[Stored]) -> Mapping[str, Mapping[str, float]]:
    """By model, in MB: resident alone, per further model in the process, and of its own per further replica."""
    return {model.name: _of(model.folder) for model in stored}


def _of(folder: Path) -> Mapping[str, float]:
    alone, own = _resident_and_own(folder, 1)
    together, _ = _resident_and_own(folder, 1 + FURTHER)
    return {
        "model_server_mb": alone / 1e6,
        "further_model_mb": (together - alone) / FURTHER / 1e6,
        "further_replica_mb": own / 1e6,
    }


def _resident_and_own(folder: Path, models: int) -> tuple[int, int]:
    """Resident memory of a model server, and what of it no second one would share while the first runs."""
    arguments = [f"--model={uuid4()}={folder}" for _ in range(models)]
    command = ("easyml_server.serving", "--insecure", *arguments)
    with running(*command) as (_address, pid), running(*command):
        return _smaps(pid)


def _smaps(pid: int) -> tuple[int, int]:
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split(":")
        sizes[name] = int(size.split()[0]) * 1024
    return sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]
