"""What documents promise, wherever they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.repositories.documents.encoding import MAX_DOCUMENT_BYTES, bson_bytes, for_bson
from easyml_server.repositories.documents.models import ModelSessionDocument, ProjectConfigDocument
from tests.conformance.documents import (
    Bench,
    Benches,
    a_config_document,
    a_session_document,
    odd_text,
    plain,
    values,
)


@pytest.fixture
async def bench(document_benches: Benches) -> AsyncIterator[Bench]:
    async with document_benches() as bench:
        yield bench


@pytest.mark.parametrize("applied", [False, True], ids=["waiting", "applied"])
@pytest.mark.parametrize(
    "content",
    [
        {"a.b": {"$set": 1, "$": 2, ".": 3, "%2E": 4, "%": 5, "": 6, "_id": 7, "🐧": "\U0001f427"}},
        {"n": {"large": 2**63, "larger": -(10**30), "largest of 64 bits": 2**63 - 1}},
        {"n": {"nan": float("nan"), "inf": float("inf"), "zero": -0.0, "whole": 1e300, "one": 1.0, "int": 1}},
        {"n": {"%int": "1"}, "m": {"%float": "1"}, "o": {"nested": [{"%int": "1"}, [], {}, None, True]}},
    ],
    ids=["keys", "large numbers", "no numbers", "what looks like a mark"],
)
async def test_odd_content_comes_back_as_it_was(bench: Bench, content: dict[str, Any], applied: bool) -> None:
    document = a_config_document(uuid4(), content)
    await bench.put(document, bench.projects[0])
    if applied:
        await bench.apply()
    assert plain(await bench.find(ProjectConfigDocument, document.id)) == plain(document)


@pytest.mark.parametrize(
    "content", [{"a\0": {}}, {"a": {"b": "x\0"}}, {"a": {"\0": 1}}, {"a": {"b": ["\ud800"]}}], ids=repr
)
async def test_what_one_engine_cannot_hold_all_refuse(bench: Bench, content: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="such as NUL"):
        await bench.put(a_config_document(uuid4(), content), bench.projects[0])


async def test_nesting_has_an_end(bench: Bench) -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InvalidInput) as refused:
        await bench.put(a_config_document(uuid4(), {"a": {"b": deep}}), bench.projects[0])
    assert refused.value.reason is Reason.MALFORMED_MESSAGE


async def test_the_largest_document_is_kept_and_a_larger_one_refused(bench: Bench) -> None:
    empty = a_config_document(uuid4(), {"a": {"b": ""}})
    room = MAX_DOCUMENT_BYTES - bson_bytes(for_bson(empty.body()))
    largest = a_config_document(empty.id, {"a": {"b": "x" * room}})
    await bench.put(largest, bench.projects[0])
    await bench.apply()
    found = await bench.find(ProjectConfigDocument, empty.id)
    assert isinstance(found, ProjectConfigDocument)
    assert len(found.default_hyperparameters["a"]["b"]) == room
    with pytest.raises(InvalidInput) as refused:
        await bench.put(a_config_document(empty.id, {"a": {"b": "x" * (room + 1)}}), bench.projects[0])
    assert refused.value.reason is Reason.TOO_LARGE
    assert refused.value.metadata["maximum"] == str(MAX_DOCUMENT_BYTES)


@given(values)
def test_sizes_are_what_the_driver_makes(value: Any) -> None:
    import bson

    body = for_bson({"value": value})
    assert bson_bytes(body) == len(bson.encode(body))


@given(st.dictionaries(odd_text, values, max_size=2))
def test_no_key_or_number_is_left_that_bson_does_not_hold(body: dict[str, Any]) -> None:
    import bson

    made = for_bson(body)
    assert not any("." in key or "$" in key for key in made)
    bson.encode(made)


async def test_a_document_that_is_written_while_others_are_applied_is_not_forgotten(bench: Bench) -> None:
    session_id = uuid4()
    applying = asyncio.create_task(_apply_all_along(bench))
    try:
        for number in range(30):
            await bench.put(a_session_document(session_id, {"n": float(number)}), bench.projects[0])
            assert await number_in(bench, session_id) == number
    finally:
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)
    await bench.apply()
    assert await number_in(bench, session_id) == 29
    async with bench.store.read() as work:
        assert await work.pending.count() == 0


async def number_in(bench: Bench, session_id: UUID) -> float | None:
    found = await bench.find(ModelSessionDocument, session_id)
    assert found is None or isinstance(found, ModelSessionDocument)
    return None if found is None else found.values["n"]


@pytest.mark.parametrize("applied", [False, True], ids=["waiting", "applied"])
async def test_a_deleted_project_takes_its_documents_along_and_no_others(bench: Bench, applied: bool) -> None:
    gone, written_again, of_others = uuid4(), uuid4(), uuid4()
    for identity, project in ((gone, 0), (written_again, 0), (of_others, 1)):
        await bench.put(a_session_document(identity, {"n": 1.0}), bench.projects[project])
    if applied:
        await bench.apply()
    async with bench.store.begin() as work:
        await work.documents.delete_of_project(bench.projects[0])
        await work.documents.put(a_session_document(written_again, {"n": 2.0}), bench.projects[0])
        await work.commit()
    for _ in range(2):
        found = [await number_in(bench, identity) for identity in (gone, written_again, of_others)]
        assert found == [None, 2.0, 1.0]
        await bench.apply()
    # Had been applied before the second of two deletes.
    async with bench.store.begin() as work:
        await work.documents.delete_of_project(bench.projects[0])
        await work.commit()
    assert await number_in(bench, written_again) is None
    await bench.apply()
    assert await number_in(bench, written_again) is None


async def _apply_all_along(bench: Bench) -> None:
    while True:
        await bench.apply()
        await asyncio.sleep(0)
