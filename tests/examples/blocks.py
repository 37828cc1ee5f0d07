"""The code blocks of a page, and a shell to run them in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Those of one language, in their order."""
    return [code for found, code in BLOCK.findall(page.read_text()) if found == language]


def run(command: list[str], environment: dict[str, str]) -> str:
    """What it prints; it must succeed."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
