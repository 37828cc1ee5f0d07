"""Requests that arrive together are predicted together.

Nothing waits for company: what one turn of the event loop brings is a batch, and one request alone is a batch of one.
"""

from __future__ import annotations

import asyncio

from easyml_server.serving.layout import RawTable
from easyml_server.serving.models import LoadedModel, Prediction


class Batches:
    """The batches of one model."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._waiting: list[tuple[RawTable, asyncio.Future[Prediction]]] = []

    def predict(self, table: RawTable) -> asyncio.Future[Prediction]:
        """The prediction for a table, made in the next turn of the event loop."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._run)
        future: asyncio.Future[Prediction] = loop.create_future()
        self._waiting.append((table, future))
        return future

    def _run(self) -> None:
        # Who went away meanwhile needs no answer.
        batch = [(table, future) for table, future in self._waiting if not future.done()]
        self._waiting = []
        if not batch:
            return
        try:
            predictions = self._model.predict([table for table, _ in batch])
        except Exception as error:
            self._failed(batch, error)
            return
        for (_, future), prediction in zip(batch, predictions, strict=True):
            future.set_result(prediction)

    def _failed(self, batch: list[tuple[RawTable, asyncio.Future[Prediction]]], error: Exception) -> None:
        """One request must not cost the others their answers: each is tried alone."""
        for table, future in batch:
            try:
                if len(batch) == 1:
                    raise error
                future.set_result(self._model.predict([table])[0])
            except Exception as own:
                future.set_exception(own)
