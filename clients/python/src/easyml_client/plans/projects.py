"""Projects, their members and configuration."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from easyml.v1 import project_pb2
from easyml.v1 import project_service_pb2 as pb
from easyml_client.plans.paging import pages
from easyml_client.plans.references import ProjectRef, project_id
from easyml_client.resources.projects import DeletedResources, Project, ProjectConfig, ProjectMember
from easyml_client.steps import Plan, Stream, call
from easyml_client.values import enum_number, to_struct


def create(
    name: str, *, description: str = "", labels: Mapping[str, str] | None = None, request_id: str | None = None
) -> Plan[Project]:
    """Make a project that you own; the same request_id makes it once."""
    request = pb.CreateProjectRequest(
        request_id=request_id or str(uuid.uuid4()), name=name, description=description, labels=labels or {}
    )
    return Project.of((yield from call(request, pb.CreateProjectResponse)).project)


def get(project: ProjectRef) -> Plan[Project]:
    """One project, by name or id."""
    request = pb.GetProjectRequest(project_id=(yield from project_id(project)))
    return Project.of((yield from call(request, pb.GetProjectResponse)).project)


def list_(
    *, name_prefix: str = "", labels: Mapping[str, str] | None = None, order_by: str | None = None, page_size: int = 0
) -> Stream[Project]:
    """The projects you can see, newest first; `order_by` is "create_time_desc", "create_time_asc" or "name_asc"."""
    request = pb.ListProjectsRequest(
        name_prefix=name_prefix,
        labels=labels or {},
        order_by=enum_number("order_by", pb.ProjectOrder, order_by),
        page_size=page_size,
    )
    yield from pages(request, pb.ListProjectsResponse, lambda page: map(Project.of, page.projects))


def update(
    project: ProjectRef,
    *,
    name: str | None = None,
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    etag: str = "",
) -> Plan[Project]:
    """Change what is not None; with an etag only if nobody else was faster."""
    request = pb.UpdateProjectRequest(
        project_id=(yield from project_id(project)),
        name=name or "",
        description=description or "",
        labels=labels or {},
        etag=etag,
    )
    request.update_mask.paths.extend(_given(name=name, description=description, labels=labels))
    return Project.of((yield from call(request, pb.UpdateProjectResponse)).project)


def delete(
    project: ProjectRef, *, force: bool = False, validate_only: bool = False, etag: str = ""
) -> Plan[DeletedResources]:
    """Delete a project; with force also what is in it. `validate_only` says what would go."""
    request = pb.DeleteProjectRequest(
        project_id=(yield from project_id(project)), force=force, validate_only=validate_only, etag=etag
    )
    return DeletedResources.of((yield from call(request, pb.DeleteProjectResponse)).deleted)


def get_config(project: ProjectRef) -> Plan[ProjectConfig]:
    """What trainings and storage of the project start from."""
    request = pb.GetProjectConfigRequest(project_id=(yield from project_id(project)))
    return ProjectConfig.of((yield from call(request, pb.GetProjectConfigResponse)).config)


def update_config(
    project: ProjectRef,
    *,
    default_hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    mlflow_experiment: str | None = None,
    max_bytes: int | None = None,
    keep_original_files: bool | None = None,
    visibility: str | None = None,
    etag: str = "",
) -> Plan[ProjectConfig]:
    """Change what is not None; `default_hyperparameters`, by algorithm, replace all that were there.

    The two storage settings change together: the one left out keeps its value.
    """
    storage = (max_bytes, keep_original_files) if (max_bytes, keep_original_files) != (None, None) else None
    config = project_pb2.ProjectConfig(
        project_id=(yield from project_id(project)),
        mlflow_experiment=mlflow_experiment or "",
        visibility=enum_number("visibility", project_pb2.ProjectVisibility, visibility),
        etag=etag,
    )
    for algorithm, settings in (default_hyperparameters or {}).items():
        config.default_hyperparameters[algorithm].CopyFrom(to_struct(settings))
    if storage:
        before = yield from call(pb.GetProjectConfigRequest(project_id=config.project_id), pb.GetProjectConfigResponse)
        config.storage.CopyFrom(before.config.storage)
        config.storage.max_bytes = config.storage.max_bytes if max_bytes is None else max_bytes
        if keep_original_files is not None:
            config.storage.keep_original_files = keep_original_files
    request = pb.UpdateProjectConfigRequest(config=config)
    request.update_mask.paths.extend(
        _given(
            default_hyperparameters=default_hyperparameters,
            mlflow_experiment=mlflow_experiment,
            storage=storage,
            visibility=visibility,
        )
    )
    return ProjectConfig.of((yield from call(request, pb.UpdateProjectConfigResponse)).config)


def list_members(project: ProjectRef, *, page_size: int = 0) -> Stream[ProjectMember]:
    """The members, oldest first."""
    request = pb.ListMembersRequest(project_id=(yield from project_id(project)), page_size=page_size)
    yield from pages(request, pb.ListMembersResponse, lambda page: map(ProjectMember.of, page.members))


def set_member(project: ProjectRef, email: str, role: str) -> Plan[ProjectMember]:
    """Add a user, or change the user's role: "viewer", "editor" or "owner"."""
    request = pb.SetMemberRequest(
        project_id=(yield from project_id(project)), email=email, role=enum_number("role", project_pb2.Role, role)
    )
    return ProjectMember.of((yield from call(request, pb.SetMemberResponse)).member)


def remove_member(project: ProjectRef, user_id: str) -> Plan[None]:
    """Take a user out of the project."""
    request = pb.RemoveMemberRequest(project_id=(yield from project_id(project)), user_id=user_id)
    yield from call(request, pb.RemoveMemberResponse)


def _given(**values: object) -> list[str]:
    """The names of what is not None: the paths of an update mask."""
    return [name for name, value in values.items() if value is not None]
