"""What every place of files promises: a folder, and an object store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from easyml_server.artifacts import object_store
from easyml_server.artifacts.copies import Copies
from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.artifacts.object_store import ObjectStore
from easyml_server.artifacts.objects import ObjectArtifacts
from easyml_server.artifacts.parts import Part, chain
from easyml_server.domain.errors import InvalidInput, Reason, Unavailable, WrongState
from easyml_server.files import Artifacts
from easyml_server.ports.artifacts import UploadKey, VersionKey
from tests.marks import limits
from tests.s3 import S3Server, s3, s3_environment
from tests.s3_refusing import Refusing, refusing

TABLE = bytes(range(256)) * 1000
LARGE = TABLE * 160
FREE = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3() as server:
        yield server


class Bucket:
    """Files in a bucket, as one server has them."""

    def __init__(self, server: S3Server, folder: Path, bucket: str, max_bytes: int = FREE) -> None:
        self.files = server.files()
        self.root = f"{bucket}/easyml"
        self.store = ObjectStore(f"s3://{self.root}")
        work = folder / uuid4().hex
        work.mkdir()
        self.copies = folder / f"{work.name}-copies"
        self.artifacts = ObjectArtifacts(self.store, work, Copies(self.copies, max_bytes), 0)

    def names(self) -> list[str]:
        return sorted(path.removeprefix(f"{self.root}/") for path in self.files.find(self.root))


@pytest.fixture
def bucket(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    # The first question connects; a server does that at its start.
    monkeypatch.setattr(object_store, "ASKED_SECONDS", 30)
    with s3_environment(server):
        bucket = Bucket(server, tmp_path, server.new_bucket())
        yield bucket
        bucket.store.close()


@pytest.fixture(params=["folder", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    if request.param == "folder":
        return LocalArtifacts(tmp_path, 0, tmp_path / "work")
    found: Bucket = request.getfixturevalue("bucket")
    return found.artifacts


def a_version() -> VersionKey:
    return VersionKey.of_dataset(uuid4(), uuid4())


async def published(artifacts: Artifacts, key: VersionKey | None = None, content: bytes = TABLE) -> VersionKey:
    key = key or a_version()
    work_path = artifacts.new_work_path()
    (work_path / "table.parquet").write_bytes(content)
    (work_path / "empty").write_bytes(b"")
    await artifacts.publish(work_path, key)
    artifacts.committed(key)
    await artifacts.discard(work_path)
    return key


async def content_of(artifacts: Artifacts, key: VersionKey, name: str = "table.parquet") -> bytes:
    return b"".join([chunk async for chunk in artifacts.read(key, name)])


async def hold(artifacts: Artifacts, key: VersionKey) -> None:
    async with artifacts.held(key):
        pass


async def size_of(artifacts: Artifacts, key: VersionKey) -> int:
    return await artifacts.size(key)


async def received(artifacts: Artifacts, key: UploadKey, offset: int, content: bytes) -> int:
    async with artifacts.incoming(key, offset) as incoming:
        for start in range(0, len(content), 1 << 20):
            await incoming.take(content[start : start + (1 << 20)])
            if incoming.unsynced >= 8 << 20:
                await incoming.sync()
        return await incoming.sync()


async def test_a_model_in_a_bucket_says_where_others_read_it_and_one_in_a_folder_does_not(
    artifacts: Artifacts,
) -> None:
    key = VersionKey.of_model(uuid4(), uuid4())
    work_path = artifacts.new_work_path()
    (work_path / "manifest.json").write_bytes(b"{}")
    await artifacts.publish(work_path, key)
    source = await artifacts.source(key)
    if isinstance(artifacts, LocalArtifacts):
        assert source is None
        return
    assert source is not None
    assert source.manifest_sha256 == hashlib.sha256(b"{}").hexdigest()
    there = ObjectStore(source.url)
    assert await there.get("manifest.json") == b"{}"
    there.close()
    with pytest.raises(WrongState) as caught:
        await artifacts.source(await published(artifacts))
    assert caught.value.reason is Reason.CHECKSUM_MISMATCH, "no model has no manifest"


async def test_what_is_published_is_read(artifacts: Artifacts) -> None:
    key = await published(artifacts)
    assert await content_of(artifacts, key) == TABLE
    assert await content_of(artifacts, key, "empty") == b""
    async with artifacts.held(key) as folder:
        assert (folder / "table.parquet").read_bytes() == TABLE
        assert (folder / "empty").read_bytes() == b""
    assert await artifacts.size(key) >= len(TABLE)


async def test_what_is_removed_is_gone_and_may_be_removed_again(artifacts: Artifacts) -> None:
    key, other = await published(artifacts), await published(artifacts)
    assert await artifacts.remove(key) >= len(TABLE)
    assert await artifacts.remove(key) == 0
    assert await artifacts.size(key) == 0
    assert await content_of(artifacts, other) == TABLE
    await artifacts.remove_project(other.project_id)
    assert await artifacts.size(other) == 0


async def test_files_that_are_gone_are_told(artifacts: Artifacts) -> None:
    key = await published(artifacts)
    await artifacts.remove(key)
    for ask in (content_of, hold):
        with pytest.raises(WrongState, match="changed or lost") as said:
            await ask(artifacts, key)
        assert said.value.reason is Reason.CHECKSUM_MISMATCH


async def test_an_upload_is_gone_on_with_where_it_broke_off(artifacts: Artifacts) -> None:
    key = UploadKey(uuid4(), uuid4())
    whole = LARGE[: 18 << 20]
    safe = 0
    for end in (0, 100, 5 << 20, (9 << 20) + 1, len(whole)):
        safe = await received(artifacts, key, safe, whole[safe:end])
        assert safe == end
    async with artifacts.gathered(key, len(whole)) as path:
        assert path.read_bytes() == whole
    await artifacts.remove(key)
    assert await artifacts.size(key) == 0


async def test_what_comes_again_replaces_what_was_not_told_to_be_safe(artifacts: Artifacts) -> None:
    key = UploadKey(uuid4(), uuid4())
    assert await received(artifacts, key, 0, TABLE) == len(TABLE)
    # The row was not written, so the caller goes on before that.
    assert await received(artifacts, key, 0, TABLE[:1000]) == 1000
    assert await received(artifacts, key, 1000, TABLE[1000:]) == len(TABLE)
    async with artifacts.gathered(key, len(TABLE)) as path:
        assert path.read_bytes() == TABLE


async def test_one_call_receives_an_upload(artifacts: Artifacts) -> None:
    key = UploadKey(uuid4(), uuid4())
    with artifacts.receiving(key), pytest.raises(Unavailable) as refused, artifacts.receiving(key):
        pass
    assert refused.value.retry_after
    with artifacts.receiving(key):
        pass


async def test_nobody_takes_what_is_being_published_for_left_behind(artifacts: Artifacts) -> None:
    key = a_version()
    work_path = artifacts.new_work_path()
    (work_path / "model.skops").write_bytes(TABLE)
    await artifacts.publish(work_path, key)
    await artifacts.keep_published()
    with artifacts.left_behind([key]) as found:
        assert not found
    artifacts.committed(key)
    with artifacts.left_behind([key]) as found:
        assert list(found) == [key]


# An object store.


async def test_a_version_is_there_once_its_contents_are(bucket: Bucket) -> None:
    key = await published(bucket.artifacts)
    assert bucket.names() == [f"files/{key}/{name}" for name in ("contents.json", "empty", "table.parquet")]
    bucket.files.rm_file(f"{bucket.root}/files/{key}/contents.json")
    with pytest.raises(WrongState) as refused:
        await content_of(bucket.artifacts, key)
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH


@pytest.mark.parametrize("changed", [TABLE[:-1] + b"x", TABLE[:-1], b""])
async def test_bytes_that_were_changed_in_the_store_are_not_given_out(
    bucket: Bucket, server: S3Server, tmp_path: Path, changed: bytes
) -> None:
    key = await published(bucket.artifacts)
    bucket.files.pipe_file(f"{bucket.root}/files/{key}/table.parquet", changed)
    other = Bucket(server, tmp_path, bucket.root.split("/")[0])
    with pytest.raises(WrongState) as refused:
        await content_of(other.artifacts, key)
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH
    with pytest.raises(WrongState):
        async with other.artifacts.held(key):
            pass
    assert not list(other.copies.iterdir())
    assert not list(other.artifacts.work.iterdir())


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "..", "a/b"])
async def test_names_in_the_store_lead_nowhere_else(
    bucket: Bucket, server: S3Server, tmp_path: Path, name: str
) -> None:
    key = await published(bucket.artifacts)
    contents = f"{bucket.root}/files/{key}/contents.json"
    bucket.files.pipe_file(contents, bucket.files.cat_file(contents).replace(b"table.parquet", name.encode()))
    other = Bucket(server, tmp_path, bucket.root.split("/")[0])
    with pytest.raises(WrongState):
        async with other.artifacts.held(key):
            pass
    # It can still be deleted.
    assert await other.artifacts.size(key) == 0
    assert await other.artifacts.remove(key) >= len(TABLE)
    assert bucket.names() == []


async def test_parts_that_were_changed_are_told_to_who_uploads(bucket: Bucket) -> None:
    key = UploadKey(uuid4(), uuid4())
    await received(bucket.artifacts, key, 0, TABLE)
    (name,) = bucket.names()
    bucket.files.pipe_file(f"{bucket.root}/{name}", TABLE[:-1] + b"x")
    with pytest.raises(InvalidInput) as refused:
        async with bucket.artifacts.gathered(key, len(TABLE)):
            pass
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH
    bucket.files.rm_file(f"{bucket.root}/{name}")
    with pytest.raises(InvalidInput):
        async with bucket.artifacts.gathered(key, len(TABLE)):
            pass


async def test_another_server_fetches_a_copy_once_and_goes_on_with_uploads(
    bucket: Bucket, server: S3Server, tmp_path: Path
) -> None:
    other = Bucket(server, tmp_path, bucket.root.split("/")[0])
    key, upload = await published(bucket.artifacts), UploadKey(uuid4(), uuid4())
    async with other.artifacts.held(key) as first:
        pass
    async with other.artifacts.held(key) as second:
        assert (second, second / "table.parquet") == (first, first / "table.parquet")
    half = await received(bucket.artifacts, upload, 0, TABLE[:5000])
    await received(other.artifacts, upload, half, TABLE[5000:])
    async with bucket.artifacts.gathered(upload, len(TABLE)) as path:
        assert path.read_bytes() == TABLE


@limits("ARTIFACT_COPIES_BYTES")
async def test_copies_take_no_more_than_they_may_but_for_those_in_use(
    bucket: Bucket, server: S3Server, tmp_path: Path
) -> None:
    keys = [await published(bucket.artifacts) for _ in range(3)]
    other = Bucket(server, tmp_path, bucket.root.split("/")[0], max_bytes=len(TABLE))
    async with other.artifacts.held(keys[0]) as folder:
        for key in keys[1:]:
            async with other.artifacts.held(key):
                pass
        assert (folder / "table.parquet").read_bytes() == TABLE
        assert list(other.copies.iterdir()) == [folder]
    async with other.artifacts.held(keys[2]):
        pass
    assert [path.name[:36] for path in other.copies.iterdir()] == [str(keys[2].version_id)]


async def test_a_large_file_goes_in_parts_and_comes_back(bucket: Bucket, server: S3Server, tmp_path: Path) -> None:
    key = await published(bucket.artifacts, content=LARGE)
    # The store's own word for an object of several parts.
    assert bucket.files.info(f"{bucket.root}/files/{key}/table.parquet")["ETag"].strip('"').endswith("-3")
    other = Bucket(server, tmp_path, bucket.root.split("/")[0])
    async with other.artifacts.held(key) as folder:
        assert hashlib.sha256((folder / "table.parquet").read_bytes()).digest() == hashlib.sha256(LARGE).digest()


@asynccontextmanager
async def behind(server: S3Server, tmp_path: Path, bucket: Bucket) -> AsyncIterator[tuple[Refusing, Bucket]]:
    with refusing(server.port) as proxy, s3_environment(server, proxy.port):
        found = Bucket(server, tmp_path, bucket.root.split("/")[0])
        yield proxy, found
        found.store.close()


async def test_every_third_request_refused_changes_nothing(bucket: Bucket, server: S3Server, tmp_path: Path) -> None:
    async with behind(server, tmp_path, bucket) as (proxy, refused):
        proxy.every = 3
        await refused.store.check()
        key, upload = await published(refused.artifacts, content=LARGE), UploadKey(uuid4(), uuid4())
        assert await content_of(refused.artifacts, key) == LARGE
        await received(refused.artifacts, upload, 0, LARGE[: 20 << 20])
        async with refused.artifacts.gathered(upload, 20 << 20) as path:
            assert path.read_bytes() == LARGE[: 20 << 20]
        await refused.artifacts.remove(upload)
        await refused.artifacts.remove(key)
        assert proxy.refused > 5
    assert bucket.names() == []


async def test_a_store_that_is_away_is_unavailable_and_comes_back(
    bucket: Bucket, server: S3Server, tmp_path: Path
) -> None:
    key = await published(bucket.artifacts)
    async with behind(server, tmp_path, bucket) as (proxy, away):
        proxy.every = 1
        for ask in (content_of, published, size_of):
            with pytest.raises(Unavailable) as refused:
                await ask(away.artifacts, key)
            assert refused.value.metadata == {"part": "files"}
            assert refused.value.retry_after
        assert await away.artifacts.remove(key) == 0
        assert await away.artifacts.suspects() == ()
        proxy.every = 0
        assert await content_of(away.artifacts, key) == TABLE


# Parts of uploads.


def test_parts_lead_from_the_beginning_to_the_end() -> None:
    whole = [Part(0, 8, "a"), Part(8, 8, "b"), Part(16, 4, "c")]
    stale = [Part(8, 3, "d"), Part(11, 2, "e"), Part(16, 9, "f"), Part(25, 1, "g"), Part(20, 0, "h")]
    assert chain([*stale, *whole], 20) == whole
    assert chain(whole, 0) == []
    with pytest.raises(InvalidInput):
        chain(whole, 12)
    assert Part.parse(str(whole[1])) == whole[1]
    assert Part.parse("contents.json") is None
