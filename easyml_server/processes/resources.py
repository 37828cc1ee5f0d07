"""What a process uses, read from outside, so that a worker that is busy or stuck is seen as well."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from easyml_server.domain.events import ResourceUsage

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_USER_TIME, _SYSTEM_TIME, _RESIDENT_PAGES = 11, 12, 21  # fields of /proc/<pid>/stat after the name


async def current_usage(process_id: int) -> ResourceUsage | None:
    """Resident memory and processor time; None when the process has ended."""
    if sys.platform == "linux":
        return usage_by_proc(process_id)
    return await asyncio.to_thread(usage_by_ps, process_id)


def usage_by_proc(process_id: int) -> ResourceUsage | None:
    """As Linux tells it, in some microseconds."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    seconds = (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / _TICKS
    return ResourceUsage(memory_bytes=int(fields[_RESIDENT_PAGES]) * _PAGE, cpu_seconds=seconds)


def usage_by_ps(process_id: int) -> ResourceUsage | None:
    """The same where there is no /proc."""
    command = ["ps", "-o", "rss=,time=", "-p", str(process_id)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - constant but for a number
    if answer.returncode or not answer.stdout.strip():
        return None
    resident, time = answer.stdout.split()
    return ResourceUsage(memory_bytes=int(resident) * 1024, cpu_seconds=_seconds(time))


def _seconds(time: str) -> float:
    """Of ps's [[days-]hours:]minutes:seconds."""
    days, _, clock = time.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + 86400 * int(days or 0)
