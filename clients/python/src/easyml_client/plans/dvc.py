"""Versions for plain DVC: the pointer file and the remote it is pulled from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from easyml_client import dvc_files
from easyml_client.errors import Unavailable
from easyml_client.resources.dvc import DvcPointer
from easyml_client.steps import Plan, Sleep, work

_LOOK_AGAIN_SECONDS = 0.5


def write_pointer(
    ask: Callable[[], Plan[DvcPointer]], name: str, folder: str | os.PathLike[str], timeout: float
) -> Plan[Path]:
    """Waits until the version is in the remote, then writes; Unavailable if it is not there in time."""
    end = time.monotonic() + timeout
    while (pointer := (yield from ask())).state != "pushed":
        if time.monotonic() > end:
            problem = pointer.problem or "it was stored only just now, or DVC has much to do"
            raise Unavailable(f"The version is not in the DVC remote yet ({problem}). Nothing was written; try again.")
        yield Sleep(_LOOK_AGAIN_SECONDS)
    return (yield from work(lambda: dvc_files.write(pointer, name, Path(folder))))
