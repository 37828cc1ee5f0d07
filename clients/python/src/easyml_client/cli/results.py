"""How a model did on its test rows, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyml_client.cli.output import print_table

if TYPE_CHECKING:
    from easyml_client.resources.results import ClassificationResults, ModelResults, RegressionResults


def print_results(results: ModelResults) -> None:
    """Each class, or the residuals; curves and single rows are in the JSON form."""
    if results.classification:
        _print_classes(results.classification)
    if results.regression:
        _print_residuals(results.regression)


def _print_classes(results: ClassificationResults) -> None:
    print()
    print_table(
        ["CLASS", "PRECISION", "RECALL", "F1", "TEST ROWS"],
        [[each.label, each.precision, each.recall, each.f1, each.rows] for each in results.classes],
    )


def _print_residuals(results: RegressionResults) -> None:
    if not results.residuals:
        return
    print()
    print_table(
        ["TRUE MINUS PREDICTED", *(_title(each.share) for each in results.residuals)],
        [["test rows", *(each.residual for each in results.residuals)]],
    )


def _title(share: float) -> str:
    return {0.0: "MIN", 0.5: "MEDIAN", 1.0: "MAX"}.get(share, f"{100 * share:.0f} %")
