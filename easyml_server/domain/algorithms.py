"""Algorithms and the schema of their settings. The algorithms themselves are listed in `catalogue`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from easyml_server.domain.errors import Violation
from easyml_server.domain.spelling import way_out

MAX_LIST = 16


class Task(StrEnum):
    """What a model does; names as in the contract."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class HyperparameterType(StrEnum):
    """Types of a setting; names as in the contract."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    INTEGER_LIST = "integer_list"


@dataclass(frozen=True, slots=True)
class SearchRange:
    """Where a search looks for a good value."""

    low: float
    high: float
    log_scale: bool = False


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One setting of an algorithm; `name` and meaning are the library's."""

    name: str
    description: str
    type: HyperparameterType
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    choices: tuple[str, ...] = ()
    nullable: bool = False
    search_range: SearchRange | None = None
    search_choices: tuple[str, ...] = ()

    def problem_with(self, value: Any) -> str | None:
        """Why a value is refused, as the end of a sentence; None if it is accepted."""
        if value is None:
            return None if self.nullable else "must not be null"
        match self.type:
            case HyperparameterType.BOOLEAN:
                return None if isinstance(value, bool) else "must be true or false"
            case HyperparameterType.CHOICE:
                return None if value in self.choices else f"must be one of {', '.join(self.choices)}"
            case HyperparameterType.INTEGER_LIST:
                if not isinstance(value, list) or not value or len(value) > MAX_LIST:
                    return f"must be a list of 1 to {MAX_LIST} whole numbers"
                return next((p for p in (self._number_problem(v, whole=True) for v in value) if p), None)
            case _:
                return self._number_problem(value, whole=self.type is HyperparameterType.INTEGER)

    def normalized(self, value: Any) -> Any:
        """An accepted value in the library's type: Struct numbers are floats, the library wants whole ones."""
        if self.type is HyperparameterType.INTEGER and value is not None:
            return int(value)
        if self.type is HyperparameterType.INTEGER_LIST and value is not None:
            return [int(v) for v in value]
        if self.type is HyperparameterType.NUMBER and value is not None:
            return float(value)
        return value

    def _number_problem(self, value: Any, *, whole: bool) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return "must be a whole number" if whole else "must be a number"
        if whole and value != int(value):
            return "must be a whole number"
        too_low = self.minimum is not None and (
            value < self.minimum or (self.exclusive_minimum and value == self.minimum)
        )
        too_high = self.maximum is not None and (
            value > self.maximum or (self.exclusive_maximum and value == self.maximum)
        )
        return f"must be {self._bounds()}" if too_low or too_high else None

    def _bounds(self) -> str:
        words = []
        if self.minimum is not None:
            words.append(f"{'greater than' if self.exclusive_minimum else 'at least'} {self.minimum:g}")
        if self.maximum is not None:
            words.append(f"{'less than' if self.exclusive_maximum else 'at most'} {self.maximum:g}")
        return " and ".join(words)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to train; `name` is unique within a task, `implementation` is the dotted class that does the work."""

    name: str
    task: Task
    display_name: str
    description: str
    implementation: str
    hyperparameters: tuple[Hyperparameter, ...]
    reports_iterations: bool = False
    predicts_probabilities: bool = False
    scales_inputs: bool = False
    supports_weights: bool = True

    def violations(self, values: Mapping[str, Any], field: str) -> Iterator[Violation]:
        """What is wrong with these settings, one violation per name; `field` is their path in the request."""
        known = {parameter.name: parameter for parameter in self.hyperparameters}
        for name, value in values.items():
            if name not in known:
                yield Violation(
                    f"{field}.{name}",
                    f"{self.name} has no hyperparameter {name!r}; {way_out(name, sorted(known))}",
                )
            elif problem := known[name].problem_with(value):
                yield Violation(f"{field}.{name}", f"{name} {problem}.")

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Accepted settings with the defaults filled in, in the library's types."""
        return {p.name: p.normalized(values.get(p.name, p.default)) for p in self.hyperparameters}
