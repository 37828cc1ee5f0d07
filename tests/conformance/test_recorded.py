"""What MLflow is told of: runs that were recorded or could not be yet, versions with their runs, and what failed."""

from __future__ import annotations

from uuid import uuid4

import pytest

from easyml_server.domain.errors import NotFound
from easyml_server.domain.sessions import MlflowRun
from easyml_server.ports.store import LONGEST_WAIT, Store
from tests.builders import TIME
from tests.conformance.test_store import owner_of, with_experiments, with_project, with_version

KINDS = ("record_run", "mirror_model")


async def test_a_run_that_could_not_be_recorded_says_why_until_it_is(store: Store) -> None:
    (experiment,) = await with_experiments(store, await with_project(store))
    waiting = MlflowRun(experiment.id, "http://mlflow", "", "", "", "", TIME, "it does not answer")
    written = MlflowRun(experiment.id, "http://mlflow", "1", "run", "mlflow-artifacts:/1/run", "runs:/run/model", TIME)
    for run in (waiting, written):
        async with store.begin() as work:
            await work.experiments.put_mlflow_run(run)
            await work.commit()
        async with store.read() as work:
            assert await work.experiments.find_mlflow_run(experiment.id) == run
            assert (await work.experiments.load(experiment.id)).mlflow_run_id == run.run_id


async def test_versions_come_in_order_with_the_runs_of_their_experiments(store: Store) -> None:
    project = await with_project(store)
    recorded, waiting, deleted = await with_experiments(store, project, 3)
    versions = [
        await with_version(store, project, experiment_id=experiment.id) for experiment in (recorded, waiting, deleted)
    ]
    other = await with_version(store, project, "another")
    async with store.begin() as work:
        await work.experiments.put_mlflow_run(MlflowRun(recorded.id, "http://mlflow", "1", "run", "", "", TIME))
        await work.experiments.delete(deleted.id, "")
        await work.models.set_alias(versions[0], "production", project.creator_id, TIME)
        await work.commit()
    async with store.read() as work:
        found = await work.models.recorded_versions(versions[0].model_id)
        model = await work.models.load_model(versions[0].model_id)
        models = await work.models.ids_of_project(project.id)
    assert [(each.id, each.version, each.run_id, each.awaits_run) for each in found] == [
        (versions[0].id, 1, "run", False),
        (versions[1].id, 2, None, True),
        (versions[2].id, 3, None, False),
    ]
    assert [(alias.alias, alias.model_version_id) for alias in model.aliases] == [("production", versions[0].id)]
    assert set(models) == {model.id, other.model_id}


async def test_a_model_that_is_gone_is_not_found(store: Store) -> None:
    project = await with_project(store)
    version = await with_version(store, project)
    async with store.begin() as work:
        await work.models.delete_version(await work.models.get_version(version.id, owner_of(project)), "", TIME)
        await work.commit()
    async with store.read() as work:
        assert await work.models.recorded_versions(version.model_id) == []
        with pytest.raises(NotFound):
            await work.models.load_model(version.model_id)


async def test_what_was_tried_in_vain_is_failing_until_it_is_done(store: Store) -> None:
    async with store.begin() as work:
        await work.outbox.add("record_run", uuid4(), TIME)
        await work.commit()
    async with store.begin() as work:
        intent = await work.outbox.claim(KINDS, TIME, TIME + LONGEST_WAIT)
        assert intent is not None
        assert not await work.outbox.failing(KINDS)
        await work.outbox.retry(intent, TIME + LONGEST_WAIT)
        await work.commit()
    async with store.begin() as work:
        assert await work.outbox.failing(KINDS)
        assert not await work.outbox.failing(("another",))
        await work.outbox.done(intent)
        assert not await work.outbox.failing(KINDS)
