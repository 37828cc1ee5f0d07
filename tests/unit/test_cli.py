"""The command line of the server, as a shell uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-X", "dev", "-m", "easyml_server", "config", "show"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        # Closed before a line was written, as `head -0` does.
        shown.stdout.close()
        assert shown.stderr.read() == ""
    assert shown.returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "no terminal to ask for the password"),
        (("--password-file", "nowhere"), "password file nowhere cannot be read"),
    ],
)
def test_a_password_that_cannot_be_had_is_one_line(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    command = [sys.executable, "-m", "easyml_server", "init", "me@example.org", "--data-dir", str(tmp_path), *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
