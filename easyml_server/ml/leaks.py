"""Looks for features that give the target away, each alone: usually it was written after the fact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from easyml_server.domain.experiments import TrainingWarning, TrainingWarningKind
from easyml_server.domain.models import SignatureColumn
from easyml_server.ml.prepare import Encoding, encoding_of
from easyml_server.ml.target import Target

# The check has to stay cheap beside a training: so many rows and columns, and no more leaves than this in a tree.
_ROWS: Final = 1000
_COLUMNS: Final = 200
_LEAVES: Final = 16
_MIN_ROWS: Final = 20
_NEARLY: Final = 0.995


def possible_leaks(
    inputs: Sequence[SignatureColumn], prepared: pd.DataFrame, target: Target, train: NDArray[np.int64]
) -> Iterator[TrainingWarning]:
    """A warning for each numeric column that alone predicts the target (nearly) perfectly.

    For classes: a tree with one leaf per class gets all but 0.5 % of the rows right, and guessing does not. For
    numbers: the correlation is above 0.999.
    """
    rows = train[np.linspace(0, len(train) - 1, min(len(train), _ROWS)).astype(np.int64)]
    for name in [c.name for c in inputs if encoding_of(c.storage_type, c.kind) is Encoding.NUMBER][:_COLUMNS]:
        values = prepared[name].to_numpy()[rows]
        known = ~np.isnan(values)
        if known.sum() >= _MIN_ROWS and _gives_away(values[known], target, rows[known]):
            yield TrainingWarning(
                TrainingWarningKind.POSSIBLE_LEAK,
                name,
                f"Column {name!r} alone predicts the target (nearly) perfectly; check that it is known before the "
                "target is.",
            )


def _gives_away(values: NDArray[np.float64], target: Target, rows: NDArray[np.int64]) -> bool:
    if np.ptp(values) == 0:
        return False
    if not len(target.labels):
        truth = target.values[rows]
        return bool(np.ptp(truth) > 0 and abs(np.corrcoef(values, truth)[0, 1]) > 1 - (1 - _NEARLY) / 5)
    codes = target.codes[rows]
    shares = np.bincount(codes) / len(codes)
    classes = int((shares > 0).sum())
    if not 1 < classes <= _LEAVES or shares.max() >= _NEARLY:
        return False
    return _tree_score(values.reshape(-1, 1), codes, classes) >= _NEARLY


def _tree_score(values: NDArray[Any], codes: NDArray[np.int64], leaves: int) -> float:
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
    return float(tree.fit(values, codes).score(values, codes))
