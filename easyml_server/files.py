"""Where the files are: in the data folder, or in a folder that several servers share."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.artifacts.locks import exclusive
from easyml_server.data_folder import DataFolder, StartError
from easyml_server.settings import Settings

EXAMPLE = "file:///srv/easyml"


def files_root(settings: Settings, data_dir: Path) -> Path:
    """The folder of datasets, models and uploads."""
    if settings.artifact_url is None:
        return data_dir
    parts = urlsplit(settings.artifact_url)
    if parts.scheme != "file":
        named = f"{parts.scheme}://" if parts.scheme else "no URL"
        raise StartError(f"EASYML_ARTIFACT_URL is {named}; this release keeps files in a folder: write {EXAMPLE}.")
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


@contextmanager
def open_files(settings: Settings, folder: DataFolder) -> Iterator[LocalArtifacts]:
    """The files, with a working folder of this server's own on the same disk."""
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
