"""Small requests that arrive together are answered by one run of their model, which costs little more than one alone.

gRPC hands over one request per turn of the event loop, so a batch takes a few turns to gather. Only where company can
be expected does a request wait for them: after a batch, and now and then to see whether others have come up. A caller
who is alone is answered at once. See docs/decisions/0007-small-predictions-together.md.
"""

from __future__ import annotations

import asyncio
from typing import Final

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.serving.layout import RawTable
from easyml_server.serving.models import LoadedModel

MAX_TOGETHER: Final = 32
"""Requests of one run: more would keep the event loop from everything else."""
PATIENCE: Final = 6
"""Turns without another request after which no more are waited for."""
BELIEVED_ALONE: Final = 4
"""After so many requests that waited in vain they wait no longer, but for one in LOOK_EVERY."""
LOOK_EVERY: Final = 16


class Batcher:
    """Gathers the requests to one model."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._waiting: list[tuple[RawTable, asyncio.Future[pb.PredictResponse]]] = []
        self._seen = 0
        self._turns_left = 0
        self._alone = 0

    def answer(self, table: RawTable) -> asyncio.Future[pb.PredictResponse]:
        """The answer to a table, with others that arrive now."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            expected = self._alone < BELIEVED_ALONE or self._alone % LOOK_EVERY == 0
            self._turns_left = PATIENCE if expected else 0
            self._seen = 1
            loop.call_soon(self._turn)
        future: asyncio.Future[pb.PredictResponse] = loop.create_future()
        self._waiting.append((table, future))
        return future

    def _turn(self) -> None:
        """Answer, or wait for the next turn of the loop."""
        if len(self._waiting) > self._seen:
            self._seen = len(self._waiting)
            self._turns_left = PATIENCE
        if self._turns_left and self._seen < MAX_TOGETHER:
            self._turns_left -= 1
            asyncio.get_running_loop().call_soon(self._turn)
            return
        batch, self._waiting = self._waiting, []
        self._alone = self._alone + 1 if len(batch) == 1 else 0
        for start in range(0, len(batch), MAX_TOGETHER):
            self._run(batch[start : start + MAX_TOGETHER])

    def _run(self, batch: list[tuple[RawTable, asyncio.Future[pb.PredictResponse]]]) -> None:
        # Callers that have left meanwhile have cancelled theirs.
        wanted = [(table, future) for table, future in batch if not future.done()]
        if not wanted:
            return
        try:
            responses = self._model.answer_together([table for table, _ in wanted])
        except Exception as error:  # each caller is told by the servicer
            for _, future in wanted:
                future.set_exception(error)
            return
        for (_, future), response in zip(wanted, responses, strict=True):
            future.set_result(response)
