"""Migrations of databases with documents, on both engines: down and up again, and no revision is given twice."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from easyml_server.repositories.documents.models import ProjectConfigDocument
from easyml_server.repositories.sql.migrate import HEAD, MIGRATIONS, current_revision
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import a_config, a_project, a_user
from tests.conformance.stores import EmptyStore


def config_of(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


async def on(store: SqlStore, work: Callable[[Connection], object]) -> object:
    async with store._writer.begin() as connection:
        return await connection.run_sync(work)


@pytest.mark.parametrize("revision", ["0002", "0001"])
async def test_down_and_up_again_keeps_what_older_releases_know(new_store: EmptyStore, revision: str) -> None:
    user = a_user()
    project = a_project(user.id)
    async with new_store() as store:
        async with store.begin() as work:
            await work.users.add(user)
            await work.projects.add(project, a_config(project))
            await work.pending.put("project_configs", uuid4(), project.id, {"schema_version": 1})
            await work.commit()
        await on(store, lambda connection: command.downgrade(config_of(connection), revision))
        assert await on(store, current_revision) == revision
        await on(store, lambda connection: command.upgrade(config_of(connection), "head"))
        assert await on(store, current_revision) == HEAD
        assert await store.documents_layout() == 0
        async with store.read() as work:
            assert (await work.projects.load(project.id)).name == project.name
            assert await work.documents.find(ProjectConfigDocument, project.id) is not None
            assert await work.pending.page(0) == []


async def test_a_revision_is_given_once(new_store: EmptyStore) -> None:
    given = []
    async with new_store() as store:
        for _ in range(3):
            async with store.begin() as work:
                await work.pending.put("project_configs", UUID(int=1), UUID(int=2), {"schema_version": 1})
                page = await work.pending.page(0)
                given += [each.revision for each in page]
                await work.pending.remove(page)
                await work.commit()
        async with store.begin() as work:
            rows = await work.pending._session.execute(text("SELECT count(*) FROM pending_documents"))
            assert rows.scalar() == 0
    assert given == sorted(set(given))
    assert len(given) == 3
