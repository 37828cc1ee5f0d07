"""What the long fault runs found, for people: one file of JSON for each kind, and a table of all."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.kills import Kill

RESULTS = Path(__file__).with_name("results")
TITLES = {
    "kills_upload": "Server killed at random moments of an upload",
    "kills_training": "Server killed at random moments of a training",
    "points": "Server killed at each named point",
    "writes": "The n-th write fails, for each n",
    "frozen": "Frozen client",
}


def write_result(name: str, **found: Any) -> None:
    """Keep what one run found, and renew the table."""
    RESULTS.mkdir(exist_ok=True)
    date = datetime.now(UTC).date().isoformat()
    text = json.dumps({"date": date, "system": platform.system(), **found}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    (RESULTS / "README.md").write_text(table())


def of_kills(kills: Sequence[Kill]) -> dict[str, Any]:
    """Kills and how many came to what, by the stage they struck."""
    stages = Counter((kill.stage, kill.outcome) for kill in kills)
    return {
        "count": len(kills),
        "outcomes": [
            {"stage": stage, "outcome": outcome, "count": n} for (stage, outcome), n in sorted(stages.items())
        ],
        "kills": [asdict(kill) for kill in kills],
    }


def table() -> str:
    """All results that there are."""
    lines = [
        "# What the fault runs found",
        "",
        "Written by `make faults`; the details of each line are in the JSON beside this file. After each fault the",
        "data folder was consistent (`tests/faults/consistency.py`), no process had stayed behind, and what was cut",
        "off came to its end.",
    ]
    for name, title in TITLES.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            lines += section(title, json.loads(path.read_text()))
    return "\n".join(lines) + "\n"


def section(title: str, found: dict[str, Any]) -> list[str]:
    """One kind."""
    seed = f", seed {found['seed']}" if "seed" in found else ""
    lines = ["", f"## {title}", "", f"{found['date']}{seed}; faults: {found['count']}.", ""]
    lines += ["| Where | Outcome | Faults |", "|---|---|---:|"]
    lines += [f"| {each['stage']} | {each['outcome']} | {each['count']} |" for each in found["outcomes"]]
    return lines
