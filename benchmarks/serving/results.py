"""What was measured, as a table for people and as JSON: benchmarks/results/serving.{md,json}."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchmarks.report import RESULTS, machine

JSON_FILE, TABLE_FILE = RESULTS / "serving.json", RESULTS / "serving.md"
ECHO = "echo"
Part = Mapping[str, Mapping[str, float]]
"""Figures by model."""
FEWEST = 3
"""Calls of which quantiles say something."""


@dataclass
class Measured:
    """A server's rounds of one cell of the table."""

    per_second: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: str = ""

    def add(self, took: Sequence[float], seconds: float) -> None:
        """A round."""
        self.per_second.append(len(took) / seconds)
        self.seconds += took

    def as_json(self, echo: Measured) -> dict[str, float | str]:
        """The figures; throughput to the echo's round by round, since the machine is not the same each second."""
        if self.failed or len(self.seconds) < FEWEST:
            return {"failed": " ".join(self.failed.split())[:120] or "too slow to say"}
        percentiles = statistics.quantiles(self.seconds, n=100)
        ratios = [ours / bare for ours, bare in zip(self.per_second, echo.per_second, strict=True)]
        return {
            "per_second": statistics.median(self.per_second),
            "to_echo": statistics.median(ratios),
            "p50_ms": percentiles[49] * 1000,
            "p99_ms": percentiles[98] * 1000,
        }


@dataclass(frozen=True)
class Cell:
    """A model, so many rows a call, so many connections: every server of it in turns."""

    model: str
    rows: int
    connections: int
    servers: Mapping[str, Measured]

    def as_json(self) -> dict[str, Any]:
        echo = self.servers[ECHO]
        servers = {name: measured.as_json(echo) for name, measured in self.servers.items()}
        return {"model": self.model, "rows": self.rows, "connections": self.connections, "servers": servers}


def result(
    cells: Sequence[Cell],
    parts: Mapping[str, Part],
    versions: Mapping[str, str],
    missing: Mapping[str, str],
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """Everything of one run."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seconds": seconds,
        "rounds": rounds,
        "versions": dict(versions),
        "missing": dict(missing),
        "parts": {name: _part(part) for name, part in parts.items()},
        "cells": [cell.as_json() for cell in cells],
    }


def save(found: Mapping[str, Any]) -> None:
    """Write both files."""
    RESULTS.mkdir(exist_ok=True)
    JSON_FILE.write_text(json.dumps(found, indent=2) + "\n")
    TABLE_FILE.write_text(table(found))


def save_parts(parts: Mapping[str, Part]) -> Mapping[str, Any]:
    """Write both files with these parts; what was measured with others stays."""
    found: dict[str, Any] = json.loads(JSON_FILE.read_text())
    found["parts"] = found["parts"] | {name: _part(part) for name, part in parts.items()}
    save(found)
    return found


def _part(part: Part) -> Mapping[str, Any]:
    measured = datetime.now(UTC).isoformat(timespec="seconds")
    return {"measured": measured, "machine": machine(), "models": {name: dict(each) for name, each in part.items()}}


def table(found: Mapping[str, Any]) -> str:
    """A table per model and number of rows."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# The model server beside others",
        "",
        f"By `make bench-serving` on {found['measured'][:10]}: {found['machine']}. All of a row in one run, by turns, "
        f"{found['rounds']} rounds of {found['seconds']:g} s; figures are medians of the rounds, quantiles are of all "
        "calls. The callers share the processors with the servers. The others predict the label alone, EasyML the "
        "probabilities of the classes too.",
        "",
        f"Versions: {versions}." if versions else "No peer was asked.",
        *(f"\n{name} was not measured: {reason}" for name, reason in found["missing"].items()),
    ]
    for model, rows in dict.fromkeys((cell["model"], cell["rows"]) for cell in found["cells"]):
        lines += ["", f"## {model}, {rows} row{'s' if rows > 1 else ''} a call", ""]
        cells = [cell for cell in found["cells"] if (cell["model"], cell["rows"]) == (model, rows)]
        lines += _rows(cells)
    for name, part in found["parts"].items():
        title, rows = _PARTS[name]
        lines += ["", f"## {title}", "", f"Measured on {part['measured'][:10]}.", "", *rows(part["models"])]
    return "\n".join(lines) + "\n"


def _rows(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = [f"{cell['connections']} connection{'s' if cell['connections'] > 1 else ''}" for cell in cells]
    lines = [
        "Calls a second (to the echo), p50 / p99 in ms.",
        "",
        f"| | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(cells)}",
    ]
    for name in cells[0]["servers"]:
        lines.append(f"| {name} | {' | '.join(_figures(cell['servers'][name]) for cell in cells)} |")
    return lines


def _figures(each: Mapping[str, Any]) -> str:
    if "failed" in each:
        return f"failed: {each['failed']}"
    speed = f"{each['per_second']:,.0f} ({each['to_echo']:.2f})"
    return f"{speed}, {each['p50_ms']:.1f} / {each['p99_ms']:.1f}"


def _memory(memory: Part) -> list[str]:
    lines = [
        "| | one model, resident | each further model in the process | each further replica, of its own |",
        "|---|---:|---:|---:|",
    ]
    for name, each in memory.items():
        figures = (each["model_server_mb"], each["further_model_mb"], each["further_replica_mb"])
        lines.append(f"| {name} | {' | '.join(f'{figure:.1f} MB' for figure in figures)} |")
    return lines


def _exchange(exchange: Part) -> list[str]:
    lines = [
        "16 connections ask by name while the version behind it is exchanged; p50 / p99 / longest in ms.",
        "",
        "| | exchanges | calls, of which met one | failed | from the signal to the first new answer | calm | during |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, each in exchange.items():
        calm, during = (
            " / ".join(f"{each[f'{when}_{which}_ms']:.1f}" for which in ("p50", "p99", "longest"))
            for when in ("calm", "during")
        )
        calls = f"{each['calls']:,.0f}, {each['calls_during']:,.0f}"
        seconds = f"{each['exchange_seconds'] * 1000:.0f} ms"
        lines.append(f"| {name} | {each['exchanges']} | {calls} | {each['errors']} | {seconds} | {calm} | {during} |")
    return lines


def _first_answer(first_answer: Part) -> list[str]:
    lines = ["| | runs | median | longest |", "|---|---:|---:|---:|"]
    for name, each in first_answer.items():
        lines.append(f"| {name} | {each['runs']} | {each['median_seconds']:.2f} s | {each['longest_seconds']:.2f} s |")
    return lines


_PARTS = {
    "memory": ("Memory of the model server", _memory),
    "exchange": ("A model exchanged under load", _exchange),
    "first-answer": ("From CreateDeployment to the first answer, through the main port", _first_answer),
}
