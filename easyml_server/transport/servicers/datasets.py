"""DatasetService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from easyml.v1 import dataset_pb2, project_pb2
from easyml.v1 import dataset_service_pb2 as pb
from easyml.v1 import dataset_service_pb2_grpc as pb_grpc
from easyml_server.domain.datasets import Dataset
from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.limits import Limits
from easyml_server.domain.pages import Order
from easyml_server.services.datasets import DatasetService
from easyml_server.services.uploads import UploadService
from easyml_server.services.versions import VersionService
from easyml_server.transport import status
from easyml_server.transport.calls import CURRENT, Context, caller
from easyml_server.transport.converters.datasets import (
    dataset_to_proto,
    described_to_proto,
    preview_to_proto,
    schema_to_proto,
    to_change,
    to_stated,
    upload_to_proto,
)
from easyml_server.transport.converters.enums import DATASET_ORDER, FILE_FORMAT
from easyml_server.transport.converters.pages import MAX_PAGE_BYTES, by_name, by_time, fit, page_request
from easyml_server.transport.converters.projects import deleted_to_proto
from easyml_server.transport.converters.versions import pointer_to_proto

UPLOAD_ID = "x-upload-id"


async def _header(requests: AsyncIterator[pb.UploadDatasetRequest]) -> pb.UploadHeader:
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidInput.at("header", "The first message of an upload is its header; send that before the chunks.")
    return first.header


async def _chunks(requests: AsyncIterator[pb.UploadDatasetRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidInput.at("chunk", "After the header an upload has chunks only.")
        yield request.chunk


class DatasetServicer(pb_grpc.DatasetServiceServicer):
    """DatasetService on the wire."""

    def __init__(
        self,
        datasets: DatasetService,
        uploads: UploadService,
        versions: VersionService,
        limits: Limits,
        clock: Callable[[], datetime],
    ) -> None:
        self._datasets = datasets
        self._uploads = uploads
        self._versions = versions
        self._limits = limits
        self._clock = clock

    async def UploadDataset(
        self, request: AsyncIterator[pb.UploadDatasetRequest], context: Context
    ) -> pb.UploadDatasetResponse:
        header = await _header(request)
        stated = to_stated(header, self._limits, self._clock)

        async def announce(upload_id: UUID) -> None:
            await context.send_initial_metadata(((status.CALL_ID, CURRENT.get().id), (UPLOAD_ID, str(upload_id))))

        dataset = await self._uploads.upload(caller(), stated, _chunks(request), announce)
        return pb.UploadDatasetResponse(dataset=dataset_to_proto(dataset, full=True))

    async def GetUpload(self, request: pb.GetUploadRequest, context: Context) -> pb.GetUploadResponse:
        upload = await self._uploads.get(caller(), UUID(request.upload_id))
        return pb.GetUploadResponse(upload=upload_to_proto(upload))

    async def DownloadDataset(
        self, request: pb.DownloadDatasetRequest, context: Context
    ) -> AsyncIterator[pb.DownloadDatasetResponse]:
        download = await self._datasets.download(caller(), UUID(request.dataset_id), FILE_FORMAT.find(request.format))
        try:
            yield pb.DownloadDatasetResponse(
                header=pb.DownloadHeader(
                    filename=download.filename,
                    format=FILE_FORMAT.to_proto(download.format),
                    size_bytes=download.size_bytes,
                    sha256=download.sha256,
                )
            )
            async for chunk in download.content:
                yield pb.DownloadDatasetResponse(chunk=chunk)
        finally:
            await self._datasets.discard(download)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        dataset_id = UUID(request.dataset_id)
        if request.view == project_pb2.RESOURCE_VIEW_BASIC:
            dataset = await self._datasets.get(caller(), dataset_id)
            return pb.GetDatasetResponse(dataset=dataset_to_proto(dataset, full=True))
        return pb.GetDatasetResponse(dataset=described_to_proto(await self._datasets.describe(caller(), dataset_id)))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        order = DATASET_ORDER.get(request.order_by, Order.NEWEST_FIRST)
        page = await self._datasets.list(caller(), UUID(request.project_id), page_request(request, order))
        position = by_name if order is Order.BY_NAME else by_time
        if request.view == project_pb2.RESOURCE_VIEW_FULL:
            full = await self._described(page.items)
            datasets, token = fit(request, page, lambda dataset: full[dataset.id], position)
        else:
            datasets, token = fit(request, page, lambda dataset: dataset_to_proto(dataset, full=False), position)
        return pb.ListDatasetsResponse(datasets=datasets, next_page_token=token)

    async def _described(self, datasets: Sequence[Dataset]) -> Mapping[UUID, dataset_pb2.Dataset]:
        """In full, up to the first that does not fit on a page any more."""
        found: dict[UUID, dataset_pb2.Dataset] = {}
        size = 0
        async for each in self._datasets.described(datasets):
            found[each.dataset.id] = message = described_to_proto(each)
            size += message.ByteSize()
            # The first is on the page however large it is.
            if len(found) > 1 and size > MAX_PAGE_BYTES:
                break
        return found

    async def UpdateDataset(self, request: pb.UpdateDatasetRequest, context: Context) -> pb.UpdateDatasetResponse:
        dataset = await self._datasets.update(caller(), to_change(request), request.update_mask.paths)
        return pb.UpdateDatasetResponse(dataset=dataset_to_proto(dataset, full=True))

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.DeleteDatasetResponse:
        deleted = await self._datasets.delete(
            caller(),
            UUID(request.dataset_id),
            request.etag,
            force=request.force,
            validate_only=request.validate_only,
        )
        return pb.DeleteDatasetResponse(deleted=deleted_to_proto(deleted))

    async def GetDatasetDvcPointer(
        self, request: pb.GetDatasetDvcPointerRequest, context: Context
    ) -> pb.GetDatasetDvcPointerResponse:
        pointer = await self._versions.pointer_of_dataset(caller(), UUID(request.dataset_id))
        return pb.GetDatasetDvcPointerResponse(pointer=pointer_to_proto(pointer))

    async def PreviewDataset(self, request: pb.PreviewDatasetRequest, context: Context) -> pb.PreviewDatasetResponse:
        preview, schema = await self._datasets.preview(
            caller(), UUID(request.dataset_id), request.columns, request.rows
        )
        return pb.PreviewDatasetResponse(
            table=preview_to_proto(preview), schema=schema_to_proto(schema), truncated=preview.truncated
        )
