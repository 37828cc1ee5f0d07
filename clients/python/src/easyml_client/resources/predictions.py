"""Predictions."""

from __future__ import annotations

from typing import Any

from easyml.v1 import prediction_service_pb2
from easyml_client import tables
from easyml_client.resources.base import Resource, plain


class CellNote(Resource[prediction_service_pb2.CellNote]):
    """What happened to a cell: "null_filled" or "unseen_category"; the first row is 0."""

    row: int
    column: str
    kind: str | None


class Prediction(Resource[prediction_service_pb2.PredictResponse]):
    """One prediction per row; `prediction_id` refers to it later."""

    prediction_id: str
    model_version_id: str
    notes: tuple[CellNote, ...]
    omitted_notes: int

    @property
    def values(self) -> list[Any]:
        """The predictions, one per row."""
        return tables.values_of(self.proto.predictions)

    @property
    def probabilities(self) -> dict[str, list[float]]:
        """Probability of each class, one list per class; empty where the model has none."""
        return {share.label: list(share.values) for share in self.proto.probabilities}

    def to_frame(self) -> Any:
        """A pandas DataFrame with the column `prediction` and one `probability_<class>` per class; needs pandas."""
        shares = {f"probability_{label}": values for label, values in self.probabilities.items()}
        return tables.frame({"prediction": self.values, **shares})

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**super().to_dict(), "values": plain(self.values), "probabilities": self.probabilities}


class PredictionFailure(Resource[prediction_service_pb2.PredictError]):
    """Why one table of a stream has no prediction; the stream goes on."""

    reason: str
    message: str
    column: str | None
