"""Lists of datasets in full: no more is read than fits on a page, and pages join without gap or repeat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from easyml.v1 import dataset_service_pb2 as pb
from easyml.v1 import project_pb2
from easyml_server.domain.limits import Limits
from easyml_server.domain.users import Caller
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.datasets import DESCRIBED_AT_ONCE, DatasetService
from easyml_server.transport.calls import CURRENT, Call
from easyml_server.transport.converters import pages
from easyml_server.transport.servicers import datasets as servicers
from tests.builders import TIME, a_config, a_project, a_user
from tests.unit.services.builders import a_dataset, some_statistics

DATASETS = DESCRIBED_AT_ONCE + 5


@pytest.fixture
async def request_in_full(store: SqlStore) -> pb.ListDatasetsRequest:
    """Of a project with more datasets than are read at once, asked by its owner."""
    user = a_user()
    project = a_project(user.id)
    async with store.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        for number in range(DATASETS):
            dataset = replace(a_dataset(project.id, user.id), name=f"{number:02}")
            await work.datasets.add(dataset)
            await work.datasets.put_statistics(dataset.current, some_statistics())
        await work.commit()
    CURRENT.set(Call("id", "/easyml.v1.DatasetService/ListDatasets", "peer", Caller(user.id)))
    order = pb.DATASET_ORDER_NAME_ASC
    return pb.ListDatasetsRequest(project_id=str(project.id), view=project_pb2.RESOURCE_VIEW_FULL, order_by=order)


@pytest.mark.parametrize(
    ("most_bytes", "sizes"),
    [(pages.MAX_PAGE_BYTES, [DATASETS]), (1, [1] * DATASETS), (3_000, None)],
    ids=["all", "one by one", "some"],
)
async def test_a_page_in_full_ends_where_it_grows_too_large(
    store: SqlStore,
    request_in_full: pb.ListDatasetsRequest,
    monkeypatch: pytest.MonkeyPatch,
    most_bytes: int,
    sizes: list[int] | None,
) -> None:
    for module in (pages, servicers):
        monkeypatch.setattr(module, "MAX_PAGE_BYTES", most_bytes)
    unused: Any = None
    service = DatasetService(store, unused, unused, lambda: TIME)
    servicer = servicers.DatasetServicer(service, unused, unused, Limits(), lambda: TIME)
    names, found = [], []
    while not found or request_in_full.page_token:
        page = await servicer.ListDatasets(request_in_full, unused)
        assert all(len(dataset.current_version.statistics.columns) == 4 for dataset in page.datasets)
        assert len(page.datasets) == 1 or page.ByteSize() <= most_bytes + len(page.next_page_token) + 100
        names += [dataset.name for dataset in page.datasets]
        found.append(len(page.datasets))
        request_in_full.page_token = page.next_page_token
    assert names == [f"{number:02}" for number in range(DATASETS)]
    assert found == sizes or (sizes is None and 1 < len(found) < DATASETS)
