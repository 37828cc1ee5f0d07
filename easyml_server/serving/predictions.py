"""The answer of PredictionService, written from what a model says."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.models import Signature
from easyml_server.serving.notes import Answered

_ids: Final = Random()  # noqa: S311 (not a secret)


def write_response(version_id: str, signature: Signature, answered: Answered, response: pb.PredictResponse) -> None:
    """Fill in the answer to a request."""
    answers, notes = answered
    response.prediction_id = new_id()
    response.model_version_id = version_id
    _write_predictions(response.predictions, signature, answers.predictions)
    if answers.probabilities is not None:
        for label, values in zip(signature.classes, answers.probabilities.T.tolist(), strict=True):
            response.probabilities.add(label=label, values=values)
    if notes is not None:
        response.notes.extend(notes.kept)
        response.omitted_notes = notes.omitted


def new_id() -> str:
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
