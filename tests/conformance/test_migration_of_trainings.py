"""The migration that gives trainings an owner, down and up again on a database with trainings in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError

from easyml_server.domain.experiments import TrainingState
from easyml_server.domain.leases import Lease
from easyml_server.repositories.sql.migrate import MIGRATIONS
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import TIME
from tests.conformance.test_store import with_experiments, with_project


def moved(move: Callable[[Config, str], None], revision: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        move(config, revision)

    return run


async def test_trainings_survive_it_in_both_directions(store: SqlStore) -> None:
    await with_experiments(store, await with_project(store))
    for _ in range(2):
        async with store.begin() as work:
            found = await work.queue.claim(TIME, Lease(uuid4()), 1)
            assert found is not None
            await work.experiments.save(replace(found, state=TrainingState.QUEUED))
            await work.commit()
    engine: Any = store._writer
    async with engine.begin() as connection:
        await connection.run_sync(moved(command.downgrade, "0002"))
    async with engine.begin() as connection:
        columns = await connection.run_sync(
            lambda sync: {each["name"] for each in inspect(sync).get_columns("ml_experiments")}
        )
        assert not columns & {"owner", "lease_until", "attempts"}
        assert (await connection.execute(text("SELECT fencing FROM ml_experiments"))).scalar() == 2
        await connection.run_sync(moved(command.upgrade, "head"))
    # As many attempts as there were claims, and it can be claimed again.
    async with store.begin() as work:
        found = await work.queue.claim(TIME, Lease(uuid4()), 1)
        await work.commit()
    assert found is not None
    assert (found.attempts, found.fencing) == (3, 3)
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE ml_experiments SET state = 'no state'"))
