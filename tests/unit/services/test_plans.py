"""What is filled in and refused before a training starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import (
    ColumnKind,
    ColumnRole,
    ColumnSchema,
    StorageType,
)
from easyml_server.domain.errors import InvalidInput, NotFound, Reason
from easyml_server.domain.experiments import Direction, Metric, SplitKind
from easyml_server.domain.limits import Limits
from easyml_server.domain.users import Caller, Permission
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.plans import (
    Plan,
    RequestedObjective,
    RequestedSplit,
    RequestedTraining,
    plan,
    split_seed,
)
from tests.builders import a_config, a_project, a_user
from tests.unit.services.builders import a_dataset, an_experiment


def a_column(name: str, storage: StorageType, kind: ColumnKind, **changes: Any) -> ColumnSchema:
    return ColumnSchema(name, storage, kind, **{"distinct_count": 5, **changes})


COLUMNS = (
    a_column("size", StorageType.DOUBLE, ColumnKind.NUMERIC, distinct_count=90),
    a_column("colour", StorageType.STRING, ColumnKind.CATEGORICAL),
    a_column("owner", StorageType.STRING, ColumnKind.CATEGORICAL, role=ColumnRole.GROUP),
    a_column("day", StorageType.TIMESTAMP, ColumnKind.DATETIME),
    a_column("weight", StorageType.DOUBLE, ColumnKind.NUMERIC),
    a_column("gaps", StorageType.DOUBLE, ColumnKind.NUMERIC, null_count=3),
    a_column("key", StorageType.INT64, ColumnKind.NUMERIC, role=ColumnRole.IDENTIFIER, distinct_count=100),
    a_column("kind", StorageType.STRING, ColumnKind.CATEGORICAL, distinct_count=2),
    a_column("many", StorageType.STRING, ColumnKind.CATEGORICAL, distinct_count=4),
    a_column("constant", StorageType.STRING, ColumnKind.CATEGORICAL, distinct_count=1),
    a_column("empty", StorageType.DOUBLE, ColumnKind.NUMERIC, null_count=100, distinct_count=0),
    a_column("price", StorageType.DOUBLE, ColumnKind.NUMERIC, distinct_count=100),
)


class World:
    """A project with one dataset."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.user = a_user()
        self.project = a_project(self.user.id)
        self.caller = Caller(self.user.id, needs=Permission.EDITOR)
        self.dataset = a_dataset(self.project.id, self.user.id, COLUMNS)

    async def add(self) -> None:
        async with self.store.begin() as work:
            await work.users.add(self.user)
            await work.projects.add(self.project, a_config(self.project))
            await work.datasets.add(self.dataset)
            await work.commit()

    async def plan(self, **changes: Any) -> Plan:
        values: dict[str, Any] = {
            "project_id": self.project.id,
            "name": "",
            "labels": {},
            "dataset_id": self.dataset.id,
            "dataset_version_id": None,
            "target": "kind",
            "features": (),
            "task": None,
            "algorithm": "random_forest",
            "hyperparameters": {},
            "split": RequestedSplit(),
            "objective": RequestedObjective(),
            "folds": 0,
            "random_seed": 7,
            "model_name": "",
            "max_seconds": None,
        }
        async with self.store.read() as work:
            return await plan(work, self.caller, RequestedTraining(**{**values, **changes}), Limits())


@pytest.fixture
async def world(store: SqlStore) -> World:
    world = World(store)
    await world.add()
    return world


async def test_everything_left_open_is_filled_in(world: World) -> None:
    found = await world.plan()
    spec = found.spec
    assert spec.task is Task.CLASSIFICATION
    assert (spec.split.kind, spec.split.test_size, spec.split.seed) == (
        SplitKind.STRATIFIED,
        0.2,
        split_seed(world.dataset.current),
    )
    assert spec.objective.metric is Metric.ACCURACY
    assert spec.model_name == "table-kind"
    assert spec.hyperparameters["n_estimators"] == 100
    assert "key" not in spec.features
    assert "owner" not in spec.features
    assert "kind" not in spec.features
    assert found.rows == 100
    assert found.seconds is None


async def test_a_number_is_told_to_be_a_regression(world: World) -> None:
    spec = (await world.plan(target="size")).spec
    assert (spec.task, spec.split.kind, spec.objective.metric) == (Task.REGRESSION, SplitKind.RANDOM, Metric.RMSE)


async def test_a_seed_is_drawn_once_and_kept(world: World) -> None:
    spec = (await world.plan(random_seed=None)).spec
    assert 0 <= spec.random_seed < 2**32


async def test_trainings_on_one_file_are_tested_on_the_same_rows_whatever_their_seeds(world: World) -> None:
    first, second = (await world.plan(random_seed=1)).spec, (await world.plan(random_seed=None)).spec
    assert first.split == second.split
    assert (await world.plan(split=RequestedSplit(seed=5))).spec.split.seed == 5


async def test_a_group_split_takes_the_column_of_that_role_and_no_feature_of_it(world: World) -> None:
    spec = (await world.plan(split=RequestedSplit(SplitKind.GROUP))).spec
    assert spec.split.column == "owner"
    assert "owner" not in spec.features


TREES = "spec.hyperparameters.n_estimators"


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"target": "knd"}, "spec.target", Reason.UNKNOWN_COLUMN),
        ({"target": ""}, "spec.target", Reason.INVALID_FIELD),
        ({"target": "kind", "task": Task.REGRESSION}, "spec.target", Reason.UNSUITABLE_TARGET),
        ({"target": "constant"}, "spec.target", Reason.UNSUITABLE_TARGET),
        ({"target": "empty"}, "spec.target", Reason.UNSUITABLE_TARGET),
        ({"target": "day"}, "spec.target", Reason.UNSUITABLE_TARGET),
        ({"target": "price", "task": Task.CLASSIFICATION}, "spec.target", Reason.UNSUITABLE_TARGET),
        ({"algorithm": "forest"}, "spec.algorithm", Reason.UNKNOWN_ALGORITHM),
        ({"algorithm": "ridge"}, "spec.algorithm", Reason.UNKNOWN_ALGORITHM),
        ({"hyperparameters": {"trees": 5}}, "spec.hyperparameters.trees", Reason.INVALID_HYPERPARAMETER),
        ({"hyperparameters": {"n_estimators": 0}}, TREES, Reason.INVALID_HYPERPARAMETER),
        (
            {"hyperparameters": {"n_estimators": 1.5}},
            TREES,
            Reason.INVALID_HYPERPARAMETER,
        ),
        ({"features": ("size", "colr")}, "spec.features[1]", Reason.UNKNOWN_COLUMN),
        ({"features": ("size", "size")}, "spec.features[1]", Reason.INVALID_FIELD),
        ({"features": ("kind",)}, "spec.features[0]", Reason.INVALID_FIELD),
        ({"split": RequestedSplit(SplitKind.TIME)}, "spec.split.time.column", Reason.INVALID_FIELD),
        ({"split": RequestedSplit(SplitKind.GROUP, "ownr")}, "spec.split.group.column", Reason.UNKNOWN_COLUMN),
        (
            {"target": "size", "split": RequestedSplit(SplitKind.STRATIFIED)},
            "spec.split.stratified",
            Reason.INVALID_FIELD,
        ),
        (
            {"split": RequestedSplit(SplitKind.COLUMN, "colour", ("red",), test_size=0.3)},
            "spec.split.test_size",
            Reason.INVALID_FIELD,
        ),
        ({"objective": RequestedObjective(Metric.RMSE)}, "spec.objective.metric", Reason.INVALID_FIELD),
        (
            {"objective": RequestedObjective(Metric.ACCURACY, Direction.MINIMIZE)},
            "spec.objective.direction",
            Reason.INVALID_FIELD,
        ),
        ({"target": "many", "objective": RequestedObjective(Metric.F1)}, "spec.objective", Reason.INVALID_FIELD),
        (
            {"objective": RequestedObjective(class_weights={"a": 2.0}, balance_classes=True)},
            "spec.objective.class_weights",
            Reason.INVALID_FIELD,
        ),
        (
            {"target": "size", "objective": RequestedObjective(balance_classes=True)},
            "spec.objective",
            Reason.INVALID_FIELD,
        ),
        (
            {"objective": RequestedObjective(weight_column="gaps")},
            "spec.objective.weight_column",
            Reason.WRONG_COLUMN_TYPE,
        ),
        (
            {"objective": RequestedObjective(weight_column="colour")},
            "spec.objective.weight_column",
            Reason.WRONG_COLUMN_TYPE,
        ),
    ],
)
async def test_what_cannot_be_is_refused_by_field(
    world: World, changes: dict[str, Any], field: str, reason: Reason
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await world.plan(**changes)
    assert refused.value.violations[0].field == field
    assert refused.value.reason is reason
    assert refused.value.message[-1] in ".?"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "ridge"}, "no algorithm 'ridge' for classification, which the target 'kind' calls for"),
        ({"algorithm": "ridge", "task": Task.CLASSIFICATION}, "no algorithm 'ridge' for classification; "),
        ({"objective": RequestedObjective(Metric.RMSE)}, "choose one of accuracy, balanced_accuracy, "),
    ],
)
async def test_a_task_that_does_not_fit_is_told_with_the_way_out(
    world: World, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await world.plan(**changes)
    assert says in refused.value.message


async def test_a_split_is_used_again(world: World) -> None:
    first = (await world.plan(split=RequestedSplit(SplitKind.RANDOM, test_size=0.4, seed=3))).spec
    experiment = an_experiment(world.project.id, world.user.id, spec=first)
    async with world.store.begin() as work:
        await work.experiments.add(experiment)
        await work.commit()
    again = (await world.plan(random_seed=99, split=RequestedSplit(experiment_id=experiment.id))).spec
    assert again.split == first.split
    assert again.split_experiment_id == experiment.id


async def test_a_dataset_of_another_project_is_not_there(world: World) -> None:
    other = a_project(world.user.id)
    async with world.store.begin() as work:
        await work.projects.add(other, a_config(other))
        await work.commit()
    with pytest.raises(NotFound):
        await world.plan(project_id=other.id)


async def test_the_projects_defaults_hold_where_the_request_says_nothing(world: World) -> None:
    async with world.store.begin() as work:
        config = await work.projects.get_config(world.project.id)
        defaults = {"random_forest": {"n_estimators": 5, "max_depth": 3}}
        await work.projects.save_config(replace(config, default_hyperparameters=defaults), "")
        await work.commit()
    spec = (await world.plan(hyperparameters={"max_depth": 4.0})).spec
    assert spec.hyperparameters["n_estimators"] == 5
    assert spec.hyperparameters["max_depth"] == 4


async def test_a_longer_time_than_the_servers_is_cut(world: World) -> None:
    assert (await world.plan(max_seconds=1e9)).spec.max_seconds == Limits().training_seconds
    assert (await world.plan(max_seconds=5.0)).spec.max_seconds == 5.0
