"""Wakes those who watch a deployment, here and at other servers, when anything of it was stored."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from easyml_server.domain.errors import Reason, Unavailable
from easyml_server.ports.signals import Signals, Topic


class DeploymentWatch:
    """One signal per watcher; changes that come faster than a watcher reads are one."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
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
        self.hear(deployment_id)
        self._signals.send(Topic.DEPLOYMENT, deployment_id)

    def hear(self, deployment_id: UUID) -> None:
        """Something of it was stored, of which the other servers know."""
        for changed in self._watchers.get(deployment_id, ()):
            changed.set()

    def look_again(self) -> None:
        """Something may have been stored of any."""
        for deployment_id in self._watchers:
            self.hear(deployment_id)

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
