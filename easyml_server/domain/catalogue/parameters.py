"""Short forms for writing hyperparameters down; bounds are the libraries', or tighter where more only hurts."""

from __future__ import annotations

from collections.abc import Sequence

from easyml_server.domain.algorithms import Hyperparameter, HyperparameterType, SearchRange

Range = tuple[float, float]


def integer(
    name: str,
    default: int | None,
    description: str,
    bounds: tuple[float, float],
    *,
    nullable: bool = False,
    search: Range | None = None,
    log: bool = False,
) -> Hyperparameter:
    """A whole number within bounds, both ends included."""
    return Hyperparameter(
        name,
        description,
        HyperparameterType.INTEGER,
        default,
        minimum=bounds[0],
        maximum=bounds[1],
        nullable=nullable,
        search_range=SearchRange(*search, log_scale=log) if search else None,
    )


def number(
    name: str,
    default: float | None,
    description: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    nullable: bool = False,
    search: Range | None = None,
    log: bool = False,
) -> Hyperparameter:
    """A number; `above` and `below` are refused themselves, `least` and `most` are accepted."""
    return Hyperparameter(
        name,
        description,
        HyperparameterType.NUMBER,
        default,
        minimum=least if above is None else above,
        maximum=most if below is None else below,
        exclusive_minimum=above is not None,
        exclusive_maximum=below is not None,
        nullable=nullable,
        search_range=SearchRange(*search, log_scale=log) if search else None,
    )


def boolean(name: str, default: bool | None, description: str) -> Hyperparameter:
    """True or false; without a default the library chooses, and null says so."""
    return Hyperparameter(name, description, HyperparameterType.BOOLEAN, default, nullable=default is None)


def choice(
    name: str,
    default: str | None,
    description: str,
    choices: Sequence[str],
    *,
    nullable: bool = False,
    search: Sequence[str] = (),
) -> Hyperparameter:
    """One of some words."""
    return Hyperparameter(
        name,
        description,
        HyperparameterType.CHOICE,
        default,
        choices=tuple(choices),
        nullable=nullable,
        search_choices=tuple(search),
    )


def integers(name: str, default: Sequence[int], description: str, bounds: tuple[float, float]) -> Hyperparameter:
    """A list of whole numbers, each within bounds."""
    return Hyperparameter(
        name, description, HyperparameterType.INTEGER_LIST, list(default), minimum=bounds[0], maximum=bounds[1]
    )


def max_iter(default: int, what: str = "Iterations at most, unless it converges before.") -> Hyperparameter:
    """The limit that nearly every solver has."""
    return integer("max_iter", default, what, (1, 1_000_000))


def tol(default: float) -> Hyperparameter:
    """The threshold that nearly every solver has."""
    return number("tol", default, "Stops when an iteration improves by less than this.", above=0, most=1)


FIT_INTERCEPT = boolean("fit_intercept", True, "Whether to learn a constant term.")
