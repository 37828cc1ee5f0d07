"""Wakes those who watch a deployment when anything of it was stored."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from easyml_server.domain.errors import Reason, Unavailable


class DeploymentWatch:
    """One signal per watcher; changes that come faster than a watcher reads are one."""

    def __init__(self) -> None:
        self._watchers: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self.draining = False

    @contextmanager
    def watching(self, deployment_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set at every change in this block."""
        changed = asyncio.Event()
        if self.draining:
            changed.set()
        self._watchers[deployment_id].add(changed)
        try:
            yield changed
        finally:
            self._watchers[deployment_id].discard(changed)
            if not self._watchers[deployment_id]:
                del self._watchers[deployment_id]

    def tell(self, deployment_id: UUID) -> None:
        """Something of it was stored."""
        for changed in self._watchers.get(deployment_id, ()):
            changed.set()

    def check(self) -> None:
        """Unavailable, with a way back, once this server stops."""
        if self.draining:
            raise Unavailable(
                "The server is shutting down; come back in a moment and continue where you were.",
                Reason.SERVER_DRAINING,
                retry_after=1.0,
            )

    def drain(self) -> None:
        """End all watches: this server stops."""
        self.draining = True
        for watchers in self._watchers.values():
            for changed in watchers:
                changed.set()
