"""The models of this process: loaded at its start or by the first call, within a budget, and exchanged while it runs.

See docs/decisions/0031-several-models-in-one-process.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from easyml_server.domain.errors import EasyMLError, LimitReached, NotFound, OutOfTime, Unavailable
from easyml_server.serving import faults
from easyml_server.serving.known import Known
from easyml_server.serving.loaded import LoadedModels
from easyml_server.serving.loading import Stored
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.predictors import CannotLoad
from easyml_server.serving.sources import Source

RETRY_LOAD_SECONDS: Final = 10.0
"""A model that could not be loaded is left alone for so long."""

Choose = Callable[[Known], str]
"""From what is known to the version that is asked."""
Open = Callable[[str, Source], AbstractContextManager[Stored]]

log = structlog.get_logger(__name__)


class NotLoaded(Exception):
    """A model that is known and not in memory; whoever asks for it waits for `ModelRepository.loaded`."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


class TooLarge(CannotLoad):
    """A model that no room can be made for."""


class Models(Protocol):
    """Where a request finds whom it asks."""

    @property
    def known(self) -> Known:
        """What is served."""
        ...

    def find(self, choose: Choose) -> LoadedModel:
        """The model that is chosen. Raises NotFound and NotLoaded, and what `choose` raises."""
        ...


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a version could not be loaded, and when it may be tried again."""

    error: CannotLoad
    until: float


class ModelRepository:
    """What is known, of which `loaded` are in memory; `open_` opens the files of a version in a thread."""

    def __init__(
        self, known: Known, loaded: LoadedModels, open_: Open, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._known = known
        self._coming = known
        self._loaded = loaded
        self._open = open_
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._streams: Counter[str] = Counter()
        self._kept: dict[str, Source] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, _Failed] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def known(self) -> Known:
        """See Models."""
        return self._known

    @property
    def quick(self) -> bool:
        """Whether all that are in memory answer quickly."""
        return self._loaded.quick

    def find(self, choose: Choose) -> LoadedModel:
        """See Models. For the event loop; what it gives is to be used before anything else can happen."""
        version = choose(self._known)
        model = self._loaded.find(version)
        if model is None:
            if version in self._known.sources or version in self._kept:
                raise NotLoaded(version)
            raise NotFound.of("model version", faults.shortened(version))
        return model

    @contextmanager
    def held(self) -> Iterator[Models]:
        """For a thread: what is found in this block stays in memory until its end."""
        held = _Held(self, self._loaded)
        try:
            yield held
        finally:
            self._loaded.end(held.versions)
            if self._loaded.budget or not all(map(self._is_wanted, held.versions)):
                self._loop.call_soon_threadsafe(self._settle)

    @contextmanager
    def stream(self) -> Iterator[Callable[[str, Source], None]]:
        """A stream, which says what it asks; that version is served to its end, whatever is exchanged meanwhile."""
        asked: list[str] = []

        def asks(version: str, source: Source) -> None:
            with self._loaded.lock:
                self._streams[version] += 1
                self._kept.setdefault(version, source)
            asked.append(version)

        try:
            yield asks
        finally:
            with self._loaded.lock:
                for version in asked:
                    self._streams[version] -= 1
                    if not self._streams[version]:
                        del self._streams[version], self._kept[version]
            self._settle()

    @asynccontextmanager
    async def loaded(self, version: str, seconds: float) -> AsyncIterator[None]:
        """A block in which a version is in memory. Raises EasyMLError where that cannot be, in this time."""
        with self._loaded.lock:
            self._loaded.begin(version)
        try:
            await self._wait_for(version, seconds)
            yield
        finally:
            self._loaded.end([version])
            self._settle()

    async def start(self) -> None:
        """Load all that is known, with a budget as many as fit. Raises CannotLoad."""
        for version, source in self._known.sources.items():
            await self._load(version, source, only_if_room=True)

    async def exchange(self, known: Known) -> None:
        """Serve these models instead, once those that are new are warm; all or, with CannotLoad, none of them."""
        self._check_places(known)
        self._coming = known
        try:
            for version in self._to_prove(known):
                self._failed.pop(version, None)
                await self._ensure(version)
            for version in known.sources.keys() - self._known.sources.keys():
                await self._load(version, known.sources[version], only_if_room=True)
            with self._loaded.lock:
                self._known = known
        finally:
            self._coming = self._known
            self._settle()

    def is_loaded(self, version: str) -> bool:
        """Whether its next call is answered at once."""
        return version in self._loaded

    def has_failed(self, version: str) -> bool:
        """Whether its next call would be refused, since it could not be loaded a moment ago."""
        failed = self._failed.get(version)
        return failed is not None and failed.until > self._clock()

    async def close(self) -> None:
        """Give up what is being loaded."""
        loading = list(self._loading.values())
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        await self._loaded.close()

    def _to_prove(self, known: Known) -> list[str]:
        """What must be loaded before it is served: with a budget those a name comes to mean, else all that are new."""
        new = {version for name, version in known.names.items() if self._known.names.get(name) != version}
        if not self._loaded.budget:
            new |= known.sources.keys() - self._known.sources.keys()
        return sorted(new)

    def _check_places(self, known: Known) -> None:
        """What is in memory came from where it was said to be, and answers under its id until it is let go."""
        before = self._kept | self._known.sources
        for version, source in known.sources.items():
            if before.get(version, source) != source:
                raise CannotLoad(
                    f"Model version {version} is served from another place, and a version never changes; give what is"
                    " there an id of its own, or start the model server anew"
                )

    def _is_wanted(self, version: str) -> bool:
        return version in self._known.sources or version in self._coming.sources or version in self._kept

    def _settle(self) -> None:
        self._loaded.settle(self._is_wanted)

    def _source(self, version: str) -> Source:
        for sources in (self._known.sources, self._coming.sources, self._kept):
            if version in sources:
                return sources[version]
        raise NotFound.of("model version", faults.shortened(version))

    async def _wait_for(self, version: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ensure(version)
        except TimeoutError as error:
            raise OutOfTime(
                f"Model version {version} was not loaded in time; it goes on, so ask again, with a longer deadline."
            ) from error
        except CannotLoad as error:
            raise self._told(version, error) from error

    async def _ensure(self, version: str) -> None:
        """Load a version, once for all who want it; it goes on without them."""
        while version not in self._loaded:
            if self.has_failed(version):
                raise self._failed[version].error
            await asyncio.shield(self._loading.get(version) or self._begin(version))

    def _begin(self, version: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._load(version, self._source(version)), name=f"load {version}")
        self._loading[version] = task

        def ended(task: asyncio.Task[None]) -> None:
            del self._loading[version]
            # Looked at, since all who waited may have left.
            if not task.cancelled() and isinstance(error := task.exception(), CannotLoad):
                self._failed[version] = _Failed(error, self._clock() + RETRY_LOAD_SECONDS)
            # Nobody may want it any more.
            self._settle()

        task.add_done_callback(ended)
        return task

    async def _load(self, version: str, source: Source, *, only_if_room: bool = False) -> None:
        in_thread = self._loaded.in_thread
        async with self._one_at_a_time:
            if version in self._loaded:
                return
            files = ExitStack()
            try:
                stored = await in_thread(files.enter_context, self._open(version, source))
                size = await in_thread(lambda: stored.bytes)
                self._check_size(size)
                if only_if_room and not self._loaded.has_room(size):
                    return
                await self._loaded.make_room(size)
                self._loaded.add(await in_thread(stored.load), size)
            except CannotLoad as error:
                log.exception("model_refused", model_version_id=version)
                raise type(error)(f"Model version {version} cannot be served: {error}.") from error
            finally:
                await in_thread(files.close)

    def _check_size(self, size: int) -> None:
        budget = self._loaded.budget
        if budget and size > budget:
            raise TooLarge(
                f"it takes about {size} bytes in memory, and --memory-budget is {budget}; raise it, or serve the "
                "version in a process of its own"
            )

    def _told(self, version: str, error: CannotLoad) -> EasyMLError:
        """What a caller is told, without the paths and addresses that the log has."""
        if isinstance(error, TooLarge):
            return LimitReached(str(error), metadata={"limit": "--memory-budget", "maximum": str(self._loaded.budget)})
        left = max(0.0, self._failed[version].until - self._clock()) if version in self._failed else RETRY_LOAD_SECONDS
        return Unavailable(
            f"Model version {version} cannot be loaded; the log of the model server says why. It is tried again in "
            f"{left:.0f} s.",
            retry_after=left,
            metadata={"part": "model"},
        )


class _Held:
    """What one call in a thread needs."""

    def __init__(self, repository: ModelRepository, loaded: LoadedModels) -> None:
        self.versions: list[str] = []
        self._repository = repository
        self._loaded = loaded

    @property
    def known(self) -> Known:
        """See Models."""
        return self._repository.known

    def find(self, choose: Choose) -> LoadedModel:
        """See Models."""
        with self._loaded.lock:
            model = self._repository.find(choose)
            self._loaded.begin(model.version_id)
        self.versions.append(model.version_id)
        return model
