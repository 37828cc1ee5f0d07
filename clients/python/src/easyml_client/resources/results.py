"""How a model did on its test rows, in more detail than metrics."""

from __future__ import annotations

from easyml.v1 import result_pb2
from easyml_client.resources.base import Resource


class ClassResult(Resource[result_pb2.ClassResult]):
    """How one class was predicted; `rows` are its test rows."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


class ThresholdPoint(Resource[result_pb2.ThresholdPoint]):
    """What comes of predicting a class where its score is at least the threshold."""

    threshold: float
    recall: float
    false_positive_rate: float
    precision: float


class CalibrationBin(Resource[result_pb2.CalibrationBin]):
    """The test rows whose probability lies from `lower` to a tenth above: what was said of them, and what is true."""

    lower: float
    rows: int
    mean_probability: float
    share: float


class ClassCurve(Resource[result_pb2.ClassCurve]):
    """One class against the rest, at falling thresholds: ROC and precision-recall curve, and calibration."""

    label: str
    points: tuple[ThresholdPoint, ...]
    calibration: tuple[CalibrationBin, ...]


class ClassificationResults(Resource[result_pb2.ClassificationResults]):
    """Each class; curves of the positive one of two, else of the ten with the most test rows."""

    classes: tuple[ClassResult, ...]
    curves: tuple[ClassCurve, ...]
    curves_left_out: int


class ResidualQuantile(Resource[result_pb2.ResidualQuantile]):
    """The residual (true minus predicted) that this share of the test rows does not exceed."""

    share: float
    residual: float


class TrueAndPredicted(Resource[result_pb2.TrueAndPredicted]):
    """One test row."""

    true_value: float
    predicted_value: float


class RegressionResults(Resource[result_pb2.RegressionResults]):
    """Residuals, and at most 200 test rows evenly chosen by their true values."""

    residuals: tuple[ResidualQuantile, ...]
    pairs: tuple[TrueAndPredicted, ...]


class ModelResults(Resource[result_pb2.ModelResults]):
    """Of all test rows, whose number is `rows`; of a classification or of a regression."""

    rows: int
    classification: ClassificationResults | None
    regression: RegressionResults | None
