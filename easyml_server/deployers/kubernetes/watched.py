"""Objects of one kind as the API server last told of them: listed once, and then followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from easyml_server.deployers.kubernetes.api import GONE, Away, Kind, KubernetesApi, Object, Refused

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 10.0

log = structlog.get_logger(__name__)


class Watched:
    """`objects` by name; `told` hears of each that changed, with True where it is gone, `troubled` of other trouble.

    `trouble` is why nothing is heard just now.
    """

    def __init__(
        self,
        api: KubernetesApi,
        kind: Kind,
        query: Mapping[str, str],
        told: Callable[[Object, bool], None],
        troubled: Callable[[], None],
    ) -> None:
        self.kind = kind
        self.objects: dict[str, Object] = {}
        self.synced = asyncio.Event()
        self.trouble: Away | Refused | None = None
        self._api = api
        self._query = query
        self._told = told
        self._troubled = troubled
        self._version = ""
        self._pause = FIRST_PAUSE_SECONDS

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                self._heard()
                async for kind, found in self._api.watch(self.kind, self._query, self._version):
                    self._take(kind, found)
                await asyncio.sleep(FIRST_PAUSE_SECONDS)
            except (Away, Refused) as error:
                if isinstance(error, Refused):
                    # The version may have been forgotten (410) or never been one; a list gives a new one.
                    self._version = ""
                if not (isinstance(error, Refused) and error.status == GONE):
                    await self._wait(error)
            except Exception as error:  # whatever was said, the watch goes on
                log.exception("watch_broken", kind=self.kind.name)
                self._version = ""
                await self._wait(Away(f"The API server of the cluster is not understood ({type(error).__name__})."))

    def put(self, found: Object) -> None:
        """An object as the API server answered it; what was told of it before is older."""
        self.objects[found["metadata"]["name"]] = found

    async def _list(self) -> None:
        items, version = await self._api.list(self.kind, self._query)
        gone = self.objects
        self.objects = {item["metadata"]["name"]: item for item in items}
        self._version = version
        self.synced.set()
        for name, item in gone.items():
            if name not in self.objects:
                self._told(item, True)
        for item in items:
            self._told(item, False)

    def _take(self, kind: str, found: Object) -> None:
        self._version = found["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        name = found["metadata"]["name"]
        if kind == "DELETED":
            self.objects.pop(name, None)
        else:
            self.objects[name] = found
        self._told(found, kind == "DELETED")

    def _heard(self) -> None:
        if self.trouble is not None:
            log.info("cluster_answers", kind=self.kind.name)
            self.trouble = None
            self._troubled()
        self._pause = FIRST_PAUSE_SECONDS

    async def _wait(self, error: Away | Refused) -> None:
        if self.trouble is None:
            log.warning("cluster_silent", kind=self.kind.name, error=str(error))
        if str(self.trouble) != str(error):
            self.trouble = error
            self._troubled()
        await asyncio.sleep(self._pause)
        self._pause = min(LONGEST_PAUSE_SECONDS, 2 * self._pause)
