"""How a model server ends with the server that started it, however that one ended."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; Linux only, elsewhere the closed input does it."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have ended before it was watched.
    if parent == 1 or os.getppid() != parent:
        os._exit(1)


def on_end_of_input(end: Callable[[], None]) -> None:
    """Call `end` when standard input is closed: whoever held the other side is gone, or wants this."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            end()

    loop.add_reader(0, read)
