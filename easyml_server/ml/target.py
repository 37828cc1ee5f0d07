"""The column to predict: whether it suits the task, and what the estimator learns from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.experiments import FailureReason
from easyml_server.ml.prepare import Cells, text_of
from easyml_server.ml.refusal import Refused

MAX_CLASSES: Final = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """What is learned. `codes` are positions in `labels`, which are the classes in the estimator's own order."""

    values: NDArray[Any]
    output_type: StorageType
    labels: NDArray[Any]
    codes: NDArray[np.int64]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes as text, in the order of the probabilities; none for a regression."""
        return tuple(text_of(label) for label in self.labels.tolist())

    def codes_of(self, predictions: NDArray[Any]) -> NDArray[np.int64]:
        """Positions of predicted classes in `labels`."""
        return np.searchsorted(self.labels, predictions).astype(np.int64)


def target_of(cells: Cells, storage_type: StorageType, task: Task) -> Target:
    """The target of rows that all have one. Raises Refused (UNSUITABLE_TARGET)."""
    if storage_type is StorageType.TIMESTAMP:
        raise _unsuitable("The target holds points in time, which cannot be predicted; choose another column.")
    return _classes(cells, storage_type) if task is Task.CLASSIFICATION else _numbers(cells, storage_type)


def _numbers(cells: Cells, storage_type: StorageType) -> Target:
    if storage_type not in (StorageType.INT64, StorageType.DOUBLE):
        raise _unsuitable("A regression predicts numbers and the target holds none; use classification instead.")
    values = cells.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise _unsuitable("The target holds infinite numbers; replace or remove those rows.")
    if values.min() == values.max():
        raise _unsuitable("The target is the same number in every row; there is nothing to learn.")
    return Target(values, StorageType.DOUBLE, np.empty(0), np.empty(0, dtype=np.int64))


def _classes(cells: Cells, storage_type: StorageType) -> Target:
    values = _class_values(cells, storage_type)
    labels, codes = np.unique(values, return_inverse=True)
    if len(labels) == 1:
        raise _unsuitable("The target is the same class in every row; there is nothing to tell apart.")
    if len(labels) > MAX_CLASSES or len(labels) > len(values) / 2:
        way_out = "choose a column with fewer classes"
        if storage_type in (StorageType.INT64, StorageType.DOUBLE):
            way_out = "use regression, or " + way_out
        raise _unsuitable(
            f"The target has {len(labels):,} classes in {len(values):,} rows, too many to learn "
            f"(at most {MAX_CLASSES:,}, with two rows each on average); {way_out}."
        )
    output_type = StorageType.INT64 if storage_type is StorageType.DOUBLE else storage_type
    return Target(values, output_type, labels, codes.astype(np.int64))


def _class_values(cells: Cells, storage_type: StorageType) -> NDArray[Any]:
    if storage_type is StorageType.STRING:
        # NumPy's own text: arrays of objects are neither quick nor plain in a stored model.
        return cells.values.astype(np.str_)
    if storage_type is not StorageType.DOUBLE:
        return cells.values
    values = cells.values.astype(np.float64)
    if not np.isfinite(values).all() or (np.abs(values) > 2**53).any() or (values != np.floor(values)).any():
        raise _unsuitable("The target holds numbers with fractions, which are no classes; use regression instead.")
    return values.astype(np.int64)


def _unsuitable(message: str) -> Refused:
    return Refused(FailureReason.UNSUITABLE_TARGET, message)
