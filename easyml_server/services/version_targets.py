"""What is to be served: a model version by id or name, or the best by criteria."""

from __future__ import annotations

from uuid import UUID

from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.selection import SelectionCriteria
from easyml_server.domain.users import Caller
from easyml_server.ports.store import UnitOfWork
from easyml_server.services.models import VersionName, find_version
from easyml_server.services.selection import select_version

VersionTarget = UUID | VersionName | SelectionCriteria


async def version_to_serve(work: UnitOfWork, caller: Caller, project_id: UUID, target: VersionTarget) -> ModelVersion:
    """The version, if it is of that project."""
    if isinstance(target, SelectionCriteria):
        return (await select_version(work, project_id, target, "model_version.criteria")).chosen
    version = await find_version(work, caller, target)
    if version.project_id != project_id:
        raise InvalidInput.at(
            "model_version", "This model version belongs to another project; deploy it in a project of its own."
        )
    return version
