"""Small requests that arrive together are answered by one run of their model, which costs little more than one alone.

They are also read and written then: what is done several times in a row finds its code and data in the processor's
caches, which gRPC fills with its own between two calls.

gRPC hands over one request per turn of the event loop, so a batch takes a moment to gather. Only where company is to be
expected does a request wait for it. A caller who is alone is answered at once. See docs/decisions/
0007-small-predictions-together.md and 0028-what-a-prediction-costs.md.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

Asked = TypeVar("Asked")
Said = TypeVar("Said")

MAX_TOGETHER: Final = 32
"""Requests of one run: more would keep the event loop from everything else."""
GATHER_SECONDS: Final = 0.0035
"""How long a batch gathers at most; the event loop makes 4 ms of it, since it waits in whole milliseconds."""
QUEUED_SECONDS: Final = 0.0002
"""Who comes so soon after answers were handed to gRPC had perhaps been waiting."""
CONTENT_SECONDS: Final = 0.1
"""How long no larger batches are tried once one was waited for in vain."""


class Company:
    """How many requests a batch waits for.

    Whether there are more callers than a batch holds is learned by waiting for more: when that was in vain, everybody
    who asks was there. From then on a batch is two thirds of them, so that some read their answers and ask again while
    the others are answered, and nobody waits for the last.
    """

    def __init__(self) -> None:
        self.expected = 1
        self._most = MAX_TOGETHER
        self._until = -math.inf

    def had(self, *, more: bool, now: float) -> None:
        """A batch was full; whether there seem to be more callers than it had."""
        if now >= self._until:
            self._most = MAX_TOGETHER
        if more:
            self.expected = min(2 * self.expected, self._most)

    def missed(self, came: int, now: float) -> None:
        """A batch was not full after all the time it had."""
        most = max(1, came * 2 // 3)
        # Where most stay away at once, it is more likely that they were held up than that they left.
        if 2 * came >= self.expected:
            self._most = most
            self._until = now + CONTENT_SECONDS
        self.expected = most


class Batcher(Generic[Asked, Said]):
    """Gathers requests, which `answer` answers together: each with what is said to it, or with an error."""

    def __init__(
        self, answer: Callable[[list[Asked]], Sequence[Said | Exception]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._answer = answer
        self._clock = clock
        self._waiting: list[tuple[Asked, asyncio.Future[Said]]] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._company = Company()
        self._delivering = 0
        self._delivered_at = -1.0

    def answer(self, asked: Asked) -> asyncio.Future[Said]:
        """The answer to a request, with others that arrive now."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Said] = loop.create_future()
        if not self._waiting:
            self._begin()
        self._waiting.append((asked, future))
        if len(self._waiting) >= self._company.expected:
            self._run_all()
        elif self._gathering is None:
            self._gathering = loop.call_later(GATHER_SECONDS, self._run_incomplete)
        return future

    def _begin(self) -> None:
        """The first of a batch came: if it was there before the last answers were read, there are others than those."""
        now = self._clock()
        queued = self._delivering > 0 or now - self._delivered_at < QUEUED_SECONDS
        self._company.had(more=queued, now=now)

    def _run_incomplete(self) -> None:
        self._company.missed(len(self._waiting), self._clock())
        self._run_all()

    def _run_all(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        batch, self._waiting = self._waiting, []
        # Callers that have left meanwhile have cancelled theirs.
        self._run([(asked, future) for asked, future in batch if not future.done()])
        self._delivering += 1
        # Those who wait for the answers are woken in the next turn of the loop, and hand them to gRPC in it.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._delivered)

    def _delivered(self) -> None:
        self._delivering -= 1
        self._delivered_at = self._clock()

    def _run(self, wanted: list[tuple[Asked, asyncio.Future[Said]]]) -> None:
        if not wanted:
            return
        try:
            answers = self._answer([asked for asked, _ in wanted])
        except Exception as error:  # each caller is told by the servicer
            answers = [error] * len(wanted)
        for (_, future), said in zip(wanted, answers, strict=True):
            if isinstance(said, Exception):
                future.set_exception(said)
            else:
                future.set_result(said)
