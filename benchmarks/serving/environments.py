"""The peers' environments: one each, outside the checkout, because they do not bear each other's packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).with_name("peers")
"""What runs in them, and `NAME.requirements.txt`: what they hold, with hashes.

Renew: printf '%s\\n' NAME==VERSION scikit-learn==VERSION skops==VERSION pandas | uv pip compile - --generate-hashes
--python-version 3.11 --no-header --no-annotate -o NAME.requirements.txt
"""
NAMES = ("mlserver", "mlflow", "bentoml", "kserve", "litserve")
DONE = ".installed"


@dataclass(frozen=True)
class NotInstalled:
    """A peer that does not install here."""

    reason: str


def environments(names: list[str], cache: Path) -> Mapping[str, Path | NotInstalled]:
    """The `bin` folder of each peer's environment; made once per list of packages."""
    return {name: _environment(name, cache) for name in names}


def version(name: str) -> str:
    """The pinned version of a peer."""
    lines = (PEERS / f"{name}.requirements.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith(f"{name}=="))


def _environment(name: str, cache: Path) -> Path | NotInstalled:
    requirements = PEERS / f"{name}.requirements.txt"
    folder = cache / f"serving-{name}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    binaries = folder / "bin"
    if (folder / DONE).exists():
        return binaries
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        return NotInstalled("there is no uv; `make bench-serving` gets one")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", python, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(binaries / "python"), "--require-hashes", "-r", requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return NotInstalled(" ".join(done.stderr.split())[-300:])
    (folder / DONE).touch()
    return binaries
