"""What becomes of a dataset's files when the database does not answer its commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.domain.datasets import (
    Conversion,
    ConvertedTable,
    Dataset,
    FileFormat,
    ReadOptions,
    TableSchema,
    Upload,
    UploadState,
)
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.limits import Limits
from easyml_server.domain.statistics import TableStatistics
from easyml_server.domain.users import Caller
from easyml_server.repositories.sql.store import SqlStore, SqlUnitOfWork
from easyml_server.services.converting import UploadConverter, key_of
from tests.builders import TIME, a_config, a_project, a_user

CONTENT = b"x,y\n1,a\n"


class Table:
    """A reader of tables that finds an empty one."""

    async def convert(self, conversion: Conversion) -> ConvertedTable:
        """See TableReader.convert."""
        await asyncio.to_thread(Path(conversion.target).write_bytes, b"table")
        return ConvertedTable(TableSchema((), 0), TableStatistics((), 0), (), 5, "0" * 64)


@dataclass
class Unanswered:
    """A store that does not answer the commit of the dataset; `happens` says whether it comes to it all the same."""

    store: SqlStore
    happens: bool
    then_away: bool
    read: Callable[..., object] = field(init=False)
    commits: int = 0

    def __post_init__(self) -> None:
        self.read = self.store.read

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlUnitOfWork]:
        """See Store.begin; the second commit is the dataset's."""
        if self.commits == 2 and self.then_away:
            raise Unavailable("The database is away.")
        async with self.store.begin() as work:
            commit = work.commit

            async def unanswered() -> None:
                self.commits += 1
                if self.commits != 2 or self.happens:
                    await commit()
                if self.commits == 2:
                    raise Unavailable("The database did not answer.")

            work.commit = unanswered  # type: ignore[method-assign]
            yield work


@dataclass
class World:
    """An upload whose bytes are all there."""

    store: SqlStore
    artifacts: LocalArtifacts
    upload: Upload

    async def finish(self, *, happens: bool, then_away: bool = False) -> Dataset:
        """Make the dataset."""
        store = Unanswered(self.store, happens, then_away)
        converter = UploadConverter(store, self.artifacts, Table(), Limits(), lambda: TIME)  # type: ignore[arg-type]
        return await converter.finish(Caller(self.upload.user_id), self.upload)

    async def state(self) -> UploadState:
        async with self.store.read() as work:
            found = await work.datasets.find_upload(self.upload.id, self.upload.user_id)
        assert found is not None
        return found.state

    def folders(self) -> list[str]:
        return [path.name for path in self.artifacts.root.glob("files/*/datasets/*")]


@pytest.fixture
async def world(store: SqlStore, tmp_path: Path) -> World:
    user = a_user()
    project = a_project(user.id)
    upload = Upload(
        id=uuid4(),
        user_id=user.id,
        project_id=project.id,
        state=UploadState.RECEIVING,
        name="table",
        description="",
        labels={},
        filename="table.csv",
        format=FileFormat.CSV,
        size_bytes=len(CONTENT),
        sha256="",
        read_options=ReadOptions(),
        received_bytes=len(CONTENT),
        dataset_id=None,
        create_time=TIME,
        expire_time=TIME + timedelta(hours=1),
    )
    async with store.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        await work.datasets.put_upload(upload)
        await work.commit()
    artifacts = LocalArtifacts(tmp_path, 0, tmp_path / "work")
    artifacts.path(key_of(upload)).write_bytes(CONTENT)
    return World(store, artifacts, upload)


async def test_a_commit_that_happened_unanswered_keeps_its_files(world: World) -> None:
    dataset = await world.finish(happens=True)
    assert world.folders() == [str(dataset.current.id)]
    assert await world.state() is UploadState.COMPLETED
    assert not world.artifacts.path(key_of(world.upload)).exists()


async def test_a_commit_that_did_not_happen_leaves_no_files(world: World) -> None:
    with pytest.raises(Unavailable):
        await world.finish(happens=False)
    assert world.folders() == []
    assert await world.state() is UploadState.CONVERTING
    assert world.artifacts.path(key_of(world.upload)).exists()


@pytest.mark.parametrize("happens", [True, False])
async def test_while_nobody_can_tell_the_files_stay(world: World, happens: bool) -> None:
    with pytest.raises(Unavailable):
        await world.finish(happens=happens, then_away=True)
    assert len(world.folders()) == 1
