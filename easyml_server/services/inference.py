"""Use cases of the Open Inference Protocol: a deployment stands where the protocol has a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from easyml_server.domain.deployments import Condition, ConditionType, Deployment
from easyml_server.domain.users import Caller
from easyml_server.ports.store import Store

MOST_LISTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A deployment under one of its names, the version that answers for it if one does, and else why none does."""

    name: str
    version_id: UUID | None
    ready: bool
    reason: str


class InferenceService:
    """What inference.GRPCInferenceService has besides questions to a model, which are those of PredictionService."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def index(self, caller: Caller) -> list[ListedModel]:
        """Under all their names, the deployments of all projects that the caller sees and that are not stopped."""
        async with self._store.read() as work:
            found = await work.deployments.serving(caller, MOST_LISTED)
        return [listed for deployment, version_id in found for listed in _listed(deployment, version_id)]


def _listed(deployment: Deployment, version_id: UUID | None) -> list[ListedModel]:
    by_id, by_project, _ = deployment.model_names
    ready = bool(deployment.endpoints) or deployment.idle
    reason = "" if ready else _why(deployment.conditions)
    return [ListedModel(name, version_id, ready, reason) for name in (by_id, by_project)]


def _why(conditions: tuple[Condition, ...]) -> str:
    return next((each.message for each in conditions if each.type is ConditionType.AVAILABLE), "It was just made.")
