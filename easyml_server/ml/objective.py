"""What a good model is, applied to a target: weights of rows and classes, and the positive class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight

from easyml_server.domain.algorithms import Algorithm
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.experiments import FailureReason, Metric, Objective
from easyml_server.ml.refusal import Refused
from easyml_server.ml.target import Target

_TWO: Final = 2
_OF_POSITIVE: Final = (Metric.PRECISION, Metric.RECALL, Metric.F1)


@dataclass(frozen=True, slots=True)
class Aim:
    """A checked objective. `positive` is the position of the positive class."""

    objective: Objective
    target: Target
    row_weights: NDArray[np.float64] | None
    positive: int

    @property
    def weighs(self) -> bool:
        """Whether anything is learned with weights."""
        objective = self.objective
        return bool(objective.weight_column or objective.class_weights or objective.balance_classes)

    def weights_to_learn(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Row weights times class weights, which is what the estimators' own class weights come to."""
        if not self.weighs:
            return None
        weights = self._of_rows(rows)
        codes = self.target.codes
        if self.objective.balance_classes:
            balanced: NDArray[np.float64] = compute_sample_weight("balanced", codes[rows])
            return weights * balanced
        if self.objective.class_weights:
            given = {_spelled(name, self.target): weight for name, weight in self.objective.class_weights.items()}
            by_class = np.array([given.get(name, 1.0) for name in self.target.classes], dtype=np.float64)
            return weights * by_class[codes[rows]]
        return weights

    def weights_to_watch(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Weights for the losses of held-out rows while fitting: those of rows alone."""
        return self._of_rows(rows) if self.weighs else None

    def weights_to_measure(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Weights for metrics: those of rows alone, since class weights only steer the learning."""
        return None if self.row_weights is None else self.row_weights[rows]

    def _of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.ones(len(rows)) if self.row_weights is None else self.row_weights[rows]


def aim_of(objective: Objective, algorithm: Algorithm, target: Target, row_weights: NDArray[np.float64] | None) -> Aim:
    """The objective for this target. Raises Refused when a setting would do nothing or names no class."""
    classes = target.classes
    if not classes and (objective.positive_class or objective.class_weights or objective.balance_classes):
        raise Refused(FailureReason.FIT_REFUSED, "A regression has no classes; leave out the settings for classes.")
    unknown = [name for name in objective.class_weights if _spelled(name, target) not in classes]
    if unknown:
        raise _unsuitable(f"{len(unknown)} of the class weights name no class of the target; correct their spelling")
    if classes and len(classes) != _TWO and (objective.positive_class or objective.metric in _OF_POSITIVE):
        raise _unsuitable(
            f"A positive class, and the metrics precision, recall and f1 of it, need two classes, and the target has "
            f"{len(classes)}; use a metric over all classes, such as f1_macro"
        )
    aim = Aim(objective, target, row_weights, _positive(objective, target))
    if aim.weighs and not algorithm.supports_weights:
        raise Refused(
            FailureReason.FIT_REFUSED,
            f"{algorithm.display_name} cannot use weights of rows or classes; leave them out, or use another "
            "algorithm.",
        )
    return aim


def _positive(objective: Objective, target: Target) -> int:
    if not objective.positive_class:
        return max(len(target.labels) - 1, 0)
    name = _spelled(objective.positive_class, target)
    if name not in target.classes:
        raise _unsuitable("The positive class is no class of the target; correct its spelling")
    return target.classes.index(name)


def _spelled(name: str, target: Target) -> str:
    """Truths are written in many ways; here in lower case."""
    return name.lower() if target.output_type is StorageType.BOOL else name


def _unsuitable(message: str) -> Refused:
    return Refused(FailureReason.UNSUITABLE_TARGET, f"{message}.")
