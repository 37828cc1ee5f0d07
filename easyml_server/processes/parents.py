"""Processes that end with the one that started them, however that one ended.

On Linux only; elsewhere it is the end of their pipes that tells them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends.

    `parent` is its id. Who does not know it has to notice by other means that it ended before this was called; that
    it is 1 now says nothing, since in a container the server itself may be.
    """
    began_with = parent or os.getppid()
    kill_at_end_of_parent(signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() != began_with:
        os._exit(1)


def kill_at_end_of_parent(number: int) -> None:
    """Which signal this process gets then; none if 0."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
