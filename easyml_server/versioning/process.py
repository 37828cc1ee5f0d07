"""The versioning process, from the server's side: DVC blocks, and is safe in one thread of one process only."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from easyml_server.domain.versioning import AddedVersion, VersionKind, remote_url
from easyml_server.ports.versioner import Remote
from easyml_server.processes.asked import AskedProcess
from easyml_server.versioning.messages import (
    REQUEST,
    AddRequest,
    ForgetProjectRequest,
    ForgetRequest,
    PushRequest,
    Repository,
)

ENTRY = "easyml_server.versioning.worker"
ANSWER_SECONDS = 3600.0
"""A large table over a slow line; others wait meanwhile, and no call does."""
CREDENTIALS = ("AWS_", "AZURE_", "GOOGLE_", "OSS_", "SSH_")
"""Beginnings of the variables in which the libraries of object stores look for credentials."""


class DvcVersioner:
    """Fulfils `ports.versioner.Versioner`; the cache of a project is its remote too, unless there is another."""

    def __init__(
        self, process: AskedProcess, repositories: Path, caches: Path, shared_remote: str | None, *, whole: bool
    ) -> None:
        self._process = process
        self._repositories = repositories
        self._caches = caches
        self._place = shared_remote.rstrip("/") if shared_remote else str(caches)
        self._whole = whole

    @property
    def place(self) -> str:
        """Where the remotes of all projects are."""
        return self._place

    def remote(self, project_id: UUID) -> Remote:
        """Named so that a person can have several projects in one folder."""
        return Remote(f"easyml-{str(project_id)[:8]}", remote_url(self._place, project_id))

    async def add(
        self, project_id: UUID, kind: VersionKind, version_id: UUID, number: int, folder: Path
    ) -> AddedVersion:
        """Add a version's folder."""
        repository, place = self._repository(project_id), _place(kind, version_id)
        answer = await self._process.ask(
            lambda request: REQUEST.dump_json(AddRequest(request, repository, place, number, str(folder)))
        )
        return AddedVersion(**{**answer, "paths": tuple(answer["paths"])})

    async def push(self, project_id: UUID, kind: VersionKind, version_id: UUID) -> None:
        """Bring an added version to the remote."""
        repository, place = self._repository(project_id), _place(kind, version_id)
        await self._process.ask(lambda request: REQUEST.dump_json(PushRequest(request, repository, place)))

    async def forget(self, version_id: UUID) -> int:
        """Remove a version; the bytes freed. Its row is gone, so its folder says which project it was of."""
        freed = 0
        for folder in self._repositories.glob(f"*/*/{version_id}"):
            repository, place = self._repository(UUID(folder.parts[-3])), "/".join(folder.parts[-2:])
            freed += int((await self._process.ask(_forgetting(repository, place)))["bytes_freed"])
        return freed

    async def forget_project(self, project_id: UUID) -> int:
        """Remove all versions of a project; the bytes freed."""
        repository = self._repository(project_id)
        answer = await self._process.ask(lambda request: REQUEST.dump_json(ForgetProjectRequest(request, repository)))
        return int(answer["bytes_freed"])

    def _repository(self, project_id: UUID) -> Repository:
        remote = self.remote(project_id)
        folder, cache = self._repositories / str(project_id), self._caches / str(project_id)
        return Repository(str(folder), str(cache), remote.name, remote.url, self._whole)


@asynccontextmanager
async def start_versioner(
    repositories: Path, caches: Path, scratch: Path, shared_remote: str | None, *, whole: bool
) -> AsyncIterator[DvcVersioner]:
    """A versioner whose process starts when it is needed; `scratch` is where it puts files for a while.

    `whole` says that the pointers of all servers are in these repositories.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith(CREDENTIALS)},
        "TMPDIR": str(scratch),
        "DVC_NO_ANALYTICS": "true",
        # What other repositories of this user are set to is none of ours.
        "DVC_SITE_CACHE_DIR": str(repositories / "site-cache"),
        "DVC_GLOBAL_CONFIG_DIR": str(repositories / "no-config"),
        "DVC_SYSTEM_CONFIG_DIR": str(repositories / "no-config"),
    }
    process = AskedProcess("DVC", ENTRY, repositories, environment, ANSWER_SECONDS)
    try:
        yield DvcVersioner(process, repositories, caches, shared_remote, whole=whole)
    finally:
        await process.close()


def _forgetting(repository: Repository, place: str) -> Callable[[int], bytes]:
    return lambda request: REQUEST.dump_json(ForgetRequest(request, repository, place))


def _place(kind: VersionKind, version_id: UUID) -> str:
    return f"{kind.value}/{version_id}"
