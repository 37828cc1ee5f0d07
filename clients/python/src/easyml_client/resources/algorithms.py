"""Algorithms and their settings."""

from __future__ import annotations

from typing import Any

from easyml.v1 import algorithm_pb2
from easyml_client.resources.base import Resource


class SearchRange(Resource[algorithm_pb2.SearchRange]):
    """Where a search looks for a good value."""

    low: float
    high: float
    log_scale: bool


class Hyperparameter(Resource[algorithm_pb2.Hyperparameter]):
    """One setting of an algorithm; a `default_value` of None is left to the library."""

    name: str
    description: str
    type: str | None
    default_value: Any
    minimum: float | None
    maximum: float | None
    exclusive_minimum: bool
    exclusive_maximum: bool
    choices: tuple[str, ...]
    nullable: bool
    search_range: SearchRange | None
    search_choices: tuple[str, ...]

    @property
    def accepts(self) -> str:
        """The values accepted, for people: "> 0 and ≤ 1", "gini, entropy"."""
        if self.choices:
            return ", ".join(self.choices)
        bounds = []
        if self.minimum is not None:
            bounds.append(f"{'>' if self.exclusive_minimum else '≥'} {self.minimum:g}")
        if self.maximum is not None:
            bounds.append(f"{'<' if self.exclusive_maximum else '≤'} {self.maximum:g}")
        return " and ".join(bounds)


class Algorithm(Resource[algorithm_pb2.Algorithm]):
    """A way to train; `task` is "classification" or "regression"."""

    name: str
    task: str | None
    display_name: str
    description: str
    implementation: str
    hyperparameters: tuple[Hyperparameter, ...]
    reports_iterations: bool
    predicts_probabilities: bool
    scales_inputs: bool
    supports_weights: bool
