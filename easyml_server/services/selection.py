"""Finds the model version of a project that meets criteria best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from easyml_server.domain.errors import InvalidInput, Reason, Violation, WrongState
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.pages import PageRequest
from easyml_server.domain.selection import Candidate, SelectionCriteria, rank
from easyml_server.ports.store import UnitOfWork

MAX_CANDIDATES: Final = 1_000
MAX_REASONS: Final = 10
LONGEST_REASON: Final = 150
"""Errors travel in the trailers of a call, which clients read up to 8 KiB."""
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Selection:
    """The ranking, the chosen version first; `truncated` if there are older versions that were not looked at."""

    candidates: tuple[Candidate, ...]
    truncated: bool

    @property
    def chosen(self) -> ModelVersion:
        """The version that meets the criteria best."""
        return self.candidates[0].version


async def select_version(
    work: UnitOfWork, project_id: UUID, criteria: SelectionCriteria, field: str = "criteria"
) -> Selection:
    """Rank the versions of a project that the caller may see. WrongState if none meets the criteria."""
    _check(criteria, field)
    if criteria.model_name:
        await work.models.get_model(project_id, criteria.model_name)
    versions, truncated = await _newest(work, project_id, criteria.model_name)
    candidates = rank(versions, criteria)
    if not candidates or not candidates[0].eligible:
        raise _nothing_eligible(candidates)
    return Selection(tuple(candidates), truncated)


def _check(criteria: SelectionCriteria, field: str) -> None:
    seen = {criteria.primary.metric}
    for number, criterion in enumerate(criteria.secondary):
        at = f"{field}.secondary_metrics[{number}].metric"
        if criterion.metric in seen:
            raise InvalidInput.at(at, f"{criterion.metric.value} is asked for already; name each metric once.")
        if criterion.metric.task is not criteria.primary.metric.task:
            raise InvalidInput.at(
                at,
                f"{criterion.metric.value} measures a {criterion.metric.task.value}, and "
                f"{criteria.primary.metric.value} does not; ask for metrics of one task.",
            )
        seen.add(criterion.metric)


async def _newest(work: UnitOfWork, project_id: UUID, model_name: str) -> tuple[list[ModelVersion], bool]:
    """In pages, so that others have their turn while rows become versions."""
    versions: list[ModelVersion] = []
    page = await work.models.list_versions(project_id, PageRequest(size=_PAGE), model_name)
    versions += page.items
    while page.next is not None and len(versions) < MAX_CANDIDATES:
        page = await work.models.list_versions(project_id, PageRequest(size=_PAGE, after=page.next), model_name)
        versions += page.items
    return versions, page.next is not None


def _nothing_eligible(candidates: list[Candidate]) -> WrongState:
    if not candidates:
        return WrongState(
            "The project has no model versions yet; train one first.",
            Reason.NO_ELIGIBLE_MODEL,
            metadata={"candidates": "0"},
        )
    newest = candidates[0]
    return WrongState(
        f"None of {len(candidates)} model versions meets the criteria; relax them, or train one that does. "
        f"{_named(newest)}: {newest.reason}",
        Reason.NO_ELIGIBLE_MODEL,
        metadata={"candidates": str(len(candidates))},
        violations=[Violation(_named(each), _short(each.reason)) for each in candidates[:MAX_REASONS]],
    )


def _named(candidate: Candidate) -> str:
    return f"{candidate.version.model_name[:40]}:{candidate.version.version}"


def _short(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"
