"""How a model did on its test rows, in detail."""

from __future__ import annotations

from collections.abc import Sequence

from easyml.v1 import result_pb2 as pb
from easyml_server.domain.results import ClassCurve, ClassificationResults, ModelResults, RegressionResults


def results_to_proto(results: ModelResults | None, labels: Sequence[str]) -> pb.ModelResults | None:
    """With the classes by name; None stays unset."""
    if results is None:
        return None
    classification, regression = results.classification, results.regression
    return pb.ModelResults(
        rows=results.rows,
        classification=_classification(classification, labels) if classification else None,
        regression=_regression(regression) if regression else None,
    )


def _classification(results: ClassificationResults, labels: Sequence[str]) -> pb.ClassificationResults:
    return pb.ClassificationResults(
        classes=[
            pb.ClassResult(label=label, precision=each.precision, recall=each.recall, f1=each.f1, rows=each.rows)
            for label, each in zip(labels, results.classes, strict=True)
        ],
        curves=[_curve(curve, labels[curve.position]) for curve in results.curves],
        curves_left_out=results.left_out,
    )


def _curve(curve: ClassCurve, label: str) -> pb.ClassCurve:
    points = zip(curve.thresholds, curve.recalls, curve.false_positive_rates, curve.precisions, strict=True)
    return pb.ClassCurve(
        label=label,
        points=[
            pb.ThresholdPoint(threshold=threshold, recall=recall, false_positive_rate=rate, precision=precision)
            for threshold, recall, rate, precision in points
        ],
        calibration=[
            pb.CalibrationBin(
                lower=each.lower, rows=each.rows, mean_probability=each.mean_probability, share=each.share
            )
            for each in curve.calibration
        ],
    )


def _regression(results: RegressionResults) -> pb.RegressionResults:
    return pb.RegressionResults(
        residuals=[pb.ResidualQuantile(share=each.share, residual=each.residual) for each in results.residuals],
        pairs=[pb.TrueAndPredicted(true_value=each.true, predicted_value=each.predicted) for each in results.pairs],
    )
