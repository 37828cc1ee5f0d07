"""Builds the program of the control plane and prints where it is: in the user's cache, under a hash of its sources.

The first build on a machine takes about 11 minutes of processor time and leaves 3 GB in Go's build cache, with which
the next one is a matter of seconds. It needs the standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "program"
VERSION = "v1.37.2"
"""Of Kubernetes, as go.mod has it; the API server tells it at /version."""


def cached() -> Path:
    """Where the program of these sources is, or would be."""
    digest = hashlib.sha256(" ".join(options()).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "easyml" / f"control-plane-{digest.hexdigest()[:16]}" / "control-plane"


def built() -> Path:
    """The program; of those who build at once, one does."""
    program = cached()
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(program)
    return program


def options() -> list[str]:
    """Of `go build`; without debugging information the compiler has a fifth less to do."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    flags = ["-s", "-w"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        for key, value in (("gitVersion", VERSION), ("gitMajor", major), ("gitMinor", minor)):
            flags += ["-X", f"{package}.{key}={value}"]
    plain = ["-trimpath", "-buildvcs=false", "-tags", "grpcnotrace", "-gcflags=all=-dwarf=false"]
    return [*plain, "-ldflags", " ".join(flags)]


def _build(program: Path) -> None:
    fresh = program.with_suffix(".new")
    subprocess.run(
        ["go", "build", *options(), "-o", str(fresh), "."],
        cwd=SOURCES,
        check=True,
        env={**os.environ, "CGO_ENABLED": "0", "GOGC": "400", "GOFLAGS": "-mod=readonly"},
    )
    fresh.rename(program)


def main() -> int:
    """Build it where it is not there yet; without Go the tests that need it are skipped."""
    program = cached()
    if not program.exists():
        if shutil.which("go") is None:
            sys.stderr.write("No Go here, so no control plane: the tests on Kubernetes are skipped.\n")
            return 0
        sys.stderr.write(f"Building {program} (about 11 minutes of processor time, once) ...\n")
    sys.stdout.write(f"{built()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
