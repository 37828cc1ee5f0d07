"""One project's DVC repository. DVC is not thread-safe: this runs in the versioning process alone.

A version has a folder of its own, named by ids, with a pointer `v3.dvc` in it. The files themselves are links into
DVC's cache: the ones in the server's data folder too, so nothing is stored twice.

Servers may share the folder. One of them is at work in a repository at a time; the others wait. DVC's own lock does not
hold while a repository is made, and gives up after three seconds. A push leaves the others alone, but for that lock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from easyml_server.processes.locks import exclusive
from easyml_server.versioning.messages import Repository

LINKS = ["reflink", "hardlink", "copy"]


def add(repository: Repository, place: str, number: int, files: Path) -> dict[str, Any]:
    """`dvc add` the files; what a crash left half-done is finished."""
    with _alone_in(repository), _opened(repository) as repo:
        folder = Path(repo.root_dir) / place
        links, pointer = folder / f"v{number}", folder / f"v{number}.dvc"
        if pointer.exists() and not repository.whole and repo.stage.load_one(str(pointer)).outs[0].changed_cache():
            # The push of another version took this one's copy away before it was pushed.
            pointer.unlink()
        if not pointer.exists():
            _link_all(files, links)
            repo.add(str(links))
        stage = repo.stage.load_one(str(pointer))
        (out,) = stage.outs
        if out.remote != repository.remote_name:
            out.remote = repository.remote_name
            stage.dump()
        _put_in_place(links, files)
        return {
            "file_name": pointer.name,
            "content": pointer.read_text(),
            "md5": out.hash_info.value,
            "size_bytes": out.meta.size,
            "paths": sorted(f"{links.name}/{path.name}" for path in files.iterdir()),
        }


def push(repository: Repository, place: str) -> None:
    """`dvc push` a version. Raises what DVC raises, also when only some files arrived."""
    with _alone_in(repository):
        _make(repository)
    with closing(Repo(repository.folder)) as repo:
        (pointer,) = (Path(repo.root_dir) / place).glob("*.dvc")
        repo.push(targets=[str(pointer)], remote=repository.remote_name)
    if not repository.whole:
        # The files are elsewhere, and so is the remote: a cache here would only grow.
        shutil.rmtree(repository.cache, ignore_errors=True)


def forget(repository: Repository, place: str) -> int:
    """Remove a version, then what no pointer refers to, here and in the remote; the bytes freed in the cache."""
    with _alone_in(repository):
        folder = Path(repository.folder) / place
        if not folder.exists():
            return 0
        shutil.rmtree(folder)
        before = _bytes(Path(repository.cache))
        with _opened(repository) as repo:
            elsewhere = repository.whole and repository.remote_url != repository.cache
            repo.gc(workspace=True, force=True, cloud=elsewhere, remote=repository.remote_name if elsewhere else None)
        return before - _bytes(Path(repository.cache))


def forget_project(repository: Repository) -> int:
    """Remove everything of a project; the bytes freed in the cache."""
    root, cache = Path(repository.folder), Path(repository.cache)
    with _alone_in(repository):
        freed = _bytes(cache)
        if root.exists() and repository.remote_url != repository.cache:
            for pointer in root.glob("*/*/*.dvc"):
                pointer.unlink()
            with _opened(repository) as repo:
                repo.gc(workspace=True, force=True, cloud=True, remote=repository.remote_name)
        for folder in (root, cache):
            shutil.rmtree(folder, ignore_errors=True)
    return freed


@contextmanager
def _alone_in(repository: Repository) -> Iterator[None]:
    folder = Path(repository.folder)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with exclusive(folder.with_name(f"{folder.name}.lock"), wait=True):
        yield


@contextmanager
def _opened(repository: Repository) -> Iterator[Any]:
    _make(repository)
    with closing(Repo(repository.folder)) as repo:
        yield repo


def _make(repository: Repository) -> None:
    root = Path(repository.folder)
    if not _is_made(root, repository):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        Repo.init(str(root), no_scm=True, force=True).close()
        _configure(root, repository)
    with closing(Repo(str(root))) as repo:
        places = repo.config["remote"][repository.remote_name]["url"], repo.config["cache"]["dir"]
    if places != (repository.remote_url, repository.cache):
        # The remote was set anew, or the folders were moved: the pointers name neither place.
        _configure(root, repository)


def _is_made(root: Path, repository: Repository) -> bool:
    """Whether it was made to the end: a process that was killed may have left a configuration that is empty."""
    config = root / ".dvc" / "config"
    return config.exists() and f'remote "{repository.remote_name}"' in config.read_text(encoding="utf-8")


def _configure(root: Path, repository: Repository) -> None:
    repo = Repo(str(root))
    with repo.config.edit("repo") as config:
        config["core"] |= {"analytics": False, "check_update": False, "autostage": False}
        config["cache"] |= {"type": LINKS, "dir": repository.cache}
        config["remote"] = {repository.remote_name: {"url": repository.remote_url}}
    repo.close()


def _link_all(files: Path, links: Path) -> None:
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(mode=0o700, parents=True)
    for path in files.iterdir():
        os.link(path, links / path.name)


def _put_in_place(links: Path, files: Path) -> None:
    """What DVC linked to its cache replaces the server's own copy of the same bytes."""
    if not links.exists():
        return
    for path in links.iterdir():
        path.replace(files / path.name)
    links.rmdir()


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
