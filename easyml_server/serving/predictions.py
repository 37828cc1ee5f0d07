"""The answer of PredictionService, written from what a model says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.models import Signature
from easyml_server.domain.random_ids import random_id
from easyml_server.serving.notes import Answered


def write_response(version_id: str, signature: Signature, answered: Answered, response: pb.PredictResponse) -> None:
    """Fill in the answer to a request."""
    answers, notes = answered
    response.prediction_id = random_id()
    response.model_version_id = version_id
    _write_predictions(response.predictions, signature, answers.predictions)
    if answers.probabilities is not None:
        for label, values in zip(signature.classes, answers.probabilities.T.tolist(), strict=True):
            response.probabilities.add(label=label, values=values)
    if notes is not None:
        response.notes.extend(notes.kept)
        response.omitted_notes = notes.omitted


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
