"""What replicas write to their logs: the last lines of it, and no more on disk than is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from easyml_server.domain.secrets import redacted

LAST_LINES: Final = 20
LINE_CHARACTERS: Final = 500
MAX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogFolder:
    """Where the logs of a revision lie, that of each replica by its id."""

    number: int
    path: Path

    def logs(self) -> Sequence[Path]:
        """Those there are now."""
        return list(self.path.glob("*.log"))


def older_of(path: Path) -> Path:
    """What was written to a log before it was cut off."""
    return path.with_suffix(".log.1")


def last_lines(path: Path) -> tuple[str, ...]:
    """The last lines of a log, cut where they are long; nothing where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST_LINES * LINE_CHARACTERS))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(redacted(line[:LINE_CHARACTERS]) for line in lines[-LAST_LINES:])


def bound(path: Path) -> None:
    """Keep a log that is appended to below MAX_BYTES; what is older lies beside it, until it grows so far again."""
    try:
        if path.stat().st_size > MAX_BYTES:
            shutil.copyfile(path, older_of(path))
            os.truncate(path, 0)
    except OSError:
        return
