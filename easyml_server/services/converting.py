"""Uploads whose bytes are all there become datasets: checked, converted, published, and only then told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from easyml_server.domain.datasets import Conversion, ConvertedTable, Dataset, DatasetVersion, Upload, UploadState
from easyml_server.domain.disk import disk_errors
from easyml_server.domain.errors import EasyMLError, InvalidInput, Reason
from easyml_server.domain.faults import fault_point
from easyml_server.domain.limits import Limits
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.store import Store
from easyml_server.ports.tables import TableReader
from easyml_server.services.versions import ADD_DATASET_VERSION

TABLE_FILE = "table.parquet"
ORIGINAL_FILE = "original"


class UploadConverter:
    """Makes datasets of uploads that were received whole."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        tables: TableReader,
        limits: Limits,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._tables = tables
        self._limits = limits
        self._clock = clock

    async def finish(self, caller: Caller, upload: Upload) -> Dataset:
        """Make the dataset. Any error leaves the upload as it was received, and nothing of the dataset."""
        fault_point("upload.received")
        upload = replace(await self._check_sha256(upload), state=UploadState.CONVERTING)
        await self._put(upload)
        async with self._store.read() as work:
            config = await work.projects.get_config(upload.project_id)
        work_path = self._artifacts.new_work_path()
        try:
            table = await self._tables.convert(
                Conversion(
                    source=str(self._path(upload)),
                    format=upload.format,
                    options=upload.read_options,
                    target=str(work_path / TABLE_FILE),
                    limits=self._limits.table,
                )
            )
            fault_point("upload.converted")
            dataset = self._dataset(upload, table, keep_original=config.keep_original_files)
            await _whole(self._publish(caller, upload, dataset, work_path))
        finally:
            await self._artifacts.remove(work_path)
        return dataset

    async def _publish(self, caller: Caller, upload: Upload, dataset: Dataset, work_path: Path) -> None:
        if dataset.current.keeps_original:
            # A link, not a move: until the row commits, a crash must find the upload's bytes where they were.
            with disk_errors():
                await asyncio.to_thread((work_path / ORIGINAL_FILE).hardlink_to, self._path(upload))
        final_path = self._artifacts.dataset_path(upload.project_id, dataset.current.id)
        await self._artifacts.publish(work_path, final_path)
        fault_point("upload.published")
        try:
            async with self._store.begin() as work:
                await work.projects.get(upload.project_id, caller)
                await work.datasets.add(dataset)
                await work.outbox.add(ADD_DATASET_VERSION, dataset.current.id, self._clock())
                await work.datasets.put_upload(replace(upload, state=UploadState.COMPLETED, dataset_id=dataset.id))
                await work.commit()
        except EasyMLError:
            await self._artifacts.remove(final_path)
            raise
        self._artifacts.committed(final_path)
        fault_point("upload.committed")
        await self._artifacts.remove(self._path(upload))

    def _dataset(self, upload: Upload, table: ConvertedTable, *, keep_original: bool) -> Dataset:
        now = self._clock()
        dataset_id = uuid4()
        version = DatasetVersion(
            id=uuid4(),
            dataset_id=dataset_id,
            project_id=upload.project_id,
            version=1,
            filename=upload.filename,
            format=upload.format,
            size_bytes=upload.size_bytes,
            sha256=upload.sha256,
            stored_bytes=table.stored_bytes,
            stored_sha256=table.stored_sha256,
            schema=table.schema,
            warnings=table.warnings,
            keeps_original=keep_original,
            create_time=now,
        )
        return Dataset(
            id=dataset_id,
            project_id=upload.project_id,
            name=upload.name,
            description=upload.description,
            labels=upload.labels,
            creator_id=upload.user_id,
            create_time=now,
            update_time=now,
            etag=uuid4().hex,
            current=version,
        )

    async def _check_sha256(self, upload: Upload) -> Upload:
        found = await self._artifacts.sha256(self._path(upload))
        if upload.sha256 and found != upload.sha256:
            raise InvalidInput.at(
                "header.sha256",
                "The bytes that came do not have the SHA-256 of the header; upload the file again.",
                Reason.CHECKSUM_MISMATCH,
            )
        return replace(upload, sha256=found)

    async def _put(self, upload: Upload) -> None:
        async with self._store.begin() as work:
            await work.datasets.put_upload(upload)
            await work.commit()

    def _path(self, upload: Upload) -> Path:
        return self._artifacts.upload_path(upload.user_id, upload.id)


async def _whole(step: Coroutine[None, None, None]) -> None:
    """Do a step to its end, also when the caller goes away meanwhile: half of it would leave files without a row."""
    doing = asyncio.ensure_future(step)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise
