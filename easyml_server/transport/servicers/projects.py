"""ProjectService on the wire."""

from __future__ import annotations

from uuid import UUID

from easyml.v1 import project_service_pb2 as pb
from easyml.v1 import project_service_pb2_grpc as pb_grpc
from easyml_server.domain.pages import Order
from easyml_server.services.projects import ProjectChange, ProjectService
from easyml_server.transport.calls import Context, caller, request_key
from easyml_server.transport.converters.enums import PROJECT_ORDER, ROLE
from easyml_server.transport.converters.pages import next_page_token, page_request
from easyml_server.transport.converters.projects import (
    config_to_proto,
    deleted_to_proto,
    member_to_proto,
    project_to_proto,
    to_config,
)


class ProjectServicer(pb_grpc.ProjectServiceServicer):
    """ProjectService on the wire."""

    def __init__(self, projects: ProjectService) -> None:
        self._projects = projects

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Context) -> pb.CreateProjectResponse:
        project = await self._projects.create(
            caller(), request_key(request), request.name, request.description, dict(request.labels)
        )
        return pb.CreateProjectResponse(project=project_to_proto(project))

    async def GetProject(self, request: pb.GetProjectRequest, context: Context) -> pb.GetProjectResponse:
        project = await self._projects.get(caller(), UUID(request.project_id))
        return pb.GetProjectResponse(project=project_to_proto(project))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Context) -> pb.ListProjectsResponse:
        order = PROJECT_ORDER.get(request.order_by, Order.NEWEST_FIRST)
        page = await self._projects.list(caller(), page_request(request, order))
        projects = [project_to_proto(project) for project in page.items]
        return pb.ListProjectsResponse(projects=projects, next_page_token=next_page_token(request, page))

    async def UpdateProject(self, request: pb.UpdateProjectRequest, context: Context) -> pb.UpdateProjectResponse:
        change = ProjectChange(
            UUID(request.project_id), request.name, request.description, dict(request.labels), request.etag
        )
        project = await self._projects.update(caller(), change, request.update_mask.paths)
        return pb.UpdateProjectResponse(project=project_to_proto(project))

    async def DeleteProject(self, request: pb.DeleteProjectRequest, context: Context) -> pb.DeleteProjectResponse:
        deleted = await self._projects.delete(
            caller(),
            UUID(request.project_id),
            request.etag,
            force=request.force,
            validate_only=request.validate_only,
        )
        return pb.DeleteProjectResponse(deleted=deleted_to_proto(deleted))

    async def GetProjectConfig(
        self, request: pb.GetProjectConfigRequest, context: Context
    ) -> pb.GetProjectConfigResponse:
        config = await self._projects.get_config(caller(), UUID(request.project_id))
        return pb.GetProjectConfigResponse(config=config_to_proto(config))

    async def UpdateProjectConfig(
        self, request: pb.UpdateProjectConfigRequest, context: Context
    ) -> pb.UpdateProjectConfigResponse:
        config = await self._projects.update_config(caller(), to_config(request.config), request.update_mask.paths)
        return pb.UpdateProjectConfigResponse(config=config_to_proto(config))

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        page = await self._projects.list_members(
            caller(), UUID(request.project_id), page_request(request, Order.OLDEST_FIRST)
        )
        members = [member_to_proto(member) for member in page.items]
        return pb.ListMembersResponse(members=members, next_page_token=next_page_token(request, page))

    async def SetMember(self, request: pb.SetMemberRequest, context: Context) -> pb.SetMemberResponse:
        member = await self._projects.set_member(
            caller(), UUID(request.project_id), request.email, ROLE.get(request.role)
        )
        return pb.SetMemberResponse(member=member_to_proto(member))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        await self._projects.remove_member(caller(), UUID(request.project_id), UUID(request.user_id))
        return pb.RemoveMemberResponse()
