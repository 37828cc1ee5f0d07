"""`easyml-model-server` as a process of its own."""

from __future__ import annotations

import subprocess
import sys


def model_server(*arguments: str, errors: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Started with these arguments, its input and output in hand."""
    return subprocess.Popen(
        [sys.executable, "-m", "easyml_server.serving", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
