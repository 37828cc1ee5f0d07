"""No statement of a repository reads a large table from end to end, and a page costs the same however many there are.

The statements are those that the engine sees while every method of every repository is called, with each of its filters
and orders; a method or a filter that is new has to be called here before these tests pass again.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from easyml_server.domain.experiments import TrainingState
from easyml_server.domain.leases import Abandoned, HeldDeployment, Lease
from easyml_server.domain.pages import Order, PageRequest
from easyml_server.domain.projects import Role
from easyml_server.domain.users import Caller, Scope
from easyml_server.domain.versioning import AddedVersion, DvcPointer, VersionKind
from easyml_server.ports import store as ports
from easyml_server.ports.documents import PendingDocument, PendingDocuments
from easyml_server.ports.store import EventGroup, ExperimentFilter, Intent
from easyml_server.repositories.sql.base import Base
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import TIME, a_config, a_project, a_user
from tests.conformance.filled import DAY, World, a_world, fill, multiply_experiments, store_world
from tests.conformance.plans import Statement, recorded, scanned, steps, touched
from tests.conformance.stores import EmptyStore, postgresql_stores, sqlite_stores
from tests.postgresql import PostgresServer
from tests.unit.services.builders import (
    a_dataset,
    a_deployment,
    a_version,
    an_experiment,
    some_results,
    some_statistics,
)

LARGE = 1_000


@pytest.fixture
def empty_store(new_store: EmptyStore) -> EmptyStore:
    """Rows are what this is about."""
    return new_store


ROWS = {"sqlite": 1_200, "postgresql": 20_000}
"""Of each table. PostgreSQL rightly reads a table of few pages from end to end; SQLite does not look at how many."""
REPOSITORIES = {
    "users": ports.UserRepository,
    "projects": ports.ProjectRepository,
    "datasets": ports.DatasetRepository,
    "experiments": ports.ExperimentRepository,
    "models": ports.ModelRepository,
    "deployments": ports.DeploymentRepository,
    "deployment_leases": ports.DeploymentLeases,
    "requests": ports.RequestRepository,
    "outbox": ports.Outbox,
    "queue": ports.TrainingQueue,
    "attempts": ports.AttemptRepository,
    "versions": ports.VersionRepository,
    "pending": PendingDocuments,
}
IN_ORDER = {("sqlite", f"outbox.{name}", "outbox") for name in ("due", "claim", "failing")}
"""In the order of the rowid, and no further than to the end of the page."""


@dataclass(frozen=True)
class Call:
    """A method of a repository, with what it is called with."""

    method: str
    arguments: Sequence[Any]
    named: dict[str, Any]

    @property
    def function(self) -> Any:
        """As the port has it."""
        repository, _, name = self.method.partition(".")
        return vars(REPOSITORIES[repository])[name]

    @property
    def given(self) -> dict[str, Any]:
        """Arguments by their names."""
        return dict(inspect.signature(self.function).bind(None, *self.arguments, **self.named).arguments)


def call(method: str, *arguments: Any, **named: Any) -> Call:
    return Call(method, arguments, named)


def pages(*orders: Order) -> Iterator[PageRequest]:
    """First, next and narrowed pages in each order."""
    for order in orders:
        name = "name" if order is Order.BY_NAME else (TIME + timedelta(seconds=1_000)).isoformat()
        for page in (PageRequest(order=order), PageRequest(order=order, after=(name, str(uuid4())))):
            yield page
            yield replace(page, name_prefix="pro")
            yield replace(page, labels={"team": "blue"})


NEWEST = (Order.NEWEST_FIRST,)
BY_TIME = (Order.NEWEST_FIRST, Order.OLDEST_FIRST)
EACH = tuple(Order)


def calls(world: World) -> Iterator[Call]:
    """Every method; those that change something as well, since they look for what they change."""
    yield from calls_of_users(world)
    yield from calls_of_projects(world)
    yield from calls_of_datasets(world)
    yield from calls_of_experiments(world)
    yield from calls_of_models(world)
    yield from calls_of_deployments(world)
    key = replace(world.request, request_id=uuid4())
    yield call("requests.find", world.caller, world.request, TIME - DAY)
    yield call("requests.add", world.caller, key, world.project.id, TIME)
    yield call("requests.forget", TIME)
    intent = Intent(1, "record", world.experiment.id)
    yield call("outbox.add", "record", world.experiment.id, TIME)
    yield call("outbox.due", ("record_run",), TIME, 10)
    yield call("outbox.claim", ("record", "record_run"), TIME, TIME + DAY)
    yield call("outbox.prolong", intent, TIME)
    yield call("outbox.failing", ("record_run",))
    yield call("outbox.release", ("record_run",), TIME)
    yield call("outbox.done", intent)
    yield call("outbox.retry", intent, TIME)
    lease = Lease(uuid4())
    yield call("queue.claim", TIME, lease, 2)
    yield call("queue.renew", lease, [world.experiment.id])
    for which in Abandoned:
        yield call("queue.has_abandoned", which, [world.experiment.id])
        yield call("queue.take_over", which, [world.experiment.id])
    yield call("attempts.count", "account", 5, DAY, TIME)
    yield call("attempts.forget", TIME)
    added = AddedVersion("v1.dvc", "outs:", "0" * 32, 9, ("v1/original",))
    version = world.dataset.current.id
    pointer = DvcPointer(version, world.project.id, VersionKind.DATASET, added, "remote", "/remote", TIME)
    waiting = PendingDocument(1, "project_configs", uuid4(), world.project.id, {"schema_version": 1})
    yield call("pending.page", 0)
    yield call("pending.remove", [waiting])
    yield call("pending.renew", waiting, 10**9)
    yield call("versions.put", pointer)
    yield call("versions.find", version)
    yield call("versions.delete", version)


def calls_of_users(world: World) -> Iterator[Call]:
    user = world.user.id
    yield call("users.add", a_user())
    yield call("users.get", user)
    yield call("users.find_by_email", world.user.email)
    yield call("users.add_session", replace(world.session, id=uuid4(), refresh_sha256="new"))
    yield call("users.find_session", world.session.id)
    for token in ("refresh", "used", "unknown"):
        yield call("users.find_session_by_refresh", token)
    yield call("users.rotate", replace(world.session, refresh_sha256="next"), "refresh")
    yield call("users.end_sessions", user, TIME)
    yield call("users.end_sessions", user, TIME, session_id=world.session.id)
    yield call("users.trim_sessions", user, 5, TIME)
    yield call("users.add_api_key", replace(world.key, id=uuid4(), secret_sha256="new"))
    yield call("users.get_api_key", world.key.id, user)
    yield call("users.find_api_key", "secret")
    for page in pages(*NEWEST):
        yield call("users.list_api_keys", user, page)
    yield call("users.revoke_api_key", world.key.id, TIME)


def calls_of_projects(world: World) -> Iterator[Call]:
    project = world.project
    new = a_project(world.user.id)
    yield call("projects.add", new, a_config(new))
    yield call("projects.get", project.id, world.caller)
    yield call("projects.load", project.id)
    for page in pages(*EACH):
        yield call("projects.list", world.caller, page)
        yield call("projects.list", Caller(uuid4()), page)
        yield call("projects.list", replace(world.caller, scope=Scope(project.id)), page)
    yield call("projects.save", replace(project, name="new"), project.etag)
    yield call("projects.delete", project.id, project.etag)
    yield call("projects.get_config", project.id)
    yield call("projects.save_config", a_config(project), "")
    for page in pages(Order.OLDEST_FIRST):
        yield call("projects.list_members", project.id, page)
    yield call("projects.find_member", project.id, world.user.id)
    yield call("projects.set_member", project.id, world.user.id, Role.EDITOR, TIME)
    yield call("projects.remove_member", project.id, world.user.id)
    yield call("projects.count_owners", project.id)


def calls_of_datasets(world: World) -> Iterator[Call]:
    project, dataset = world.project.id, world.dataset
    yield call("datasets.add", replace(a_dataset(project, world.user.id), name="new"))
    yield call("datasets.put_statistics", dataset.current, some_statistics())
    yield call("datasets.find_statistics", [dataset.current.id, uuid4()])
    yield call("datasets.get", dataset.id, world.caller)
    yield call("datasets.get_version", dataset.current.id)
    yield call("datasets.find_by_name", project, dataset.name)
    for page in pages(*EACH):
        yield call("datasets.list", project, page)
    yield call("datasets.list_versions", project)
    yield call("datasets.save", replace(dataset, name="renamed"), dataset.etag)
    yield call("datasets.delete", dataset.id, dataset.etag)
    yield call("datasets.stored_bytes", project)
    yield call("datasets.put_upload", world.upload)
    yield call("datasets.find_upload", world.upload.id, world.user.id)
    yield call("datasets.count_uploads", None)
    yield call("datasets.count_uploads", world.user.id)
    yield call("datasets.expire_uploads", TIME)
    yield call("datasets.unfinished_uploads")


def calls_of_experiments(world: World) -> Iterator[Call]:
    project, experiment, dataset = world.project.id, world.experiment, world.dataset.id
    yield call("experiments.add", an_experiment(project, world.user.id, spec=experiment.spec))
    yield call("experiments.get", experiment.id, world.caller)
    yield call("experiments.load", experiment.id)
    everything = ExperimentFilter(tuple(TrainingState), dataset, "algorithm-1")
    for only in (
        ExperimentFilter(),
        *(replace(ExperimentFilter(), **{each.name: getattr(everything, each.name)}) for each in fields(everything)),
        ExperimentFilter(states=(TrainingState.QUEUED,)),
        everything,
    ):
        for page in pages(*BY_TIME):
            yield call("experiments.list", project, page, only)
    yield call("experiments.save", experiment)
    for which in (None, project):
        yield call("experiments.count_active", which)
    yield call("experiments.count_of_project", project)
    for active in (True, False):
        yield call("experiments.count_of_dataset", dataset, active=active)
    yield call("experiments.durations", "algorithm-1", project)
    yield call("experiments.add_events", [world.event], world.live, experiment.fencing)
    yield call("experiments.add_groups", [EventGroup([world.event], world.live, experiment.fencing)])
    yield call("experiments.list_events", experiment.id, 0, 100)
    yield call("experiments.put_session", world.live)
    yield call("experiments.find_session", experiment.id)
    yield call("experiments.put_mlflow_run", world.run)
    yield call("experiments.find_mlflow_run", experiment.id)
    yield call("experiments.delete", experiment.id, experiment.etag)


def calls_of_deployments(world: World) -> Iterator[Call]:
    project, deployment, revision = world.project.id, world.deployment, world.revision
    yield call("deployments.add", a_deployment(project, world.user.id, name="new"))
    yield call("deployments.get", deployment.id, world.caller)
    yield call("deployments.load", deployment.id)
    yield call("deployments.find_by_name", project, deployment.name)
    for page in pages(*NEWEST):
        yield call("deployments.list", project, page)
    yield call("deployments.unfinished")
    yield call("deployments.serving", world.caller, 1_000)
    yield call("deployments.names_serving", world.version.id)
    yield call("deployments.save", deployment, deployment.etag)
    yield call("deployments.put_revision", revision)
    yield call("deployments.put_revision", replace(revision, id=uuid4(), number=10**6))
    yield call("deployments.revisions", deployment.id, {1, 2})
    yield call("deployments.active_before", deployment.id, 2)
    for page in (PageRequest(), PageRequest(after=("5", str(uuid4())))):
        yield call("deployments.list_revisions", deployment.id, page)
    lease = Lease(uuid4())
    for lapsed in (False, True):
        yield call("deployment_leases.waiting", lapsed=lapsed)
        yield call("deployment_leases.take", deployment.id, lease, "address", lapsed=lapsed)
    yield call("deployment_leases.renew", lease, [deployment.id])
    yield call("deployment_leases.holds", lease, HeldDeployment(deployment.id, 1))
    yield call("deployment_leases.address", deployment.id)
    yield call("deployment_leases.release", lease, deployment.id)
    yield call("deployment_leases.release_all", lease)
    yield call("deployments.delete", deployment.id, deployment.etag)


def calls_of_models(world: World) -> Iterator[Call]:
    project, version, model = world.project.id, world.version, world.version.model_name
    yield call("models.add_version", a_version(world.project))
    yield call("models.add_version", a_version(world.project, model_name="new"))
    yield call("models.put_results", version, some_results())
    yield call("models.find_results", version.id)
    yield call("models.get_version", version.id, world.caller)
    yield call("models.project_of_version", version.id, world.caller)
    yield call("models.load_version", version.id)
    for named in ({}, {"version": 1}, {"alias": "champion"}):
        yield call("models.find_version", project, model, **named)
    yield call("models.get_model", project, model)
    yield call("models.load_model", version.model_id)
    yield call("models.recorded_versions", version.model_id)
    yield call("models.ids_of_project", project)
    for page in pages(*NEWEST):
        yield call("models.list", project, page)
        for named in ({}, {"model_name": model}, {"alias": "champion"}, {"model_name": model, "alias": "champion"}):
            yield call("models.list_versions", project, page, **named)
        for at in ({}, {"alias": "champion"}, {"at": TIME + DAY}, {"alias": "champion", "at": TIME + DAY}):
            yield call("models.list_alias_history", version.model_id, page, **at)
    yield call("models.count_of_project", project)
    yield call("models.save_version", version, version.etag)
    yield call("models.delete_version", version, version.etag, TIME)
    yield call("models.set_alias", version, "challenger", world.user.id, TIME)
    yield call("models.delete_alias", version.model_id, "champion", TIME)


@dataclass(frozen=True)
class Filled:
    """A store with thousands of rows in each table."""

    store: SqlStore
    world: World
    rows: dict[str, int]


@pytest.fixture
async def filled(empty_store: EmptyStore) -> AsyncIterator[Filled]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(empty_store())
        world = await store_world(store, a_world())
        async with store._writer.begin() as connection:
            rows = await fill(connection, ROWS[connection.dialect.name])
            await connection.commit()
        if store._writer.dialect.name == "postgresql":
            await vacuumed(store)
        yield Filled(store, world, rows)


async def vacuumed(store: SqlStore) -> None:
    """As autovacuum leaves a database: with statistics, and pages known to be seen by all."""
    async with store._writer.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(text("VACUUM ANALYZE"))


async def statements_of(filled: Filled, each: Call) -> list[Statement]:
    """What a call says to the engine; nothing of it stays."""
    repository, _, name = each.method.partition(".")
    with recorded(filled.store._writer) as found:
        async with filled.store.begin() as work:
            await getattr(getattr(work, repository), name)(*each.arguments, **each.named)
    return found


async def test_no_statement_reads_a_large_table_from_end_to_end(filled: Filled) -> None:
    assert min(filled.rows.values()) > LARGE
    assert filled.rows.keys() == Base.metadata.tables.keys() - {"store_identity"}
    large = {name for name, rows in filled.rows.items() if rows > LARGE}
    guilty: defaultdict[str, set[str]] = defaultdict(set)
    seen = 0
    made = [(each, await statements_of(filled, each)) for each in calls(filled.world)]
    async with filled.store._reader.connect() as connection:
        for each, statements in made:
            for statement in statements:
                seen += 1
                for table in await scanned(connection, statement) & large:
                    if (connection.dialect.name, each.method, table) not in IN_ORDER:
                        guilty[f"{table}: {statement.text}"].add(each.method)
    assert seen > len(made)
    assert not guilty, "\n\n".join(f"{sorted(methods)} reads all of {what}" for what, methods in guilty.items())


FEW, MANY = 1_000, 200_000
DEEPER = 4
"""Buffers that an index of more levels costs, where it is entered a few times."""


def pages_of_experiments(world: World, count: int) -> Iterator[tuple[str, Call]]:
    """First pages and pages from the middle, as they are and narrowed to what is common or rare."""
    middle = ((TIME + timedelta(seconds=count / 2)).isoformat(), str(uuid4()))
    narrowed = {
        "all": ExperimentFilter(),
        "succeeded": ExperimentFilter(states=(TrainingState.SUCCEEDED,)),
        "ended": ExperimentFilter(states=(TrainingState.SUCCEEDED, TrainingState.FAILED)),
        "queued": ExperimentFilter(states=(TrainingState.QUEUED,)),
        "of the dataset": ExperimentFilter(dataset_id=world.dataset.id),
        "of another dataset": ExperimentFilter(dataset_id=uuid4()),
        "of the algorithm": ExperimentFilter(algorithm=world.experiment.spec.algorithm),
        "of another algorithm": ExperimentFilter(algorithm="another"),
    }
    for order, (where, after), (which, only) in product(
        BY_TIME, {"first": None, "middle": middle}.items(), narrowed.items()
    ):
        page = PageRequest(order=order, after=after)
        yield f"{which}, {order.value}, {where}", call("experiments.list", world.project.id, page, only)


async def test_a_page_costs_the_same_however_many_experiments_there_are(
    postgres: PostgresServer, postgres_template: str
) -> None:
    """Counted in buffers that PostgreSQL reads, which are the same on a busy machine."""
    async with postgresql_stores(postgres, postgres_template)() as store:
        world = await store_world(store, a_world())
        few = await cost_of_pages(Filled(store, world, {}), FEW)
        many = await cost_of_pages(Filled(store, world, {}), MANY)
    assert few.keys() == many.keys()
    dearer = {which: (few[which], many[which]) for which in few if many[which] > 1.5 * few[which] + DEEPER}
    assert dearer == {}


async def test_sqlite_begins_a_page_where_the_one_before_ended(migrated_database: Path, tmp_path: Path) -> None:
    async with sqlite_stores(migrated_database, tmp_path)() as store:
        world = await store_world(store, a_world())
        filled = Filled(store, world, {})
        made = [(name, await statements_of(filled, each)) for name, each in pages_of_experiments(world, FEW)]
        async with store._reader.connect() as connection:
            for name, (statement,) in made:
                (step,) = await steps(connection, statement)
                assert step.startswith("SEARCH ml_experiments USING INDEX"), (name, step)
                assert bool(re.search(r"\(create_time,id\)[<>]", step)) == ("middle" in name), (name, step)


async def cost_of_pages(filled: Filled, count: int) -> dict[str, int]:
    """The buffers of each page with so many experiments in the project."""
    async with filled.store._writer.connect() as connection:
        await multiply_experiments(connection, filled.world, count)
        await connection.commit()
    await vacuumed(filled.store)
    costs = {}
    made = [(name, await statements_of(filled, each)) for name, each in pages_of_experiments(filled.world, count)]
    async with filled.store._reader.connect() as connection:
        for name, statements in made:
            costs[name] = sum([await touched(connection, statement) for statement in statements])
    return costs


def test_every_method_of_every_repository_is_called_with_every_argument() -> None:
    given: defaultdict[str, set[str]] = defaultdict(set)
    narrowed: set[str] = set()
    for each in calls(a_world()):
        given[each.method] |= {name for name, value in each.given.items() if value is not None}
        for value in each.given.values():
            if isinstance(value, PageRequest | ExperimentFilter):
                default = type(value)()
                narrowed |= {
                    f"{type(value).__name__}.{each_field.name}"
                    for each_field in fields(value)
                    if getattr(value, each_field.name) != getattr(default, each_field.name)
                }
    methods = {
        f"{repository}.{name}": set(inspect.signature(function).parameters)
        for repository, port in REPOSITORIES.items()
        for name, function in vars(port).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }
    assert {name: arguments - {"self"} for name, arguments in methods.items()} == {
        name: arguments - {"self"} for name, arguments in given.items()
    }
    every = {f"{kind.__name__}.{each.name}" for kind in (PageRequest, ExperimentFilter) for each in fields(kind)}
    assert narrowed == every - {"PageRequest.size"}


def test_what_follows_a_delete_is_found_by_an_index() -> None:
    """Deletes that cascade are not in any plan: the engine looks for the rows itself."""
    bare = []
    for table in Base.metadata.tables.values():
        leading = [
            index.expressions[0] for index in table.indexes if index.dialect_options["postgresql"]["where"] is None
        ]
        leading += [next(iter(each.columns)) for each in table.constraints if getattr(each, "columns", None)]
        for key in table.foreign_keys:
            if key.ondelete in ("CASCADE", "SET NULL") and not any(each is key.parent for each in leading):
                bare.append(str(key.parent))
    assert bare == []
