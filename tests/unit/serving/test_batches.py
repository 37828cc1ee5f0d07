"""Requests answered together get what each would get alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.serving.batches import CONTENT_SECONDS, GATHER_SECONDS, MAX_TOGETHER, Batcher
from easyml_server.serving.layout import Table
from easyml_server.serving.models import LoadedModel, load_model
from easyml_server.serving.notes import Answered
from easyml_server.serving.predictions import write_response
from easyml_server.serving.tables import TableLimits
from tests.unit.serving.requests import VERSION, a_row, rows

SENT: Sequence[Sequence[dict[str, Any]]] = (
    [a_row()],
    [a_row(size=90.0, age=20), a_row(city="Oslo"), a_row(member=False)],
    [a_row(since="2021-01-01T00:00:00Z")],
)


class Recorded:
    """Remembers how many tables each run answered."""

    def __init__(self, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = model
        self.runs: list[int] = []
        self._answer = model.answer_together
        monkeypatch.setattr(model, "answer_together", self._together)

    def _together(self, tables: Sequence[Table]) -> list[Answered]:
        self.runs.append(len(tables))
        return self._answer(tables)


@pytest.fixture
def recorded(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(load_model(VERSION, trained, TableLimits()), monkeypatch)


def written(model: LoadedModel, answered: Answered) -> pb.PredictResponse:
    response = pb.PredictResponse()
    write_response(model.version_id, model.signature, answered, response)
    return response


def alone(model: LoadedModel, sent: Sequence[dict[str, Any]]) -> pb.PredictResponse:
    return written(model, model.answer(model.reader.read(rows(*sent))))


async def delivered() -> None:
    """Two turns of the loop, in which answers are handed to gRPC."""
    for _ in range(2):
        await asyncio.sleep(0)


def without_id(response: pb.PredictResponse) -> pb.PredictResponse:
    response.ClearField("prediction_id")
    return response


Tables = Batcher[Table, Answered]


def batcher_of(model: LoadedModel, clock: Callable[[], float]) -> Tables:
    return Batcher(model.answer_together, clock)


def crowded(model: LoadedModel) -> Tables:
    """For requests that were all there before the last answer."""
    return batcher_of(model, lambda: -1.0)


def unhurried(model: LoadedModel) -> Tables:
    """For requests of which each comes long after the last answer."""
    return batcher_of(model, itertools.count().__next__)


async def together(batcher: Tables, model: LoadedModel, sent: Sequence[Sequence[dict[str, Any]]]) -> list[Any]:
    answers = await asyncio.gather(*(batcher.answer(model.reader.read(rows(*each))) for each in sent))
    return [written(model, answered) for answered in answers]


@pytest.mark.parametrize("odd", [{}, {"size": None}, {"city": "Atlantis"}], ids=["plain", "gap", "unseen"])
async def test_a_batch_answers_each_as_if_it_were_alone(recorded: Recorded, odd: dict[str, Any]) -> None:
    sent = [*SENT, [a_row(), a_row(**odd)]]
    answers = await together(crowded(recorded.model), recorded.model, sent)
    assert recorded.runs == [2, 2]
    assert len({answer.prediction_id for answer in answers}) == len(sent)
    for answer, each in zip(answers, sent, strict=True):
        expected = without_id(alone(recorded.model, each))
        assert [note.row for note in answer.notes] == [note.row for note in expected.notes]
        assert bool(answer.notes) == bool(odd and each is sent[-1])
        assert answer.predictions == expected.predictions
        for ours, theirs in zip(answer.probabilities, expected.probabilities, strict=True):
            assert ours.label == theirs.label
            assert list(ours.values) == pytest.approx(list(theirs.values), abs=1e-6)


async def test_batches_grow_with_the_crowd_and_no_further_than_the_loop_can_bear(recorded: Recorded) -> None:
    await together(crowded(recorded.model), recorded.model, [SENT[0]] * (2 * MAX_TOGETHER + 3))
    assert recorded.runs == [2, 4, 8, 16, 32, 5]
    assert max(recorded.runs) == MAX_TOGETHER


async def test_who_is_alone_is_answered_at_once(recorded: Recorded) -> None:
    batcher, table = unhurried(recorded.model), recorded.model.reader.read(rows(a_row()))
    for _ in range(5):
        assert batcher.answer(table).done()
        await delivered()
    assert recorded.runs == [1] * 5


async def test_who_comes_while_answers_are_handed_over_had_been_waiting(recorded: Recorded) -> None:
    batcher, table = unhurried(recorded.model), recorded.model.reader.read(rows(a_row()))
    assert batcher.answer(table).done()
    answers = [batcher.answer(table), batcher.answer(table)]
    assert [answer.done() for answer in answers] == [True, True]
    assert recorded.runs == [1, 2]


async def test_who_waited_in_vain_is_answered_and_the_next_does_not_wait(recorded: Recorded) -> None:
    now = [-1.0]
    batcher, table = batcher_of(recorded.model, lambda: now[0]), recorded.model.reader.read(rows(a_row()))
    first = batcher.answer(table)
    assert not first.done()
    assert len((await first).answers.predictions) == 1
    await delivered()
    now[0] += 1 + GATHER_SECONDS
    assert batcher.answer(table).done()


async def test_who_waited_in_vain_is_everybody_and_most_of_them_are_answered_at_a_time(recorded: Recorded) -> None:
    now = [-1.0]
    batcher, table = batcher_of(recorded.model, lambda: now[0]), recorded.model.reader.read(rows(a_row()))
    # Batches of 2 and 4, and 6 of the 8 that might have come.
    await asyncio.gather(*(batcher.answer(table) for _ in range(12)))
    assert recorded.runs == [2, 4, 6]
    await asyncio.gather(*(batcher.answer(table) for _ in range(8)))
    assert recorded.runs == [2, 4, 6, 4, 4]
    # More are tried again after a while.
    now[0] += 2 * CONTENT_SECONDS
    await asyncio.gather(*(batcher.answer(table) for _ in range(12)))
    assert recorded.runs == [2, 4, 6, 4, 4, 4, 8]


async def test_callers_who_were_held_up_are_expected_again(recorded: Recorded) -> None:
    batcher, table = crowded(recorded.model), recorded.model.reader.read(rows(a_row()))
    # Batches of 2, 4, 8, and 2 of 16; then as many again as before.
    await asyncio.gather(*(batcher.answer(table) for _ in range(16)))
    await asyncio.gather(*(batcher.answer(table) for _ in range(14)))
    assert recorded.runs == [2, 4, 8, 2, 2, 4, 8]


async def test_who_left_meanwhile_costs_the_others_nothing(recorded: Recorded) -> None:
    batcher, table = crowded(recorded.model), recorded.model.reader.read(rows(a_row()))
    left = batcher.answer(table)
    left.cancel()
    stayed = batcher.answer(table)
    assert len((await stayed).answers.predictions) == 1
    assert recorded.runs == [1]


async def test_a_run_that_fails_is_told_to_each(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_tables: Sequence[Table]) -> list[Answered]:
        raise RuntimeError("no")

    monkeypatch.setattr(recorded.model, "answer_together", fail)
    batcher, table = crowded(recorded.model), recorded.model.reader.read(rows(a_row()))
    answers = await asyncio.gather(batcher.answer(table), batcher.answer(table), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RuntimeError, RuntimeError]
