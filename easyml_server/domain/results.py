"""How a model did on its test rows, in more detail than metrics."""

from __future__ import annotations

from dataclasses import dataclass

CURVE_POINTS = 100
CURVE_CLASSES = 10
"""Of so many classes at most there are curves, those with the most test rows."""
CALIBRATION_BINS = 10
PAIRS = 200
RESIDUAL_SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class; `rows` are its test rows. Precision is 0 where it was never predicted, recall where it has no row."""

    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Test rows whose probability of a class lies from `lower` to a tenth above, and what is true of them."""

    lower: float
    rows: int
    mean_probability: float
    share: float


@dataclass(frozen=True, slots=True)
class ClassCurve:
    """One class against the rest, at falling thresholds of its score; the class is told by its position.

    A row counts as predicted where its score is at least the threshold. Calibration is there for probabilities.
    """

    position: int
    thresholds: tuple[float, ...]
    recalls: tuple[float, ...]
    false_positive_rates: tuple[float, ...]
    precisions: tuple[float, ...]
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class ClassificationResults:
    """The classes in the order of the signature; of `left_out` classes there is no curve, since others have more rows.

    The confusion matrix is the experiment's.
    """

    classes: tuple[ClassResult, ...]
    curves: tuple[ClassCurve, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class ResidualQuantile:
    """The residual (true minus predicted) that this share of the test rows does not exceed."""

    share: float
    residual: float


@dataclass(frozen=True, slots=True)
class TrueAndPredicted:
    """One test row."""

    true: float
    predicted: float


@dataclass(frozen=True, slots=True)
class RegressionResults:
    """`pairs` are test rows evenly chosen by the order of their true values, the smallest and the largest included."""

    residuals: tuple[ResidualQuantile, ...]
    pairs: tuple[TrueAndPredicted, ...]


@dataclass(frozen=True, slots=True)
class ModelResults:
    """Of all test rows; one of both is there."""

    rows: int
    classification: ClassificationResults | None = None
    regression: RegressionResults | None = None
