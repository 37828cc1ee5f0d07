"""Measures everything, or what is named, and writes benchmarks/results/latest.json and latest.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from benchmarks.report import Measured, save

EMBEDDED = ("start", "predict", "training", "upload", "events")
FULL = ("unary", "pages", "watchers", "event_log")
GROUPS = {"embedded": EMBEDDED, "full": FULL}
MODULES = {name: f"benchmarks.{name}" for name in EMBEDDED} | {name: f"benchmarks.full.{name}" for name in FULL}


def main(names: list[str]) -> None:
    measured: dict[str, Measured] = {}
    for name in names or MODULES:
        started = time.monotonic()

        def say(what: str, name: str = name, started: float = started) -> None:
            print(f"{name:>9} {time.monotonic() - started:5.0f} s  {what}", flush=True)

        say("begins")
        measured[name] = importlib.import_module(MODULES[name]).measure(say)
        for figure in measured[name].figures:
            say(f"{figure.what}: {figure.value:.3g} {figure.unit} ({figure.budget})")
        # At once: the next may be interrupted.
        table = save(measured, GROUPS)
    sys.stdout.write(f"\n{table}")


if __name__ == "__main__":
    known = (*GROUPS, *MODULES)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all if none is given")
    given = parser.parse_args().names
    if unknown := set(given) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    main([name for each in given for name in GROUPS.get(each, (each,))])
