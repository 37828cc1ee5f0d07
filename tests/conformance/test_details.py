"""What versions hold in detail comes and goes with them, on every engine and through outages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.datasets import Dataset
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.results import ModelResults, RegressionResults, ResidualQuantile, TrueAndPredicted
from easyml_server.domain.statistics import TableStatistics
from easyml_server.repositories.documents.details import DatasetMetadataDocument, ModelResultDocument
from tests.builders import TIME
from tests.conformance.documents import Bench, Benches
from tests.unit.services.builders import a_dataset, a_version, some_results, some_statistics


@pytest.fixture
async def bench(document_benches: Benches) -> AsyncIterator[Bench]:
    async with document_benches() as bench:
        yield bench


async def with_dataset(bench: Bench, statistics: TableStatistics | None, project: int = 0) -> Dataset:
    """A dataset of one of the projects; None is one of a release that did not look."""
    async with bench.store.begin() as work:
        owner = (await work.projects.load(bench.projects[project])).creator_id
        dataset = replace(a_dataset(bench.projects[project], owner), name=uuid4().hex)
        await work.datasets.add(dataset)
        if statistics is not None:
            await work.datasets.put_statistics(dataset.current, statistics)
        await work.commit()
    return dataset


async def statistics_of(bench: Bench, *datasets: Dataset) -> list[TableStatistics | None]:
    async with bench.store.read() as work:
        found = await work.datasets.find_statistics([each.current.id for each in datasets])
    assert set(found) <= {each.current.id for each in datasets}
    return [found.get(each.current.id) for each in datasets]


@pytest.mark.parametrize("applied", [False, True], ids=["waiting", "applied"])
async def test_statistics_come_back_as_they_were_and_of_old_datasets_there_are_none(
    bench: Bench, applied: bool
) -> None:
    old, new = await with_dataset(bench, None), await with_dataset(bench, some_statistics())
    of_other = await with_dataset(bench, TableStatistics((), 0), project=1)
    if applied:
        await bench.apply()
    found = await statistics_of(bench, old, of_other, new)
    assert found == [None, TableStatistics((), 0), some_statistics()]
    assert await statistics_of(bench) == []


@pytest.mark.parametrize("applied", [False, True], ids=["waiting", "applied"])
async def test_a_deleted_dataset_takes_its_statistics_along(bench: Bench, applied: bool) -> None:
    gone, kept = await with_dataset(bench, some_statistics()), await with_dataset(bench, some_statistics())
    if applied:
        await bench.apply()
    async with bench.store.begin() as work:
        await work.datasets.delete(gone.id, gone.etag)
        await work.commit()
    for _ in range(2):
        assert await statistics_of(bench, gone, kept) == [None, some_statistics()]
        assert await bench.find(DatasetMetadataDocument, gone.current.id) is None
        await bench.apply()


@pytest.mark.parametrize("applied", [False, True], ids=["waiting", "applied"])
async def test_a_deleted_project_takes_the_statistics_of_its_datasets_along(bench: Bench, applied: bool) -> None:
    gone = [await with_dataset(bench, some_statistics()) for _ in range(2)]
    kept = await with_dataset(bench, some_statistics(), project=1)
    if applied:
        await bench.apply()
    async with bench.store.begin() as work:
        project = await work.projects.load(bench.projects[0])
        await work.projects.delete(project.id, project.etag)
        await work.commit()
    for _ in range(2):
        assert await statistics_of(bench, *gone, kept) == [None, None, some_statistics()]
        await bench.apply()


async def with_version(bench: Bench, results: ModelResults | None) -> ModelVersion:
    """A version of a model of the first project; None is one of a release that did not look."""
    async with bench.store.begin() as work:
        project = await work.projects.load(bench.projects[0])
        version = await work.models.add_version(a_version(project))
        if results is not None:
            await work.models.put_results(version, results)
        await work.commit()
    return version


async def results_of(bench: Bench, *versions: ModelVersion) -> list[ModelResults | None]:
    async with bench.store.read() as work:
        return [await work.models.find_results(each.id) for each in versions]


@pytest.mark.parametrize("applied", [False, True], ids=["waiting", "applied"])
async def test_results_come_back_as_they_were_and_go_with_their_version(bench: Bench, applied: bool) -> None:
    line = tuple(TrueAndPredicted(float(number), -0.1 * number) for number in range(3))
    regression = ModelResults(3, regression=RegressionResults((ResidualQuantile(0.5, 1e300),), line))
    old, gone, kept = [await with_version(bench, each) for each in (None, some_results(), regression)]
    if applied:
        await bench.apply()
    assert await results_of(bench, old, gone, kept) == [None, some_results(), regression]
    async with bench.store.begin() as work:
        await work.models.delete_version(gone, gone.etag, TIME)
        await work.commit()
    for _ in range(2):
        assert await results_of(bench, old, gone, kept) == [None, None, regression]
        assert await bench.find(ModelResultDocument, gone.id) is None
        await bench.apply()
    async with bench.store.begin() as work:
        project = await work.projects.load(bench.projects[0])
        await work.projects.delete(project.id, project.etag)
        await work.commit()
    for _ in range(2):
        assert await results_of(bench, kept) == [None]
        await bench.apply()


async def test_while_documents_are_away_one_that_is_not_known_is_enough_to_say_so(bench: Bench) -> None:
    applied = await with_dataset(bench, some_statistics())
    await bench.apply()
    waiting = await with_dataset(bench, some_statistics())
    bench.down()
    assert await statistics_of(bench, waiting) == [some_statistics()]
    if bench.away:
        for asked in ([applied], [waiting, applied]):
            with pytest.raises(Unavailable) as refused:
                await statistics_of(bench, *asked)
            assert refused.value.metadata == {"part": "documents"}
            assert refused.value.retry_after
    await bench.up()
    assert await statistics_of(bench, waiting, applied) == [some_statistics()] * 2


async def test_a_rolled_back_dataset_leaves_no_statistics(bench: Bench) -> None:
    identity = UUID(int=7)
    async with bench.store.begin() as work:
        owner = (await work.projects.load(bench.projects[0])).creator_id
        dataset = a_dataset(bench.projects[0], owner)
        dataset = replace(dataset, current=replace(dataset.current, id=identity))
        await work.datasets.add(dataset)
        await work.datasets.put_statistics(dataset.current, some_statistics())
    assert await bench.find(DatasetMetadataDocument, identity) is None
