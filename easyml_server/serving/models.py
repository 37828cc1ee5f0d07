"""A model version in memory: from a table to what it says of it, in one thread and without waiting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.models import ModelManifest, Signature
from easyml_server.serving.layout import Layout, RawRow, Table, stack
from easyml_server.serving.notes import Answered, NoteTaker
from easyml_server.serving.predictions import write_response
from easyml_server.serving.predictors import CannotLoad, Predictor, Run, load_predictor, read_manifest
from easyml_server.serving.tables import TableLimits, TableReader
from easyml_server.serving.tensors import outputs_of

QUICK_SECONDS: Final = 0.002
_WARM_UP_RUNS: Final = 5


class LoadedModel:
    """A model version that answers requests; `quick` says whether one row takes less than a thread is worth."""

    def __init__(self, version_id: str, signature: Signature, predictor: Predictor, limits: TableLimits) -> None:
        self.version_id = version_id
        self.quick = False
        self._signature = signature
        self._predictor = predictor
        self._layout = Layout(signature)
        self._reader = TableReader(signature, limits)
        self._notes = NoteTaker(signature)
        self.outputs = outputs_of(signature)

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return self._signature

    @property
    def reader(self) -> TableReader:
        """Reads tables that fit the signature."""
        return self._reader

    def answer(self, table: Table, run: Run | None = None) -> Answered:
        """What the model says of a table."""
        if isinstance(table, RawRow):
            table = stack([table])
        blocks = self._layout.prepare(table)
        return Answered(self._predictor.predict(blocks, table.rows, run), self._notes.take(blocks, table.rows))

    def answer_together(self, tables: Sequence[Table]) -> list[Answered]:
        """The answers to tables, from one run over all their rows."""
        if len(tables) == 1:
            return [self.answer(tables[0])]
        whole = stack(tables)
        blocks = self._layout.prepare(whole)
        if self._notes.take(blocks, whole.rows) is not None:
            # Notes count rows within their request; they are rare, and so not worth taking apart.
            return [self.answer(table) for table in tables]
        answers = self._predictor.predict(blocks, whole.rows, None)
        ends = accumulate(table.rows for table in tables)
        return [Answered(answers.part(end - table.rows, end), None) for table, end in zip(tables, ends, strict=True)]

    def warm_up(self, manifest: ModelManifest) -> None:
        """Predict for a row of the training data a few times, and learn how quick that is."""
        example = manifest.input_example[0] if manifest.input_example else {}
        request = pb.PredictRequest()
        request.rows.rows.add().update({column.name: example.get(column.name) for column in self._signature.inputs})
        seconds = []
        for _ in range(_WARM_UP_RUNS):
            started = time.perf_counter()
            answered = self.answer(self._reader.read(request))
            write_response(self.version_id, self._signature, answered, pb.PredictResponse())
            seconds.append(time.perf_counter() - started)
        self.quick = min(seconds) < QUICK_SECONDS


def load_model(version_id: str, folder: Path, limits: TableLimits) -> LoadedModel:
    """The model in a folder, checked and warm. Raises CannotLoad."""
    manifest = read_manifest(folder)
    signature = manifest.signature
    model = LoadedModel(version_id, signature, load_predictor(folder, manifest, Layout(signature)), limits)
    try:
        model.warm_up(manifest)
    except Exception as error:
        raise CannotLoad("it cannot predict for its own example") from error
    return model
