"""The newest versions of a project are looked at, page by page, and no more than there may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from easyml_server.domain.errors import NotFound, WrongState
from easyml_server.domain.experiments import Metric
from easyml_server.domain.models import Artifact, ArtifactFormat
from easyml_server.domain.selection import MetricCriterion, SelectionCriteria
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services import selection
from easyml_server.services.selection import LONGEST_REASON, MAX_REASONS, select_version
from tests.builders import TIME, a_config, a_project, a_user
from tests.unit.services.builders import a_version, measured

ACCURACY = MetricCriterion(Metric.ACCURACY)
PIPELINE = Artifact(ArtifactFormat.SKOPS, "model.skops", 5_000, "0" * 64)


async def test_the_newest_are_looked_at(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    user = a_user()
    project = a_project(user.id)
    async with store.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        for number in range(7):
            version = a_version(
                project,
                metrics=(measured(0.9 - number / 10),),
                create_time=TIME + timedelta(minutes=number),
                inference_time_ms=0.5 if number else None,
            )
            manifest = replace(version.manifest, artifacts=(PIPELINE,))
            await work.models.add_version(replace(version, manifest=manifest))
        await work.commit()
    monkeypatch.setattr(selection, "_PAGE", 2)
    async with store.read() as work:
        found = await select_version(work, project.id, SelectionCriteria(ACCURACY))
        assert [each.version.version for each in found.candidates] == [1, 2, 3, 4, 5, 6, 7]
        assert (found.chosen.version, found.truncated) == (1, False)
        timed = await select_version(work, project.id, SelectionCriteria(ACCURACY, max_inference_time_ms=1))
        assert (timed.chosen.version, timed.chosen.inference_time_ms) == (2, 0.5)
        monkeypatch.setattr(selection, "MAX_CANDIDATES", 4)
        found = await select_version(work, project.id, SelectionCriteria(ACCURACY))
        assert [each.version.version for each in found.candidates] == [4, 5, 6, 7]
        assert found.truncated
        with pytest.raises(NotFound):
            await select_version(work, project.id, SelectionCriteria(ACCURACY, model_name="other"))


async def test_reasons_of_many_fit_into_the_trailers_of_a_call(store: SqlStore) -> None:
    user = a_user()
    project = a_project(user.id)
    async with store.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        for number in range(MAX_REASONS + 5):
            version = a_version(project, model_name=f"m{'o' * 240}{number}")
            await work.models.add_version(replace(version, manifest=replace(version.manifest, artifacts=(PIPELINE,))))
        await work.commit()
    everything = SelectionCriteria(ACCURACY, (MetricCriterion(Metric.LOG_LOSS),), "", 1, 1, True)
    async with store.read() as work:
        with pytest.raises(WrongState) as refused:
            await select_version(work, project.id, everything)
    assert refused.value.metadata == {"candidates": str(MAX_REASONS + 5)}
    assert len(refused.value.violations) == MAX_REASONS
    assert max(len(each.description) for each in refused.value.violations) <= LONGEST_REASON
    said = sum(len(each.field.encode()) + len(each.description.encode()) for each in refused.value.violations)
    assert said < 3_000
