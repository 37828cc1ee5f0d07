"""Which version to serve: `easyml models select`, and the same options of `easyml deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from easyml_client.cli.common import EVERYWHERE, Common, ProjectOption, chosen_project, connected
from easyml_client.cli.output import UsageError, print_done, print_table, size

if TYPE_CHECKING:
    from easyml_client.plans.selection import ModelSelectionCriteria
    from easyml_client.resources.selection import ModelCandidate

_GROUP = "Which version"


@Parameter(name="*")
@dataclass(frozen=True)
class Criteria:
    """What a version must meet to be chosen."""

    threshold: Annotated[float | None, Parameter(group=_GROUP, help="The worst value the metric may have.")] = None
    then: Annotated[
        tuple[str, ...],
        Parameter(
            name="--then",
            group=_GROUP,
            negative="",
            help="METRIC or METRIC=THRESHOLD that decides between equal ones; can be repeated.",
        ),
    ] = ()
    max_size: Annotated[
        int, Parameter(name="--max-size-bytes", group=_GROUP, help="Bytes the served form may have.")
    ] = 0
    max_time: Annotated[
        float, Parameter(name="--max-inference-time-ms", group=_GROUP, help="Milliseconds a row may take.")
    ] = 0
    validated: Annotated[
        bool, Parameter(group=_GROUP, negative="", help="Only versions that were cross-validated.")
    ] = False
    latest: Annotated[
        bool, Parameter(group=_GROUP, negative="", help="The newest that meets everything, not the best.")
    ] = False


ANY = Criteria()


def select(
    metric: str,
    model: str = "",
    /,
    *,
    criteria: Criteria = ANY,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Say which version is the best at a metric, and how each other one compares.

    Example: `easyml models select accuracy churn --threshold 0.9 --then log_loss`

    :param metric: What the best one is best at, over its test rows: accuracy, rmse …
    :param model: Name of the model; all models of the project if left out.
    """
    with connected(common) as client:
        found = client.models.select(chosen_project(client, project), asked_for(metric, model, criteria))
        version = found.model_version
        said = f"{version.model_name}:{version.version} it is. Serve it with: easyml deploy {version.id}"
        print_done(found, said, as_json=common.json)
        if not common.json:
            print_table(["RANK", "VERSION", "METRICS", "SIZE", "A ROW TAKES", "WHY"], map(_row, found.candidates))
        if found.truncated and not common.json:
            print("There are older versions, which were not looked at.")


def asked_for(metric: str, model: str, criteria: Criteria) -> ModelSelectionCriteria:
    """The criteria as the client takes them."""
    from easyml_client.plans.selection import ModelSelectionCriteria

    return ModelSelectionCriteria(
        metric,
        threshold=criteria.threshold,
        secondary=_secondary(criteria.then),
        model=model,
        max_size_bytes=criteria.max_size,
        max_inference_time_ms=criteria.max_time,
        require_validation=criteria.validated,
        prefer_latest=criteria.latest,
    )


def _secondary(texts: Sequence[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for text in texts:
        metric, equals, worst = text.partition("=")
        try:
            found[metric] = float(worst) if equals else None
        except ValueError:
            raise UsageError(f"--then takes METRIC or METRIC=THRESHOLD, such as log_loss=0.4; not {text!r}.") from None
    return found


def _row(candidate: ModelCandidate) -> list[object]:
    milliseconds = candidate.inference_time_ms
    return [
        candidate.rank or "-",
        f"{candidate.model_name}:{candidate.version}",
        ", ".join(f"{each.metric} {each.value:.4g}" for each in candidate.metrics),
        size(candidate.size_bytes),
        "" if milliseconds is None else f"{milliseconds:.3g} ms",
        candidate.reason,
    ]
