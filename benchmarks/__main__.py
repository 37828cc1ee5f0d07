"""Measures everything, or what is named, and writes benchmarks/results/latest.json and latest.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from benchmarks.report import Measured, save

MEASURES = ("start", "predict", "training", "upload", "events")


def main(names: list[str]) -> None:
    measured: dict[str, Measured] = {}
    for name in names or MEASURES:
        started = time.monotonic()

        def say(what: str, name: str = name, started: float = started) -> None:
            print(f"{name:>8} {time.monotonic() - started:5.0f} s  {what}", flush=True)

        say("begins")
        measured[name] = importlib.import_module(f"benchmarks.{name}").measure(say)
        for figure in measured[name].figures:
            say(f"{figure.what}: {figure.value:.3g} {figure.unit} ({figure.budget})")
        # At once: the next may be interrupted.
        table = save(measured, MEASURES)
    sys.stdout.write(f"\n{table}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}; all if none is given")
    given = parser.parse_args().names
    if unknown := set(given) - set(MEASURES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    main(given)
