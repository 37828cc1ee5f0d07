"""A database with much in it: one of everything as the repositories store it, and thousands of copies of each row."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Column, Table, UniqueConstraint, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from easyml_server.domain.datasets import Dataset, FileFormat, ReadOptions, Upload, UploadState
from easyml_server.domain.deployments import Deployment, Replica, ReplicaState, Revision
from easyml_server.domain.events import LogLevel, LogLine, TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.projects import Project
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.sessions import MlflowRun, TrainingSession
from easyml_server.domain.users import ApiKey, Caller, Permission, Scope, Session, User
from easyml_server.repositories.sql.base import Base
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import TIME, a_config, a_project, a_user
from tests.unit.services.builders import a_dataset, a_deployment, a_revision, a_spec, a_version, an_experiment

SHARES = {"projects": 100, "users": 1_000, "ml_experiments": 400}
"""Rows belong to the first so many of these, so that a project, a user or an experiment has some of everything."""
ONE_ROW = {"store_identity"}
DAY = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """One of everything, which the copies are made of."""

    user: User
    project: Project
    dataset: Dataset
    upload: Upload
    experiment: Experiment
    version: ModelVersion
    deployment: Deployment
    revision: Revision
    session: Session
    key: ApiKey
    request: RequestKey

    @property
    def caller(self) -> Caller:
        """The user, who may do everything."""
        return Caller(self.user.id, needs=Permission.OWNER)

    @property
    def event(self) -> TrainingEvent:
        """The next one of the experiment."""
        return TrainingEvent(self.experiment.id, 2, TIME, LogLine(LogLevel.INFO, "there"))

    @property
    def live(self) -> TrainingSession:
        """The experiment's session."""
        return TrainingSession(self.experiment.id, TrainingState.SUCCEEDED)

    @property
    def run(self) -> MlflowRun:
        """Where the experiment was recorded."""
        return MlflowRun(self.experiment.id, "file:x", "1", "run", "file:y", "", TIME)


def a_world() -> World:
    """Rows of the domain that belong together."""
    user = a_user()
    project = a_project(user.id, labels={"team": "blue"})
    dataset = replace(a_dataset(project.id, user.id), labels={"team": "blue"})
    spec = a_spec(dataset_id=dataset.id, dataset_version_id=dataset.current.id)
    experiment = an_experiment(
        project.id, user.id, spec=spec, state=TrainingState.SUCCEEDED, start_time=TIME, end_time=TIME + DAY
    )
    experiment = replace(experiment, labels={"team": "blue"}, train_rows=80, test_rows=20)
    version = a_version(project, experiment_id=experiment.id, dataset_version_id=dataset.current.id)
    deployment = a_deployment(
        project.id, user.id, labels={"team": "blue"}, replicas=(Replica(random_id(), 1, ReplicaState.STARTING),)
    )
    revision = a_revision(deployment, version, activate_time=TIME, retire_time=TIME + DAY)
    upload = Upload(
        id=random_id(), user_id=user.id, project_id=project.id, state=UploadState.COMPLETED, name="table",
        description="", labels={}, filename="table.csv", format=FileFormat.CSV, size_bytes=9, sha256="0" * 64,
        read_options=ReadOptions(), received_bytes=9, dataset_id=dataset.id, create_time=TIME, expire_time=TIME + DAY,
    )  # fmt: skip
    session = Session(random_id(), user.id, "refresh", TIME, TIME, TIME + DAY)
    key = ApiKey(random_id(), user.id, "key", Scope(), "eml_", "secret", TIME, TIME + DAY)
    request = RequestKey(random_id(), "StartTraining", "0" * 64)
    return World(user, project, dataset, upload, experiment, version, deployment, revision, session, key, request)


async def store_world(store: SqlStore, world: World) -> World:
    """One row of each table at least; the version as it was numbered."""
    async with store.begin() as work:
        await work.users.add(world.user)
        await work.users.add_session(replace(world.session, refresh_sha256="used"))
        assert await work.users.rotate(world.session, "used")
        await work.users.add_api_key(world.key)
        await work.projects.add(world.project, a_config(world.project))
        await work.datasets.add(world.dataset)
        await work.datasets.put_upload(world.upload)
        await work.experiments.add(world.experiment)
        await work.experiments.add_events([replace(world.event, sequence=1)], world.live, world.experiment.fencing)
        version = await work.models.add_version(world.version)
        await work.models.set_alias(version, "champion", world.user.id, TIME)
        await work.deployments.add(world.deployment)
        await work.deployments.put_revision(world.revision)
        await work.requests.add(world.caller, world.request, world.project.id, TIME)
        await work.outbox.add("record", world.experiment.id, TIME)
        await work.pending.put("project_configs", random_id(), world.project.id, {"schema_version": 1})
        assert await work.attempts.count("account", 5, DAY, TIME) is None
        await work.commit()
    return replace(world, version=version)


Choice = Callable[[int], Any]


def every(number: int, rare: Any, usual: Any) -> Choice:
    """A value that one row in so many has."""
    return lambda index: rare if index % number == 0 else usual


OVERRIDES: Mapping[str, Choice] = {
    "users.administrator": every(1000, True, False),
    "projects.visibility": every(500, "internal", "private"),
    "project_members.role": every(3, "owner", "viewer"),
    "sessions.end_time": lambda index: None if index % 10 == 0 else TIME + DAY,
    "uploads.state": every(100, "receiving", "completed"),
    "ml_experiments.state": every(100, "queued", "succeeded"),
    "ml_experiments.algorithm": lambda index: f"algorithm-{index % 15}",
    "model_deployments.state": every(100, "ready", "stopped"),
    "alias_history.end_time": lambda index: None if index % 10 == 0 else TIME + DAY,
    "sign_in_attempts.counted": lambda index: f"{index % 500:064}",
    "outbox.due_time": lambda index: TIME + timedelta(days=index % 100),
}
"""What is not like the first row, as most of these rows are in a database that was used for a while."""


async def fill(connection: AsyncConnection, count: int) -> dict[str, int]:
    """So many copies of the first row of each table; how many rows each has then."""
    made: dict[str, list[UUID]] = {}
    counts = {}
    for table in Base.metadata.sorted_tables:
        if table.name in ONE_ROW:
            continue
        first = (await connection.execute(select(table).limit(1))).mappings().one()
        makers = {column.name: maker_of(column, first[column.name], made) for column in stated(table)}
        rows = [{name: make(index) for name, make in makers.items()} for index in range(1, count + 1)]
        if "id" in table.c and isinstance(rows[0].get("id"), UUID):
            # The first of each is the world's own, so that it has a share of everything.
            made[table.name] = [first["id"], *(row["id"] for row in rows)]
        await connection.execute(insert(table), rows)
        counts[table.name] = len(rows) + 1
    return counts


def stated(table: Table) -> list[Column[Any]]:
    """The columns whose values the database does not make."""
    return [column for column in table.columns if column.autoincrement is not True]


def maker_of(column: Column[Any], first: Any, made: Mapping[str, list[UUID]]) -> Choice:
    """The value of the first row, changed where another row has to differ."""
    override = OVERRIDES.get(f"{column.table.name}.{column.name}")
    if override is not None:
        return override
    if column.foreign_keys:
        (key,) = column.foreign_keys
        return parent_of(column, key.column.table.name, made)
    if isinstance(first, datetime):
        return lambda index: first + timedelta(seconds=index)
    if isinstance(first, UUID):
        return lambda _: random_id()
    if column.primary_key and isinstance(first, int):
        return lambda index: index + 1
    return (lambda index: f"{first}-{index}") if isinstance(first, str) and alone(column) else lambda _: first


def parent_of(column: Column[Any], parent: str, made: Mapping[str, list[UUID]]) -> Choice:
    """Each its own where the pair must be unique, else one of a few."""
    parents = made[parent]
    shares = len(parents) if column.table.name == "project_members" and parent == "projects" else SHARES.get(parent)
    return lambda index: parents[index % (shares or len(parents))]


def alone(column: Column[Any]) -> bool:
    """Whether no two rows may have the same value, perhaps of those that belong together."""
    table = cast("Table", column.table)
    unique = any(column.name in constraint.columns for constraint in table.constraints if is_unique(constraint))
    indexed = any(index.unique and column.name in index.columns for index in table.indexes)
    key = column.primary_key and len(table.primary_key.columns) == 1
    return bool(column.unique) or unique or indexed or key


def is_unique(constraint: Any) -> bool:
    return isinstance(constraint, UniqueConstraint)


_RANDOM = random.Random(7)


def random_id() -> UUID:
    """As uuid4 makes them, but the same in each run, so that a plan is one that can be looked at again."""
    return UUID(int=_RANDOM.getrandbits(128), version=4)


async def multiply_experiments(connection: AsyncConnection, world: World, count: int) -> None:
    """So many experiments in the world's project on PostgreSQL, copies of its own, each a second after the last."""
    names = list(Base.metadata.tables["ml_experiments"].columns.keys())
    changed = {"id": "gen_random_uuid()", "create_time": "create_time + make_interval(secs => number)"}
    there = (await connection.execute(text("SELECT count(*) FROM ml_experiments"))).scalar_one()
    statement = (
        f"INSERT INTO ml_experiments ({', '.join(names)}) "
        f"SELECT {', '.join(changed.get(name, name) for name in names)} "
        f"FROM ml_experiments, generate_series({there}, {count - 1}) AS number WHERE ml_experiments.id = :id"
    )
    await connection.execute(text(statement), {"id": world.experiment.id})
