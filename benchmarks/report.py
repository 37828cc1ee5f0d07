"""What a measurement hands back, and the files that all of them become: results/latest.json and latest.md."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
JSON_FILE, TABLE_FILE = RESULTS / "latest.json", RESULTS / "latest.md"

Say = Callable[[str], None]
"""Tells how a measurement goes."""


@dataclass(frozen=True)
class Figure:
    """A figure with its budget: at most, or at least."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is within its budget."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    @property
    def budget(self) -> str:
        """The budget in words."""
        if self.at_most is not None:
            return f"at most {_amount(self.at_most, self.unit)}"
        return f"at least {_amount(self.at_least or 0.0, self.unit)}"


@dataclass(frozen=True)
class Measured:
    """The figures that have a budget, and what else was seen on the way."""

    figures: Sequence[Figure]
    details: Mapping[str, float | int | str]

    def as_json(self) -> dict[str, Any]:
        figures = [asdict(figure) | {"met": figure.met} for figure in self.figures]
        return {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "figures": figures, **self.details}


def machine() -> str:
    """Where this runs."""
    return (
        f"{os.cpu_count()} processors, {_memory_gigabytes():.0f} GB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}"
    )


def save(measured: Mapping[str, Measured], groups: Mapping[str, Sequence[str]]) -> str:
    """Write both files; what was not measured now stays from before. Returns the table."""
    found = json.loads(JSON_FILE.read_text()) if JSON_FILE.exists() else {}
    found |= {name: each.as_json() | {"machine": machine()} for name, each in measured.items()}
    found = {name: found[name] for names in groups.values() for name in names if name in found}
    RESULTS.mkdir(exist_ok=True)
    JSON_FILE.write_text(json.dumps(found, indent=2) + "\n")
    written = table(found, groups)
    TABLE_FILE.write_text(written)
    return written


def table(found: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> str:
    """For each mode a row per budget, and below it what else was seen."""
    lines = ["# The budgets, measured", "", "By `make bench`; figures compared with each other were taken in one run."]
    for group, names in groups.items():
        measured = {name: found[name] for name in names if name in found}
        if measured:
            lines += [
                "",
                f"## {group.capitalize()} mode",
                "",
                *rows(measured),
                "",
                *map(beside, measured, measured.values()),
            ]
    return "\n".join(lines) + "\n"


def rows(measured: Mapping[str, Any]) -> list[str]:
    """The budgets."""
    lines = ["| What | Figure | Budget | Met |", "|---|---:|---:|---|"]
    for each in measured.values():
        for saved in each["figures"]:
            figure = Figure(**{name: value for name, value in saved.items() if name != "met"})
            shown = _amount(figure.value, figure.unit)
            lines.append(f"| {figure.what} | {shown} | {figure.budget} | {'yes' if figure.met else '**no**'} |")
    return lines


def beside(name: str, each: Mapping[str, Any]) -> str:
    """What else was seen."""
    details = [
        f"{key.replace('_', ' ')} {_amount(value)}"
        for key, value in each.items()
        if key not in ("figures", "measured", "machine")
    ]
    return f"- **{name}** ({each['measured'][:10]}, {each['machine']}): {', '.join(details)}."


def _amount(value: float | str, unit: str = "") -> str:
    if isinstance(value, str):
        return value
    digits = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{digits} {unit}".rstrip()


def _memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
