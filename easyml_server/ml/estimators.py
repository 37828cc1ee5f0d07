"""Builds the estimator of an algorithm: complete settings, one thread, one seed, so that a repetition is exact."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from easyml_server.domain.algorithms import Algorithm, HyperparameterType

# The boosters keep seeds in signed 32 bits.
_SEEDS: Final = {"lightgbm": 2**31, "xgboost": 2**31}

# What makes a run repeatable to the last digit, or silent; none of it changes what is learned.
_FIXED: Final[Mapping[str, Mapping[str, Any]]] = {
    "lightgbm": {"deterministic": True, "force_row_wise": True, "verbosity": -1},
    "xgboost": {"verbosity": 0},
}


def build_estimator(algorithm: Algorithm, settings: Mapping[str, Any], seed: int) -> Any:
    """The unfitted estimator, from settings as `Algorithm.complete` gives them."""
    library = algorithm.implementation.partition(".")[0]
    kind = _class_of(algorithm)
    given = _arguments(algorithm, settings)
    accepted = inspect.signature(kind.__init__).parameters
    boosts = library in _SEEDS
    if boosts or "random_state" in accepted:
        given["random_state"] = seed % _SEEDS.get(library, 2**32)
    if boosts or ("n_jobs" in accepted and "linear_model" not in algorithm.implementation):
        given["n_jobs"] = 1
    return kind(**given, **_FIXED.get(library, {}))


def answers_most_probable(estimator: Any) -> bool:
    """Whether its classes are the most probable ones, so that they can be read off probabilities it gave already.

    Forests do so themselves; a second walk through their trees would take as long as the first.
    """
    return isinstance(estimator, RandomForestClassifier | ExtraTreesClassifier)


def _class_of(algorithm: Algorithm) -> Any:
    module, _, name = algorithm.implementation.rpartition(".")
    return getattr(import_module(module), name)


def _arguments(algorithm: Algorithm, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Null where null is the default means that the library chooses, so it is not passed on."""
    arguments = {}
    for parameter in algorithm.hyperparameters:
        value = settings[parameter.name]
        if value is None and parameter.default is None:
            continue
        arguments[parameter.name] = tuple(value) if parameter.type is HyperparameterType.INTEGER_LIST else value
    return arguments
