"""The command line of the server, as a shell uses it."""

from __future__ import annotations

import subprocess
import sys


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-X", "dev", "-m", "easyml_server", "config", "show"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        # Closed before a line was written, as `head -0` does.
        shown.stdout.close()
        assert shown.stderr.read() == ""
    assert shown.returncode == 0
