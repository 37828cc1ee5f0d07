"""Measures everything (or what is named) and writes benchmarks/results/latest.json and .md."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
MEASURES = ("start", "predict", "training", "upload", "events")


def main(names: list[str]) -> None:
    found: dict[str, Any] = {"machine": f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}"}
    path = RESULTS / "latest.json"
    if names and path.exists():
        found |= json.loads(path.read_text())
    for name in names or MEASURES:
        print(f"measuring {name} ...", flush=True)
        found[name] = importlib.import_module(f"benchmarks.{name}").measure()
        print(json.dumps(found[name], indent=2), flush=True)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    path.with_suffix(".md").write_text(table(found))


def table(found: dict[str, Any]) -> str:
    lines = [
        "# Measured",
        "",
        f"By `make bench` on {found['machine']}.",
        "",
        "| What | Figure | Value |",
        "|---|---|---|",
    ]
    for name in MEASURES:
        for key, value in found.get(name, {}).items():
            shown = f"{value:.3g}" if isinstance(value, float) else value
            lines.append(f"| {name} | {key.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
