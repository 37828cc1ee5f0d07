"""Where the files are: in the data folder, or in a folder or an object store that several servers share."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.data_folder import DataFolder, StartError
from easyml_server.ports.artifacts import ArtifactStore, Key
from easyml_server.processes.locks import exclusive
from easyml_server.security.tokens import write_private
from easyml_server.settings import Settings

if TYPE_CHECKING:
    from easyml_server.artifacts.object_store import ObjectStore
    from easyml_server.artifacts.objects import ObjectArtifacts

EXAMPLE = "file:///srv/easyml"
FILES = "files"
"""The folder of what versions consist of, below the place of all files."""
WORK_MARKER = "server.id"
"""A file in the working folder of a server whose files are in an object store: workers that see it see that folder."""
S3_EXAMPLE = "s3://bucket/easyml"


class Artifacts(ArtifactStore, Protocol):
    """Files, as the server that keeps them looks after them."""

    @property
    def work(self) -> Path:
        """Scratch of this server alone."""
        ...

    async def suspects(self) -> Sequence[Key]:
        """What may have been left behind, unless a row knows it."""
        ...

    def left_behind(self, keys: Sequence[Key]) -> AbstractContextManager[Sequence[Key]]:
        """Those that nobody is at work on; nobody begins to while this lasts."""
        ...

    async def tidy(self) -> None:
        """Remove what servers that died held."""
        ...

    async def keep_published(self) -> None:
        """Let others know that what was published and has no row yet is being worked on."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """The files, the folder of what lies beside them, and the object store that they are in, if they are.

    There `dvc_remote` is where their versions go that name no other place: a folder of one server is none for all.
    """

    artifacts: Artifacts
    root: Path
    objects: ObjectArtifacts | None = None
    dvc_remote: str | None = None


def object_url(settings: Settings) -> str | None:
    """The URL of the object store; None where files are in a folder."""
    url = settings.artifact_url
    if url is None or urlsplit(url).scheme == "file":
        return None
    parts = urlsplit(url)
    if not parts.scheme:
        raise StartError(f"EASYML_ARTIFACT_URL is no URL; write {EXAMPLE} or {S3_EXAMPLE}.")
    if not parts.netloc or parts.query or parts.fragment or "::" in url:
        raise StartError(f"EASYML_ARTIFACT_URL names no bucket; write {S3_EXAMPLE}.")
    if "@" in parts.netloc:
        raise StartError(
            f"EASYML_ARTIFACT_URL must hold no credentials; write {S3_EXAMPLE}, and set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        )
    return url


@contextmanager
def object_store(url: str) -> Iterator[ObjectStore]:
    """The object store of a URL; nothing is asked yet."""
    try:
        from easyml_server.artifacts.object_store import CannotUseError, ObjectStore
    except ImportError as error:
        raise StartError(f"Files in {urlsplit(url).scheme}:// need fsspec; run: uv sync") from error
    try:
        store = ObjectStore(url)
    except CannotUseError as error:
        raise StartError(str(error)) from error
    try:
        yield store
    finally:
        store.close()


async def check_object_store(store: ObjectStore) -> None:
    """StartError says why files cannot be kept there."""
    from easyml_server.artifacts.object_store import CannotUseError

    try:
        await store.check()
    except CannotUseError as error:
        raise StartError(str(error)) from error


def files_root(settings: Settings, data_dir: Path) -> Path:
    """The folder of datasets, models and uploads; the data folder where these are in an object store."""
    if settings.artifact_url is None or object_url(settings) is not None:
        return data_dir
    parts = urlsplit(settings.artifact_url)
    if parts.netloc not in ("", "localhost") or not parts.path.strip("/") or parts.query or parts.fragment:
        raise StartError(f"EASYML_ARTIFACT_URL names no folder of this machine; write {EXAMPLE}.")
    return Path(unquote(parts.path))


def make_root(root: Path) -> None:
    """Make the folder if it is new."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(root, error) from error


def _not_writable(root: Path, error: OSError) -> StartError:
    return StartError(f"The files in {root} cannot be written ({error.strerror}); see EASYML_ARTIFACT_URL.")


@asynccontextmanager
async def open_files(settings: Settings, folder: DataFolder) -> AsyncIterator[Files]:
    """The files, with a working folder of this server's own."""
    url = object_url(settings)
    if url is None:
        with _open_folder(settings, folder) as artifacts:
            yield Files(artifacts, artifacts.root)
        return
    from easyml_server.artifacts.copies import Copies
    from easyml_server.artifacts.objects import ObjectArtifacts

    with object_store(url) as store, _own_work(folder.root) as work:
        write_private(work / WORK_MARKER, f"{uuid4()}\n".encode())
        # Once connected it answers soon enough for calls.
        await check_object_store(store)
        copies = Copies(folder.root / "copies", settings.artifact_copies_bytes)
        objects = ObjectArtifacts(store, work, copies, settings.min_free_disk_bytes)
        yield Files(objects, folder.root, objects, f"{store.url}/dvc")


@contextmanager
def _open_folder(settings: Settings, folder: DataFolder) -> Iterator[LocalArtifacts]:
    root = files_root(settings, folder.root)
    shared = settings.artifact_url is not None
    make_root(root)
    with ExitStack() as stack:
        try:
            stack.enter_context(_used(root, shared=shared))
            work = stack.enter_context(_shared_work(root) if shared else _own_work(root))
            artifacts = LocalArtifacts(root, settings.min_free_disk_bytes, work)
        except BlockingIOError as error:
            raise StartError(
                f"Another server uses the files in {root}; to share them, set EASYML_ARTIFACT_URL on all servers."
            ) from error
        except OSError as error:
            raise _not_writable(root, error) from error
        yield artifacts


@contextmanager
def _used(root: Path, *, shared: bool) -> Iterator[None]:
    """A server that thinks the files are its own shares them with nobody, since it empties the working folder."""
    descriptor = os.open(root / "files.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _own_work(root: Path) -> Iterator[Path]:
    work = root / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    yield work


@contextmanager
def _shared_work(root: Path) -> Iterator[Path]:
    """One of many; those of servers that died are removed by whoever looks for what was left behind."""
    work = root / "work" / uuid4().hex
    locks = root / "locks"
    locks.mkdir(mode=0o700, exist_ok=True)
    with exclusive(locks / work.name, wait=True):
        work.mkdir(mode=0o700, parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
