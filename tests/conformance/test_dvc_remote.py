"""Where versions are brought for DVC is written down, and all of them are brought anew when that changes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.domain.errors import Reason, Unavailable
from easyml_server.domain.versioning import AddedVersion, DvcPointer, DvcState, VersionKind
from easyml_server.ports.store import Intent
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.versions import (
    ADD_DATASET_VERSION,
    ADD_MODEL_VERSION,
    VersionRecorder,
    VersionService,
    follow_remote,
)
from easyml_server.versioning.process import start_versioner
from tests.builders import TIME
from tests.conformance.filled import World, a_world, store_world

KINDS = (ADD_DATASET_VERSION, ADD_MODEL_VERSION)
LATER = TIME + timedelta(days=1)


@pytest.fixture
async def world(store: SqlStore) -> World:
    return await store_world(store, a_world())


async def intents(store: SqlStore) -> list[Intent]:
    async with store.read() as work:
        return list(await work.outbox.due(KINDS, LATER, 100_000))


async def test_each_version_is_brought_to_a_new_remote_once(store: SqlStore, world: World) -> None:
    assert await store.dvc_remote() is None
    assert await store.change_dvc_remote("/mnt/one", *KINDS, TIME)
    first = await intents(store)
    async with store.read() as work:
        assert {str(each.subject_id) for each in first} == await work.known_file_ids()
    assert {each.kind for each in first if each.subject_id == world.version.id} == {ADD_MODEL_VERSION}
    assert not await store.change_dvc_remote("/mnt/one", *KINDS, TIME)
    assert await intents(store) == first
    assert await store.change_dvc_remote("/mnt/two", *KINDS, TIME)
    assert len(await intents(store)) == 2 * len(first)
    assert await store.dvc_remote() == "/mnt/two"


async def test_a_version_is_not_brought_again_to_where_it_is(store: SqlStore, world: World, tmp_path: Path) -> None:
    async with start_versioner(tmp_path / "dvc", tmp_path / "cache", tmp_path, "/mnt/one/", whole=True) as versioner:
        recorder = VersionRecorder(store, LocalArtifacts(tmp_path, 0, tmp_path / "work"), versioner, lambda: TIME)
        await follow_remote(store, versioner, TIME)
        pointer = await _pushed(store, world, versioner.remote(world.project.id).url)
        (intent,) = [each for each in await intents(store) if each.subject_id == pointer.version_id]
        await recorder.handlers[intent.kind](intent)
        assert intent not in await intents(store)
        # DVC was not asked at all.
        assert not (tmp_path / "dvc").exists()


async def test_of_two_servers_with_different_settings_the_one_that_started_last_pushes(
    store: SqlStore, world: World, tmp_path: Path
) -> None:
    async with start_versioner(tmp_path / "dvc", tmp_path / "cache", tmp_path, "/mnt/one", whole=True) as versioner:
        recorder = VersionRecorder(store, LocalArtifacts(tmp_path, 0, tmp_path / "work"), versioner, lambda: TIME)
        await follow_remote(store, versioner, TIME)
        pointer = await _pushed(store, world, versioner.remote(world.project.id).url)
        await store.change_dvc_remote("/mnt/two", *KINDS, TIME)
        *_, intent = [each for each in await intents(store) if each.subject_id == pointer.version_id]
        with pytest.raises(Unavailable, match="to /mnt/two, this one to /mnt/one; set EASYML_DVC_REMOTE") as said:
            await recorder.handlers[intent.kind](intent)
        assert said.value.reason is Reason.PART_UNAVAILABLE
        assert intent in await intents(store)
    told = await VersionService(store).pointer_of_dataset(world.caller, world.dataset.id)
    assert told is not None
    assert (told.state, told.remote_url) == (DvcState.ADDED, f"/mnt/two/{world.project.id}")


async def _pushed(store: SqlStore, world: World, url: str) -> DvcPointer:
    added = AddedVersion("v1.dvc", "outs:", "0" * 32, 9, ("v1/original",))
    kind, version_id = VersionKind.DATASET, world.dataset.current.id
    pointer = DvcPointer(version_id, world.project.id, kind, added, "easyml-1", url, TIME, push_time=TIME)
    async with store.begin() as work:
        await work.versions.put(pointer)
        await work.commit()
    return pointer
