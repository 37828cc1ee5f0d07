"""ModelService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from easyml.v1 import model_service_pb2 as pb
from easyml.v1 import model_service_pb2_grpc as pb_grpc
from easyml.v1 import project_pb2
from easyml_server.services.models import ModelService
from easyml_server.services.versions import VersionService
from easyml_server.transport.calls import Context, caller
from easyml_server.transport.converters.enums import ARTIFACT_FORMAT
from easyml_server.transport.converters.models import (
    alias_entry_to_proto,
    described_to_proto,
    model_to_proto,
    to_version_name,
    version_to_proto,
)
from easyml_server.transport.converters.pages import by_time, fit, next_page_token, page_request
from easyml_server.transport.converters.projects import deleted_to_proto
from easyml_server.transport.converters.selection import selection_to_proto, to_criteria
from easyml_server.transport.converters.values import to_time
from easyml_server.transport.converters.versions import pointer_to_proto


class ModelServicer(pb_grpc.ModelServiceServicer):
    """ModelService on the wire."""

    def __init__(self, models: ModelService, versions: VersionService) -> None:
        self._models = models
        self._versions = versions

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        page = await self._models.list(caller(), UUID(request.project_id), page_request(request))
        models = [model_to_proto(model) for model in page.items]
        return pb.ListModelsResponse(models=models, next_page_token=next_page_token(request, page))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        page = await self._models.list_versions(
            caller(), UUID(request.project_id), page_request(request), request.model_name, request.alias
        )
        full = request.view == project_pb2.RESOURCE_VIEW_FULL
        versions, token = fit(request, page, lambda version: version_to_proto(version, full=full), by_time)
        return pb.ListModelVersionsResponse(model_versions=versions, next_page_token=token)

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Context) -> pb.GetModelVersionResponse:
        by_id = request.WhichOneof("target") == "model_version_id"
        target = UUID(request.model_version_id) if by_id else to_version_name(request.name)
        if request.view == project_pb2.RESOURCE_VIEW_BASIC:
            version = await self._models.get_version(caller(), target)
            return pb.GetModelVersionResponse(model_version=version_to_proto(version, full=True))
        described = await self._models.describe_version(caller(), target)
        return pb.GetModelVersionResponse(model_version=described_to_proto(described))

    async def GetModelVersionDvcPointer(
        self, request: pb.GetModelVersionDvcPointerRequest, context: Context
    ) -> pb.GetModelVersionDvcPointerResponse:
        pointer = await self._versions.pointer_of_model_version(caller(), UUID(request.model_version_id))
        return pb.GetModelVersionDvcPointerResponse(pointer=pointer_to_proto(pointer))

    async def SelectModel(self, request: pb.SelectModelRequest, context: Context) -> pb.SelectModelResponse:
        selection = await self._models.select(caller(), UUID(request.project_id), to_criteria(request.criteria))
        return selection_to_proto(selection)

    async def UpdateModelVersion(
        self, request: pb.UpdateModelVersionRequest, context: Context
    ) -> pb.UpdateModelVersionResponse:
        version = await self._models.update_version(
            caller(),
            UUID(request.model_version_id),
            request.description,
            dict(request.labels),
            request.update_mask.paths,
            request.etag,
        )
        return pb.UpdateModelVersionResponse(model_version=version_to_proto(version, full=True))

    async def DeleteModelVersion(
        self, request: pb.DeleteModelVersionRequest, context: Context
    ) -> pb.DeleteModelVersionResponse:
        deleted = await self._models.delete_version(
            caller(),
            UUID(request.model_version_id),
            request.etag,
            force=request.force,
            validate_only=request.validate_only,
        )
        return pb.DeleteModelVersionResponse(deleted=deleted_to_proto(deleted))

    async def SetModelAlias(self, request: pb.SetModelAliasRequest, context: Context) -> pb.SetModelAliasResponse:
        version = await self._models.set_alias(caller(), UUID(request.model_version_id), request.alias)
        return pb.SetModelAliasResponse(model_version=version_to_proto(version, full=True))

    async def DeleteModelAlias(
        self, request: pb.DeleteModelAliasRequest, context: Context
    ) -> pb.DeleteModelAliasResponse:
        await self._models.delete_alias(caller(), UUID(request.project_id), request.model_name, request.alias)
        return pb.DeleteModelAliasResponse()

    async def ListAliasHistory(
        self, request: pb.ListAliasHistoryRequest, context: Context
    ) -> pb.ListAliasHistoryResponse:
        page = await self._models.list_alias_history(
            caller(),
            UUID(request.project_id),
            request.model_name,
            page_request(request),
            request.alias,
            to_time(request.at_time, "at_time") if request.HasField("at_time") else None,
        )
        entries = [alias_entry_to_proto(entry) for entry in page.items]
        return pb.ListAliasHistoryResponse(entries=entries, next_page_token=next_page_token(request, page))

    async def ExportModel(
        self, request: pb.ExportModelRequest, context: Context
    ) -> AsyncIterator[pb.ExportModelResponse]:
        export = await self._models.export(
            caller(), UUID(request.model_version_id), ARTIFACT_FORMAT.get(request.format)
        )
        try:
            yield pb.ExportModelResponse(
                header=pb.ExportHeader(
                    filename=export.filename,
                    format=ARTIFACT_FORMAT.to_proto(export.format),
                    size_bytes=export.size_bytes,
                    sha256=export.sha256,
                )
            )
            async for chunk in export.content:
                yield pb.ExportModelResponse(chunk=chunk)
        finally:
            await self._models.discard(export)
