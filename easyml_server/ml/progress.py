"""Fits an estimator and tells how it goes, by the library's own means only.

    logistic_regression (lbfgs)     scikit-learn's fit callbacks: every iteration, some with losses
    gradient_boosting               its monitor: every tree, with the training loss
    random_forest, extra_trees      grown in ten parts by `warm_start`, which draws the same trees as one fit
    xgboost, lightgbm               their callbacks: every tree, with the losses of learned and held-out rows

Everything else says nothing between the start and the end of its fit, and nothing is made up for it. What is held out
is looked at, never learned from: there is no early stopping on it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.metrics import log_loss

from easyml_server.domain.algorithms import Algorithm
from easyml_server.domain.events import IterationCompleted
from easyml_server.domain.experiments import Partition

_FOREST_PARTS: Final = 10
# Scores between iterations are a courtesy: on this many rows of each side at most.
_SCORED_ROWS: Final = 2000
_SCORED_EVERY: Final = 5


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as the estimator takes them; `weights` are None where all count alike."""

    inputs: NDArray[Any]
    target: NDArray[Any]
    weights: NDArray[np.float64] | None = None

    def head(self, count: int) -> Rows:
        """The first rows."""
        weights = None if self.weights is None else self.weights[:count]
        return Rows(self.inputs[:count], self.target[:count], weights)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told: `fold` counts from 1 and is 0 for the final fit, whose held-out rows are the test rows."""

    tell: Callable[[IterationCompleted], None]
    fold: int = 0

    @property
    def partition(self) -> Partition:
        """What the held-out rows are called."""
        return Partition.VALIDATION if self.fold else Partition.TEST

    def completed(self, iteration: int, iterations: int, values: Mapping[str, float]) -> None:
        """Pass on one iteration; values that are no numbers stay out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.tell(IterationCompleted(iteration, iterations, finite, self.fold))


def fit_estimator(algorithm: Algorithm, estimator: Any, learned: Rows, held_out: Rows, watch: Watch) -> Any:
    """Fit and return the estimator that predicts: the same one, or for XGBoost one around it (see `_fit_xgboost`)."""
    fit = _FITS.get(algorithm.name, _fit_plainly)
    return fit(estimator, learned, held_out, watch)


def _fit_plainly(estimator: Any, learned: Rows, _held_out: Rows, _watch: Watch) -> Any:
    return estimator.fit(learned.inputs, learned.target, **_weights(learned))


class _LbfgsCallback:
    """A `sklearn.callback.FitCallback` for logistic regression."""

    def __init__(self, learned: Rows, held_out: Rows, watch: Watch) -> None:
        self._watch = watch
        self._sides = {Partition.TRAIN: learned.head(_SCORED_ROWS), watch.partition: held_out.head(_SCORED_ROWS)}

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing to prepare."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing to put away."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Only ends are told."""

    def on_fit_task_end(
        self,
        estimator: Any,  # noqa: ARG002  # the protocol's
        context: Any,
        *,
        fitted_estimator: Any = None,
    ) -> None:
        """Tell an iteration; the library ends one more than it ran, without a fitted estimator."""
        if context.task_name != "lbfgs-iter" or fitted_estimator is None:
            return
        iteration = context.task_id + 1
        # A score takes longer than an iteration on a small table: not each of them has one.
        scored = iteration <= _SCORED_EVERY or iteration % _SCORED_EVERY == 0
        sides = self._sides.items() if scored else ()
        values = {f"{side}_log_loss": _log_loss(fitted_estimator, rows) for side, rows in sides}
        # How many there will be is not known: it stops when it has converged.
        self._watch.completed(iteration, 0, values)


def _fit_logistic_regression(estimator: Any, learned: Rows, held_out: Rows, watch: Watch) -> Any:
    if estimator.solver != "lbfgs":
        return _fit_plainly(estimator, learned, held_out, watch)
    estimator.set_callbacks(_LbfgsCallback(learned, held_out, watch))
    try:
        return _fit_plainly(estimator, learned, held_out, watch)
    finally:
        # It would be stored with the model.
        estimator.set_callbacks()


def _log_loss(estimator: Any, rows: Rows) -> float:
    probabilities = estimator.predict_proba(rows.inputs)
    return float(log_loss(rows.target, probabilities, sample_weight=rows.weights, labels=estimator.classes_))


def _fit_forest(estimator: Any, learned: Rows, held_out: Rows, watch: Watch) -> Any:
    trees = estimator.n_estimators
    # Trees compute in 32 bits; converted once here, each part takes the array as it is.
    inputs, labels, target = np.asarray(learned.inputs, dtype=np.float32), None, learned.target
    if is_classifier(estimator):
        # It does so itself, in each part anew, and sorting texts takes long.
        labels, target = np.unique(learned.target, return_inverse=True)
    learned = Rows(inputs, target, learned.weights)
    estimator.set_params(warm_start=True)
    for grown in sorted({math.ceil(trees * part / _FOREST_PARTS) for part in range(1, _FOREST_PARTS + 1)}):
        estimator.set_params(n_estimators=grown)
        _fit_plainly(estimator, learned, held_out, watch)
        watch.completed(grown, trees, {})
    if labels is not None:
        estimator.classes_ = labels
    return estimator.set_params(warm_start=False)


def _fit_gradient_boosting(estimator: Any, learned: Rows, _held_out: Rows, watch: Watch) -> Any:
    def monitor(iteration: int, fitting: Any, _locals: Any) -> bool:
        watch.completed(iteration + 1, estimator.n_estimators, {"train_loss": fitting.train_score_[iteration]})
        return False

    return estimator.fit(learned.inputs, learned.target, monitor=monitor, **_weights(learned))


def _fit_lightgbm(estimator: Any, learned: Rows, held_out: Rows, watch: Watch) -> Any:
    def tell(env: Any) -> None:
        values = {f"{side}_{metric}": value for side, metric, value, *_ in env.evaluation_result_list}
        watch.completed(env.iteration + 1, env.end_iteration, values)

    with warnings.catch_warnings():
        # Its successors, eval_X and eval_y, do not encode the classes of a classifier in LightGBM 4.7.
        warnings.filterwarnings("ignore", "The argument 'eval_set' is deprecated")
        return estimator.fit(
            learned.inputs,
            learned.target,
            eval_set=[(learned.inputs, learned.target), (held_out.inputs, held_out.target)],
            eval_names=[Partition.TRAIN.value, watch.partition.value],
            eval_sample_weight=_eval_weights(learned, held_out),
            callbacks=[tell],
            **_weights(learned),
        )


def _fit_xgboost(estimator: Any, learned: Rows, held_out: Rows, watch: Watch) -> Any:
    """XGBoost knows classes as 0, 1, 2 … only; scikit-learn's vote of one turns them back into the original values."""
    if not hasattr(estimator, "predict_proba"):
        return _boost_xgboost(estimator, learned, held_out, watch)
    from sklearn.ensemble import VotingClassifier
    from sklearn.frozen import FrozenEstimator

    labels, codes = np.unique(learned.target, return_inverse=True)
    coded = Rows(held_out.inputs, np.searchsorted(labels, held_out.target), held_out.weights)
    boosted = _boost_xgboost(estimator, Rows(learned.inputs, codes, learned.weights), coded, watch)
    # `flatten_transform` matters to no prediction, and the converter to ONNX wants it so.
    vote = VotingClassifier([("xgboost", FrozenEstimator(boosted))], voting="soft", flatten_transform=False)
    vote.fit(learned.inputs, learned.target)
    # Thawed: freezing only kept the vote from fitting it again.
    vote.set_params(xgboost=boosted)
    vote.estimators_ = [boosted]
    vote.named_estimators_ = {"xgboost": boosted}
    return vote


def _boost_xgboost(estimator: Any, learned: Rows, held_out: Rows, watch: Watch) -> Any:
    from xgboost.callback import TrainingCallback

    sides = (Partition.TRAIN, watch.partition)

    class Tell(TrainingCallback):
        def after_iteration(self, _model: Any, epoch: int, evals_log: Any) -> bool:
            values = {
                f"{side}_{metric}": history[-1]
                for side, log in zip(sides, evals_log.values(), strict=True)
                for metric, history in log.items()
            }
            watch.completed(epoch + 1, estimator.n_estimators, values)
            return False

    estimator.set_params(callbacks=[Tell()])
    estimator.fit(
        learned.inputs,
        learned.target,
        eval_set=[(learned.inputs, learned.target), (held_out.inputs, held_out.target)],
        sample_weight_eval_set=_eval_weights(learned, held_out),
        verbose=False,
        **_weights(learned),
    )
    # It would be stored with the model.
    return estimator.set_params(callbacks=None)


def _weights(rows: Rows) -> dict[str, Any]:
    """As arguments: k nearest neighbours have no such parameter at all."""
    return {} if rows.weights is None else {"sample_weight": rows.weights}


def _eval_weights(learned: Rows, held_out: Rows) -> list[Any] | None:
    return None if learned.weights is None else [learned.weights, held_out.weights]


_FITS: Final[Mapping[str, Callable[[Any, Rows, Rows, Watch], Any]]] = {
    "logistic_regression": _fit_logistic_regression,
    "random_forest": _fit_forest,
    "extra_trees": _fit_forest,
    "gradient_boosting": _fit_gradient_boosting,
    "lightgbm": _fit_lightgbm,
    "xgboost": _fit_xgboost,
}
