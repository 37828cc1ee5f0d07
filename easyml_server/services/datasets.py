"""Use cases of datasets that are there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from uuid import UUID, uuid4

from easyml_server.domain.datasets import (
    ColumnKind,
    ColumnRole,
    ColumnSchema,
    Dataset,
    FileFormat,
    Preview,
    StorageType,
    TableSchema,
)
from easyml_server.domain.errors import InvalidInput, Reason, Stale, WrongState
from easyml_server.domain.local_files import file_sha256, read_chunks
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.projects import Deleted
from easyml_server.domain.statistics import TableStatistics
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.store import Store
from easyml_server.ports.tables import TableReader
from easyml_server.services.converting import ORIGINAL_FILE, TABLE_FILE
from easyml_server.services.masks import check_mask
from easyml_server.services.projects import checked_name
from easyml_server.services.versions import FORGET_VERSION

FIELDS = ("name", "description", "labels", "columns")
DEFAULT_PREVIEW_ROWS = 20
DESCRIBED_AT_ONCE = 20
MAX_PREVIEW_BYTES = 3 << 20
"""An answer stays below the 4 MiB that clients accept by default."""
KINDS_OF = {
    StorageType.INT64: {ColumnKind.NUMERIC, ColumnKind.CATEGORICAL, ColumnKind.ORDINAL},
    StorageType.DOUBLE: {ColumnKind.NUMERIC, ColumnKind.CATEGORICAL, ColumnKind.ORDINAL},
    StorageType.STRING: {ColumnKind.CATEGORICAL, ColumnKind.TEXT},
    StorageType.BOOL: {ColumnKind.BOOLEAN, ColumnKind.CATEGORICAL},
    StorageType.TIMESTAMP: {ColumnKind.DATETIME},
}
SINGLE_ROLES = (ColumnRole.TARGET, ColumnRole.WEIGHT, ColumnRole.GROUP, ColumnRole.TIME)


@dataclass(frozen=True, slots=True)
class ColumnSetting:
    """A column's new role or kind; None leaves it."""

    name: str
    role: ColumnRole | None
    kind: ColumnKind | None


@dataclass(frozen=True, slots=True)
class DatasetChange:
    """New values; the mask says which of them count."""

    dataset_id: UUID
    name: str
    description: str
    labels: Mapping[str, str]
    columns: Sequence[ColumnSetting]
    etag: str


@dataclass(frozen=True, slots=True)
class DescribedDataset:
    """A dataset with what its columns hold; None for one of a release that did not look."""

    dataset: Dataset
    statistics: TableStatistics | None


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is ready to be sent; `temporary` is removed afterwards."""

    content: AsyncIterator[bytes]
    filename: str
    format: FileFormat
    size_bytes: int
    sha256: str
    temporary: Path | None


class DatasetService:
    """Use cases of DatasetService but uploads."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        tables: TableReader,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._tables = tables
        self._clock = clock

    async def get(self, caller: Caller, dataset_id: UUID) -> Dataset:
        """One dataset."""
        async with self._store.read() as work:
            return await work.datasets.get(dataset_id, caller)

    async def describe(self, caller: Caller, dataset_id: UUID) -> DescribedDataset:
        """One dataset, and what its columns hold."""
        async with self._store.read() as work:
            dataset = await work.datasets.get(dataset_id, caller)
            found = await work.datasets.find_statistics([dataset.current.id])
        return DescribedDataset(dataset, found.get(dataset.current.id))

    async def described(self, datasets: Sequence[Dataset]) -> AsyncIterator[DescribedDataset]:
        """Datasets of a list with what their columns hold, read as they are asked for: a page may hold a great deal."""
        for start in range(0, len(datasets), DESCRIBED_AT_ONCE):
            group = datasets[start : start + DESCRIBED_AT_ONCE]
            async with self._store.read() as work:
                found = await work.datasets.find_statistics([dataset.current.id for dataset in group])
            for dataset in group:
                yield DescribedDataset(dataset, found.get(dataset.current.id))

    async def list(self, caller: Caller, project_id: UUID, page: PageRequest) -> Page[Dataset]:
        """The datasets of a project."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            return await work.datasets.list(project_id, page)

    async def update(self, caller: Caller, change: DatasetChange, mask: Sequence[str]) -> Dataset:
        """Change the fields of the mask."""
        fields = check_mask(mask, FIELDS)
        async with self._store.begin() as work:
            dataset = await work.datasets.get(change.dataset_id, caller)
            changed = replace(
                dataset,
                name=checked_name(change.name) if "name" in fields else dataset.name,
                description=change.description if "description" in fields else dataset.description,
                labels=change.labels if "labels" in fields else dataset.labels,
                update_time=self._clock(),
                etag=uuid4().hex,
            )
            if "columns" in fields:
                schema = changed_schema(dataset.current.schema, change.columns)
                changed = replace(changed, current=replace(dataset.current, schema=schema))
            await work.datasets.save(changed, change.etag)
            await work.commit()
        return changed

    async def delete(self, caller: Caller, dataset_id: UUID, etag: str, *, force: bool, validate_only: bool) -> Deleted:
        """Delete a dataset and its files."""
        async with self._store.begin() as work:
            dataset = await work.datasets.get(dataset_id, caller)
            if etag and etag != dataset.etag:
                raise Stale("The dataset was changed by somebody else; read it again, then repeat your change.")
            active = await work.experiments.count_of_dataset(dataset_id, active=True)
            if active:
                raise WrongState(
                    f"{active} trainings on this dataset have not ended; cancel them first.",
                    Reason.IN_USE,
                    metadata={"active_trainings": str(active)},
                )
            used = await work.experiments.count_of_dataset(dataset_id, active=False)
            if used and not force:
                raise WrongState(
                    f"{used} experiments refer to this dataset; use force to delete it all the same.",
                    Reason.IN_USE,
                    metadata={"experiments": str(used)},
                )
            key = _key(dataset)
            deleted = Deleted(datasets=1, bytes_freed=await self._artifacts.size(key))
            if validate_only:
                return deleted
            await work.datasets.delete(dataset_id, etag)
            await work.outbox.add(FORGET_VERSION, dataset.current.id, self._clock())
            await work.commit()
        await self._artifacts.remove(key)
        return deleted

    async def preview(
        self, caller: Caller, dataset_id: UUID, columns: Sequence[str], rows: int
    ) -> tuple[Preview, TableSchema]:
        """The first rows, and the schema of the columns in them."""
        dataset = await self.get(caller, dataset_id)
        schema = dataset.current.schema
        names = list(columns) or [column.name for column in schema.columns]
        chosen = tuple(_known(schema, name, f"columns[{index}]") for index, name in enumerate(names))
        async with self._artifacts.held(_key(dataset)) as folder:
            preview = await self._tables.preview(
                str(folder / TABLE_FILE),
                schema,
                names,
                rows or DEFAULT_PREVIEW_ROWS,
                MAX_PREVIEW_BYTES,
            )
        return preview, TableSchema(chosen, schema.row_count)

    async def download(self, caller: Caller, dataset_id: UUID, format: FileFormat | None) -> Download:
        """The file to send: the original, or the table written in another format."""
        dataset = await self.get(caller, dataset_id)
        version = dataset.current
        stem = PurePosixPath(version.filename).stem or dataset.name
        key = _key(dataset)
        if format is None and version.keeps_original:
            content = self._artifacts.read(key, ORIGINAL_FILE)
            return Download(content, version.filename, version.format, version.size_bytes, version.sha256, None)
        wanted = format or version.format
        name = f"{stem}.{wanted.value}"
        if wanted is FileFormat.PARQUET:
            content = self._artifacts.read(key, TABLE_FILE)
            return Download(content, name, wanted, version.stored_bytes, version.stored_sha256, None)
        self._artifacts.check_free(4 * version.stored_bytes)
        work_path = self._artifacts.new_work_path()
        target = work_path / "export"
        try:
            async with self._artifacts.held(key) as folder:
                await self._tables.export(str(folder / TABLE_FILE), wanted, str(target))
            sha256 = await file_sha256(target)
        except BaseException:
            await self._artifacts.discard(work_path)
            raise
        return Download(read_chunks(target), name, wanted, target.stat().st_size, sha256, work_path)

    async def discard(self, download: Download) -> None:
        """Remove what was written for a download."""
        if download.temporary is not None:
            await self._artifacts.discard(download.temporary)


def _key(dataset: Dataset) -> VersionKey:
    return VersionKey.of_dataset(dataset.project_id, dataset.current.id)


def changed_schema(schema: TableSchema, settings: Sequence[ColumnSetting]) -> TableSchema:
    """The schema with new roles and kinds; a role that only one column can have leaves its former holder."""
    columns = {column.name: column for column in schema.columns}
    for index, setting in enumerate(settings):
        column = _known(schema, setting.name, f"columns[{index}].name")
        if setting.kind is not None and setting.kind not in KINDS_OF[column.storage_type]:
            possible = ", ".join(sorted(kind.value for kind in KINDS_OF[column.storage_type]))
            raise InvalidInput.at(
                f"columns[{index}].kind",
                f"Column {column.name!r} is stored as {column.storage_type.value}, so its kind can be {possible}.",
            )
        if setting.role in SINGLE_ROLES:
            _take_away(columns, setting.role)
        current = columns[column.name]
        columns[column.name] = replace(current, role=setting.role or current.role, kind=setting.kind or current.kind)
    return replace(schema, columns=tuple(columns.values()))


def _take_away(columns: dict[str, ColumnSchema], role: ColumnRole) -> None:
    for name, column in columns.items():
        if column.role is role:
            columns[name] = replace(column, role=ColumnRole.FEATURE)


def _known(schema: TableSchema, name: str, field: str) -> ColumnSchema:
    column = schema.find(name)
    if column is None:
        raise InvalidInput.at(field, f"The dataset has no column {name!r}.", Reason.UNKNOWN_COLUMN, {"column": name})
    return column
