"""The server with a clock that a file sets: seconds that it is ahead. Run as a program, by test_clock_set_back.py."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from easyml_server import app
from easyml_server.__main__ import main

AHEAD_FILE = "TEST_AHEAD_FILE"
right = app.now


def now() -> datetime:
    """What the file says by now."""
    return right() + timedelta(seconds=float(Path(os.environ[AHEAD_FILE]).read_text()))


if __name__ == "__main__":
    app.now = now
    main()
