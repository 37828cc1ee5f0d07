"""Calls that got into each other's way in the database are answered again from the start: nothing of them is stored.

Here and nowhere deeper: what a use case did between reading and writing is repeatable only as a whole.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from easyml_server.domain.errors import Collided
from easyml_server.ports.store import STORED

PAUSES = (0.02, 0.06, 0.2)
"""Seconds before each further try, at most; the caller's deadline ends them too."""

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


async def repeated(answer: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer of the first try that is not in anybody's way; Collided if none is, or it has stored something."""
    STORED.set(False)
    for pause in PAUSES:
        try:
            return await answer()
        except Collided:
            if STORED.get():
                raise
            log.info("call_repeated")
        # Of different length, so that two do not meet again.
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 (nothing secret)
    return await answer()
