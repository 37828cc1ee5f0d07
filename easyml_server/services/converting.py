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
from easyml_server.domain.errors import EasyMLError, InvalidInput, Reason, Unavailable
from easyml_server.domain.faults import fault_point
from easyml_server.domain.limits import Limits
from easyml_server.domain.local_files import file_sha256
from easyml_server.domain.statistics import TableStatistics
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore, UploadKey, VersionKey
from easyml_server.ports.store import Store, UnitOfWork
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
        async with self._artifacts.gathered(key_of(upload), upload.size_bytes) as source:
            return await self._convert(caller, upload, source)

    async def _convert(self, caller: Caller, upload: Upload, source: Path) -> Dataset:
        upload = replace(await _checked_sha256(upload, source), state=UploadState.CONVERTING)
        await put_unfinished(self._store, upload)
        async with self._store.read() as work:
            config = await work.projects.get_config(upload.project_id)
        work_path = self._artifacts.new_work_path()
        try:
            table = await self._tables.convert(
                Conversion(
                    source=str(source),
                    format=upload.format,
                    options=upload.read_options,
                    target=str(work_path / TABLE_FILE),
                    limits=self._limits.table,
                )
            )
            fault_point("upload.converted")
            dataset = self._dataset(upload, table, keep_original=config.keep_original_files)
            if dataset.current.keeps_original:
                # A link, not a move: until the row commits, a crash must find the upload's bytes where they were.
                with disk_errors():
                    await asyncio.to_thread((work_path / ORIGINAL_FILE).hardlink_to, source)
            await _whole(self._publish(caller, upload, dataset, table.statistics, work_path))
        finally:
            await self._artifacts.discard(work_path)
        return dataset

    async def _publish(
        self, caller: Caller, upload: Upload, dataset: Dataset, statistics: TableStatistics, work_path: Path
    ) -> None:
        key = VersionKey.of_dataset(upload.project_id, dataset.current.id)
        await self._artifacts.publish(work_path, key)
        fault_point("upload.published")
        try:
            async with self._store.begin() as work:
                await _check_unfinished(work, upload)
                await work.projects.get(upload.project_id, caller)
                await work.datasets.add(dataset)
                await work.datasets.put_statistics(dataset.current, statistics)
                await work.outbox.add(ADD_DATASET_VERSION, dataset.current.id, self._clock())
                await work.datasets.put_upload(replace(upload, state=UploadState.COMPLETED, dataset_id=dataset.id))
                await work.commit()
        except EasyMLError:
            if not await self._stored_after_all(upload, dataset, key):
                await self._artifacts.remove(key)
                raise
        self._artifacts.committed(key)
        fault_point("upload.committed")
        await self._artifacts.remove(key_of(upload))

    async def _stored_after_all(self, upload: Upload, dataset: Dataset, key: VersionKey) -> bool:
        """Whether its row is there: a COMMIT whose answer was lost may have happened, and the row needs its files."""
        try:
            async with self._store.begin() as work:
                # Waits for that transaction, should it not have ended yet.
                found = await work.datasets.find_upload(upload.id, upload.user_id)
        except EasyMLError:
            # Left to housekeeping, which removes what has no row.
            self._artifacts.committed(key)
            raise
        return found is not None and found.dataset_id == dataset.id

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


def key_of(upload: Upload) -> UploadKey:
    """What its bytes are kept under."""
    return UploadKey(upload.user_id, upload.id)


async def put_unfinished(store: Store, upload: Upload) -> None:
    """Write down how far an upload is, unless another server has finished it meanwhile."""
    async with store.begin() as work:
        await _check_unfinished(work, upload)
        await work.datasets.put_upload(upload)
        await work.commit()


async def _check_unfinished(work: UnitOfWork, upload: Upload) -> None:
    found = await work.datasets.find_upload(upload.id, upload.user_id)
    if found is not None and found.state in (UploadState.COMPLETED, UploadState.FAILED):
        raise Unavailable(
            "Another call has finished this upload; ask again what came of it.",
            retry_after=0.5,
            metadata={"part": "upload"},
        )


async def _checked_sha256(upload: Upload, source: Path) -> Upload:
    found = await file_sha256(source)
    if upload.sha256 and found != upload.sha256:
        raise InvalidInput.at(
            "header.sha256",
            "The bytes that came do not have the SHA-256 of the header; upload the file again.",
            Reason.CHECKSUM_MISMATCH,
        )
    return replace(upload, sha256=found)


async def _whole(step: Coroutine[None, None, None]) -> None:
    """Do a step to its end, also when the caller goes away meanwhile: half of it would leave files without a row."""
    doing = asyncio.ensure_future(step)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise
