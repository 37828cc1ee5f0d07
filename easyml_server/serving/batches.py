"""Small requests that arrive together are answered by one run of their model, which costs little more than one alone.

gRPC hands over one request per turn of the event loop, so a batch takes a moment to gather. Only where company is to be
expected does a request wait for it: as many as came last time, and more when a request was there before those were
answered. A caller who is alone is answered at once. See docs/decisions/0007-small-predictions-together.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from easyml_server.serving.layout import RawTable
from easyml_server.serving.metrics import RunMetrics
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.notes import Answered

MAX_TOGETHER: Final = 32
"""Requests of one run: more would keep the event loop from everything else."""
GATHER_SECONDS: Final = 0.0035
"""How long a batch gathers at most; the event loop makes 4 ms of it, since it waits in whole milliseconds."""
QUEUED_SECONDS: Final = 0.0002
"""Who comes so soon after answers were handed to gRPC had been waiting: nobody who read one could have sent it."""


class Batcher:
    """Gathers the requests to one model."""

    def __init__(self, model: LoadedModel, runs: RunMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._runs = runs
        self._clock = clock
        self._waiting: list[tuple[RawTable, asyncio.Future[Answered]]] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._size = 1
        self._expected = 1
        self._delivering = 0
        self._delivered_at = -1.0

    def answer(self, table: RawTable) -> asyncio.Future[Answered]:
        """The answer to a table, with others that arrive now."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        if not self._waiting:
            # As many as last time, or more if some of those who ask were not among them.
            queued = self._delivering > 0 or self._clock() - self._delivered_at < QUEUED_SECONDS
            self._expected = min(2 * self._size, MAX_TOGETHER) if queued else self._size
        self._waiting.append((table, future))
        if len(self._waiting) >= self._expected:
            self._run_all()
        elif self._gathering is None:
            self._gathering = loop.call_later(GATHER_SECONDS, self._run_all)
        return future

    def _run_all(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        batch, self._waiting = self._waiting, []
        self._size = len(batch)
        # Callers that have left meanwhile have cancelled theirs.
        self._run([(table, future) for table, future in batch if not future.done()])
        self._delivering += 1
        # Those who wait for the answers are woken in the next turn of the loop, and hand them to gRPC in it.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._delivered)

    def _delivered(self) -> None:
        self._delivering -= 1
        self._delivered_at = self._clock()

    def _run(self, wanted: list[tuple[RawTable, asyncio.Future[Answered]]]) -> None:
        if not wanted:
            return
        try:
            with self._runs.run(len(wanted), sum(table.rows for table, _ in wanted)):
                answers = self._model.answer_together([table for table, _ in wanted])
        except Exception as error:  # each caller is told by the servicer
            for _, future in wanted:
                future.set_exception(error)
            return
        for (_, future), answered in zip(wanted, answers, strict=True):
            future.set_result(answered)
