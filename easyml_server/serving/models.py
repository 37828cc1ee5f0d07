"""A model version in memory: from the table of a request to its answer, in one thread and without waiting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.models import ModelManifest, Signature
from easyml_server.serving.layout import Layout, RawTable, stack
from easyml_server.serving.notes import NoteTaker
from easyml_server.serving.predictors import Answers, CannotLoad, Predictor, Run, load_predictor, read_manifest
from easyml_server.serving.tables import Request, TableLimits, TableReader

QUICK_SECONDS: Final = 0.002
_WARM_UP_RUNS: Final = 5
_ids: Final = Random()  # noqa: S311 (not a secret)


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

    def answer(self, request: Request, response: pb.PredictResponse, run: Run | None = None) -> None:
        """Fill in the answer to a request. Raises InvalidInput where the table does not fit the signature."""
        self._answer_table(self.read(request), response, run)

    def read(self, request: Request) -> RawTable:
        """The table of a request. Raises InvalidInput where it does not fit the signature."""
        return self._reader.read(request)

    def answer_together(self, tables: Sequence[RawTable]) -> list[pb.PredictResponse]:
        """The answers to tables, from one run over all their rows."""
        if len(tables) == 1:
            return [self._answer_alone(tables[0])]
        whole = stack(tables)
        blocks = self._layout.prepare(whole)
        if self._notes.take(blocks, whole.rows) is not None:
            # Notes count rows within their request; they are rare, and so not worth taking apart.
            return [self._answer_alone(table) for table in tables]
        responses = [pb.PredictResponse() for _ in tables]
        answers = self._predictor.predict(blocks, whole.rows, None)
        end = 0
        for table, response in zip(tables, responses, strict=True):
            start, end = end, end + table.rows
            self._write(answers.part(start, end), response)
        return responses

    def _answer_alone(self, table: RawTable) -> pb.PredictResponse:
        response = pb.PredictResponse()
        self._answer_table(table, response, None)
        return response

    def _answer_table(self, table: RawTable, response: pb.PredictResponse, run: Run | None) -> None:
        blocks = self._layout.prepare(table)
        self._write(self._predictor.predict(blocks, table.rows, run), response)
        notes = self._notes.take(blocks, table.rows)
        if notes is not None:
            response.notes.extend(notes.kept)
            response.omitted_notes = notes.omitted

    def _write(self, answers: Answers, response: pb.PredictResponse) -> None:
        response.prediction_id = _new_id()
        response.model_version_id = self.version_id
        _write_predictions(response.predictions, self._signature, answers.predictions)
        if answers.probabilities is not None:
            for label, values in zip(self._signature.classes, answers.probabilities.T.tolist(), strict=True):
                response.probabilities.add(label=label, values=values)

    def warm_up(self, manifest: ModelManifest) -> None:
        """Predict for a row of the training data a few times, and learn how quick that is."""
        example = manifest.input_example[0] if manifest.input_example else {}
        request = pb.PredictRequest()
        request.rows.rows.add().update({column.name: example.get(column.name) for column in self._signature.inputs})
        seconds = []
        for _ in range(_WARM_UP_RUNS):
            started = time.perf_counter()
            self.answer(request, pb.PredictResponse())
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


def _new_id() -> str:
    """A random UUID (version 4) without a call to the system, which takes longer than a prediction's arithmetic.

    It names a prediction and is no secret; the generator was seeded by the system.
    """
    digits = f"{_ids.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _write_predictions(column: table_pb2.Column, signature: Signature, predictions: NDArray[Any]) -> None:
    column.name = signature.output
    match signature.output_type:
        case StorageType.DOUBLE:
            column.doubles.values.extend(predictions.astype(np.float64).tolist())
        case StorageType.INT64:
            column.int64s.values.extend(predictions.astype(np.int64).tolist())
        case StorageType.BOOL:
            column.bools.values.extend(predictions.astype(np.bool_).tolist())
        case _:
            column.strings.values.extend(predictions.tolist())
