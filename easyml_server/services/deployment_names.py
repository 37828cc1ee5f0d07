"""Deployments by what people call them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from easyml_server.domain.deployments import Deployment
from easyml_server.domain.errors import NotFound
from easyml_server.domain.pages import PageRequest
from easyml_server.domain.spelling import way_out
from easyml_server.domain.users import Caller
from easyml_server.ports.store import UnitOfWork


@dataclass(frozen=True, slots=True)
class DeploymentName:
    """A deployment by what people call it."""

    project_id: UUID
    name: str


async def find_deployment(work: UnitOfWork, caller: Caller, target: UUID | DeploymentName) -> Deployment:
    """One deployment that the caller can see, by id or name."""
    if isinstance(target, UUID):
        return await work.deployments.get(target, caller)
    await work.projects.get(target.project_id, caller)
    found = await work.deployments.find_by_name(target.project_id, target.name)
    if found is None:
        known = [each.name for each in (await work.deployments.list(target.project_id, PageRequest())).items]
        raise NotFound(
            f"There is no deployment {target.name!r} that you can see; {way_out(target.name, known)}",
            resource=("deployment", target.name),
        )
    return found
