"""What a soak found, as JSON and as a table for people."""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.soak.journal import Call
from tests.soak.strikes import Strike

RESULTS = Path(__file__).with_name("results")
PER_MINUTE: Mapping[str, float] = {
    "upload": 3,
    "start": 3,
    "watch": 5,
    "cancel": 0.5,
    "update": 5,
    "alias": 1,
    "predict": 2,
    "delete": 0.5,
    "list": 3,
    "peek": 1,
}
"""Answers of each kind, at least: a soak in which nothing happened shows nothing."""
ROUND_MINUTES = 2.5
"""Long enough for each kind of fault to strike once."""


def too_little(calls: Sequence[Call], strikes: Sequence[Strike], kinds: Sequence[str], minutes: float) -> list[str]:
    """What did not happen often enough for the soak to mean anything."""
    answered = counts(call.kind for call in calls if call.answered)
    few = [
        f"{kind} was answered {answered.get(kind, 0)} times in {minutes:g} minutes, {least * minutes:g} is the least"
        for kind, least in PER_MINUTE.items()
        if answered.get(kind, 0) < least * minutes
    ]
    missing = set(kinds) - {strike.kind for strike in strikes} if minutes >= ROUND_MINUTES else set[str]()
    return few + [f"this never struck: {kind}" for kind in sorted(missing)]


def result(
    seed: int, minutes: float, calls: Sequence[Call], strikes: Sequence[Strike], verdicts: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Everything that is kept."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "system": platform.system(),
        "seed": seed,
        "minutes": minutes,
        "calls": len(calls),
        "operations": {kind: operation(found, minutes) for kind, found in by_kind(calls).items()},
        "faults": counts(strike.kind for strike in strikes),
        "verdicts": {name: list(found) for name, found in verdicts.items()},
        "strikes": [asdict(strike) for strike in strikes],
    }


def operation(calls: Sequence[Call], minutes: float) -> dict[str, Any]:
    """What came of calls of one kind; seconds are of those that were answered."""
    seconds = sorted(call.seconds for call in calls if call.answered)
    outcomes = counts(f"{call.outcome}: {call.reason}" if call.reason else call.outcome for call in calls)
    return {
        "answered_per_minute": round(len(seconds) / minutes, 1),
        "outcomes": outcomes,
        "seconds": {f"p{share}": round(quantile(seconds, share / 100), 3) for share in (50, 95, 99, 100)},
    }


def write(found: Mapping[str, Any]) -> str:
    """Keep it in results/; the table."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak.json").write_text(json.dumps(found, indent=2) + "\n")
    text = table(found)
    (RESULTS / "README.md").write_text(text)
    return text


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [
        "# What the soak found",
        "",
        f"Written by `make soak` on {found['date']}: {found['minutes']:g} minutes, seed {found['seed']},",
        f"{found['calls']} calls of six clients to two servers on one PostgreSQL and one MongoDB, while faults struck.",
        "Times are in seconds, of calls that were answered, retries of the client included. What was not answered was",
        "left by its client, or refused for a reason that may be; the JSON beside this file has it by reason.",
        "",
        "| Operation | Answered | a minute | Other | p50 | p95 | p99 | longest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, of in found["operations"].items():
        answered = of["outcomes"].get("answered", 0)
        other = sum(of["outcomes"].values()) - answered
        times = " | ".join(f"{of['seconds'][name]:.2f}" for name in ("p50", "p95", "p99", "p100"))
        lines.append(f"| {kind} | {answered} | {of['answered_per_minute']:g} | {other} | {times} |")
    lines += ["", "| Fault | Strikes |", "|---|---:|"]
    lines += [f"| {kind} | {number} |" for kind, number in found["faults"].items()]
    lines += ["", "| Checked afterwards | Found |", "|---|---|"]
    lines += [f"| {name} | {len(broken) or 'nothing'} |" for name, broken in found["verdicts"].items()]
    return "\n".join(lines) + "\n"


def by_kind(calls: Sequence[Call]) -> dict[str, list[Call]]:
    """In the order of names."""
    found: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        found[call.kind].append(call)
    return dict(sorted(found.items()))


def counts(names: Any) -> dict[str, int]:
    """How often each comes, in the order of names."""
    found: dict[str, int] = defaultdict(int)
    for name in names:
        found[name] += 1
    return dict(sorted(found.items()))


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values; 0 where there are none."""
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0
