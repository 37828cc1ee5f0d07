"""Models that come into memory when they are asked, within a budget, and are exchanged while they are asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import numpy as np
import pytest

from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.errors import LimitReached, NotFound, OutOfTime, Unavailable
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.serving.known import Known
from easyml_server.serving.layout import PreparedBlock
from easyml_server.serving.loaded import LoadedModels
from easyml_server.serving.metrics import ServingMetrics
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.predictors import Answers, CannotLoad, Run
from easyml_server.serving.repository import RETRY_LOAD_SECONDS, Choose, ModelRepository, NotLoaded
from easyml_server.serving.sources import Source
from easyml_server.serving.tables import TableLimits

SIGNATURE = Signature((SignatureColumn("x", StorageType.DOUBLE, ColumnKind.NUMERIC, True),), "y", StorageType.DOUBLE)
PATIENCE = 60


class Zero:
    """Predicts nothing but zeros."""

    def predict(self, _blocks: Sequence[PreparedBlock], rows: int, _run: Run | None) -> Answers:
        return Answers(np.zeros(rows), None)


class Files:
    """Files of models: each takes 10 unless said otherwise; those that are damaged cannot be loaded."""

    def __init__(self, sizes: Mapping[str, int], damaged: set[str]) -> None:
        self.damaged = damaged
        self.unreadable: set[str] = set()
        self.opened: list[str] = []
        self.may_load = threading.Event()
        self.may_load.set()
        self._sizes = sizes

    @contextmanager
    def open(self, version: str, _source: Source) -> Iterator[File]:
        self.opened.append(version)
        if version in self.unreadable:
            raise OSError("no space left")
        yield File(self, version, self._sizes.get(version, 10))


class File:
    def __init__(self, files: Files, version: str, size: int) -> None:
        self.bytes = size
        self._files = files
        self._version = version

    def load(self) -> LoadedModel:
        assert self._files.may_load.wait(PATIENCE)
        if self._version in self._files.damaged:
            raise CannotLoad("its graph is damaged")
        return LoadedModel(self._version, SIGNATURE, Zero(), TableLimits())


class Served:
    """A repository, its files and its clock."""

    def __init__(self, known: Known, budget: int, files: Files) -> None:
        self.files = files
        self.now = 0.0
        self.models = ModelRepository(known, LoadedModels(budget, ServingMetrics()), files.open, clock=lambda: self.now)

    def in_memory(self, versions: str = "abcdef") -> str:
        return "".join(version for version in versions if self.models.is_loaded(version))

    async def ask(self, name: str, seconds: float = PATIENCE) -> str:
        """As a call does; the version that answers."""
        try:
            return self.models.find(named(name)).version_id
        except NotLoaded as missing:
            async with self.models.loaded(missing.version, seconds):
                return self.models.find(named(name)).version_id


def named(name: str) -> Choose:
    return lambda known: known.version(name)


def known(versions: Iterable[str], **names: str) -> Known:
    return Known({version: Source(version) for version in versions}, names)


@asynccontextmanager
async def serving(
    versions: Iterable[str], budget: int = 0, *, sizes: Mapping[str, int] | None = None, damaged: str = "", **names: str
) -> AsyncIterator[Served]:
    served = Served(known(versions, **names), budget, Files(sizes or {}, set()))
    try:
        await served.models.start()
        served.files.damaged |= set(damaged)
        yield served
    finally:
        served.files.may_load.set()
        await served.models.close()


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that a thread brings about."""
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 (threads set no event of the loop)
            await asyncio.sleep(0.001)


async def test_without_a_budget_all_are_loaded_and_stay() -> None:
    async with serving("abc") as served:
        assert served.in_memory() == "abc"
        assert [await served.ask(version) for version in "abc"] == ["a", "b", "c"]
        with pytest.raises(NotFound):
            await served.ask("d")


async def test_within_a_budget_all_answer_and_the_one_not_asked_for_longest_makes_room() -> None:
    async with serving("abc", 25) as served:
        assert served.in_memory() == "ab"
        assert [await served.ask(version) for version in "aca"] == ["a", "c", "a"]
        assert served.in_memory() == "ac"
        assert [await served.ask(version) for version in "bc"] == ["b", "c"]
        assert served.in_memory() == "bc"


async def test_one_that_never_fits_is_refused_by_name_with_the_way_out() -> None:
    with pytest.raises(
        CannotLoad, match=r"Model version b cannot be served: .* 30 bytes.*--memory-budget is 25; raise"
    ):
        async with serving("ab", 25, sizes={"b": 30}):
            pass
    async with serving("ab", 25, sizes={"c": 30}) as served:
        with pytest.raises(CannotLoad, match="Model version c cannot be served"):
            await served.models.exchange(known("abc"))
        assert served.in_memory() == "ab"


async def test_one_that_grew_after_the_start_is_told_to_who_asks_it() -> None:
    sizes = {"c": 10}
    async with serving("abc", 25, sizes=sizes) as served:
        sizes["c"] = 30
        with pytest.raises(LimitReached, match=r"Model version c .*--memory-budget") as caught:
            await served.ask("c")
    assert caught.value.retry_after is None
    assert caught.value.metadata == {"limit": "--memory-budget", "maximum": "25"}


async def test_a_model_with_a_call_in_flight_does_not_make_room() -> None:
    async with serving("abc", 25) as served:
        with served.models.held() as first, served.models.held() as second:
            assert first.find(named("a")).version_id == "a"
            assert second.find(named("b")).version_id == "b"
            waiting = asyncio.create_task(served.ask("c"))
            await until(lambda: "c" in served.files.opened[3:])
            assert served.in_memory() == "ab"
        assert await waiting == "c"
        assert served.in_memory() == "bc"


async def test_many_who_ask_for_the_same_wait_for_one_load() -> None:
    async with serving("abc", 25) as served:
        answers = await asyncio.gather(*(served.ask("c") for _ in range(20)))
    assert set(answers) == {"c"}
    assert served.files.opened == ["a", "b", "c", "c"]


async def test_more_models_than_fit_all_answer_when_all_are_asked_at_once() -> None:
    async with serving("abcdef", 25) as served:
        versions = "abcdef" * 10
        assert await asyncio.gather(*(served.ask(version) for version in versions)) == list(versions)
        assert len(served.in_memory()) == 2


async def test_a_load_goes_on_when_the_time_of_its_caller_is_over() -> None:
    async with serving("abc", 25) as served:
        served.files.may_load.clear()
        with pytest.raises(OutOfTime, match="Model version c was not loaded in time"):
            await served.ask("c", seconds=0.01)
        served.files.may_load.set()
        await until(lambda: served.models.is_loaded("c"))


async def test_one_that_cannot_be_loaded_is_left_alone_for_a_while() -> None:
    async with serving("abc", 25, damaged="c") as served:
        with pytest.raises(Unavailable, match="Model version c cannot be loaded") as caught:
            await served.ask("c")
        assert "damaged" not in caught.value.message
        tries = len(served.files.opened)
        with pytest.raises(Unavailable):
            await served.ask("c")
        assert (served.models.has_failed("c"), len(served.files.opened)) == (True, tries)
        served.now += RETRY_LOAD_SECONDS
        served.files.damaged.clear()
        assert not served.models.has_failed("c")
        assert await served.ask("c") == "c"


async def test_a_name_means_the_new_version_once_it_is_loaded_and_the_old_one_goes() -> None:
    async with serving("a", name="a") as served:
        served.files.may_load.clear()
        exchange = asyncio.create_task(served.models.exchange(known("b", name="b")))
        await until(lambda: "b" in served.files.opened)
        assert await served.ask("name") == "a"
        served.files.may_load.set()
        await exchange
        assert await served.ask("name") == "b"
        assert served.in_memory() == "b"
        with pytest.raises(NotFound):
            await served.ask("a")


async def test_a_call_in_flight_ends_on_the_old_version() -> None:
    async with serving("a", name="a") as served:
        with served.models.held() as models:
            model = models.find(named("name"))
            await served.models.exchange(known("b", name="b"))
            assert served.in_memory() == "ab"
            assert model.version_id == "a"
        await until(lambda: served.in_memory() == "b")


async def test_a_stream_is_answered_by_the_version_it_began_with() -> None:
    async with serving("a", name="a") as served:
        with served.models.stream() as asks:
            asks("a", served.models.known.sources["a"])
            await served.models.exchange(known("b", name="b"))
            assert served.models.find(lambda _known: "a").version_id == "a"
            with pytest.raises(NotFound):
                await served.ask("a")
        assert served.in_memory() == "b"


async def test_a_broken_new_version_changes_nothing() -> None:
    async with serving("ab", name="a", damaged="d") as served:
        with pytest.raises(CannotLoad, match="Model version d cannot be served: its graph is damaged"):
            await served.models.exchange(known("bcd", name="c"))
        assert await served.ask("name") == "a"
        await until(lambda: served.in_memory() == "ab")
        served.files.damaged.clear()
        await served.models.exchange(known("bcd", name="c"))
        assert (await served.ask("name"), served.in_memory()) == ("c", "bcd")


async def test_an_exchange_within_a_budget_for_one_model_answers_before_and_after() -> None:
    async with serving("a", 15, name="a") as served:
        await served.models.exchange(known("ab", name="b"))
        assert (await served.ask("name"), served.in_memory()) == ("b", "b")
        assert (await served.ask("a"), served.in_memory()) == ("a", "a")


async def test_a_version_does_not_come_from_another_place_all_at_once() -> None:
    async with serving("ab") as served:
        moved = Known({"a": Source("a"), "b": Source("elsewhere")}, {})
        with pytest.raises(CannotLoad, match="Model version b is served from another place"):
            await served.models.exchange(moved)
        assert await served.ask("b") == "b"
        await served.models.exchange(known("ab", name="b"))
        assert await served.ask("name") == "b"
