"""Splits that cannot be made say the way out; the others put every row on one side."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyml_server.domain.datasets import StorageType
from easyml_server.domain.experiments import FailureReason, Split, SplitKind
from easyml_server.ml.prepare import Cells
from easyml_server.ml.refusal import Refused
from easyml_server.ml.splits import SplitRows, Splitter, check_row_count, split_key, split_sha256


def a_splitter(kind: SplitKind, rows: int = 40, *, codes: Any = None, key: Any = None, **split: Any) -> Splitter:
    key = None if key is None else np.array(key, dtype=object if isinstance(key[0], str) else None)
    codes = None if codes is None else np.array(codes)
    return Splitter(Split(kind, column="" if key is None else "c", **split), rows, codes, key)


def refusal_of(splitter: Splitter, folds: int = 0) -> Refused:
    with pytest.raises(Refused) as caught:
        _split(splitter, folds)
    return caught.value


def _split(splitter: Splitter, folds: int) -> None:
    made = splitter.rows()
    if folds:
        list(splitter.folds(made.train, folds))


@pytest.mark.parametrize("rows", [0, 3, 9])
def test_too_few_rows(rows: int) -> None:
    with pytest.raises(Refused, match=f"There are {rows} rows") as caught:
        check_row_count(rows)
    assert caught.value.reason is FailureReason.TOO_FEW_ROWS


@pytest.mark.parametrize(
    ("splitter", "folds", "says"),
    [
        (a_splitter(SplitKind.STRATIFIED), 0, "split by chance"),
        (a_splitter(SplitKind.STRATIFIED, codes=[0] * 39 + [1]), 0, "split by chance"),
        (a_splitter(SplitKind.STRATIFIED, codes=list(range(20)) * 2), 0, "add rows"),
        (a_splitter(SplitKind.RANDOM, codes=[0] * 20 + list(range(1, 21))), 0, "remove rare classes"),
        (a_splitter(SplitKind.GROUP, key=["a"] * 40), 0, "choose another column"),
        (a_splitter(SplitKind.GROUP), 0, "name one"),
        (a_splitter(SplitKind.GROUP, codes=[0] * 20 + [1] * 20, key=["a"] * 20 + ["b"] * 20), 0, "split by class"),
        (a_splitter(SplitKind.TIME, key=[5] * 40), 0, "choose another split"),
        (a_splitter(SplitKind.TIME, codes=[0] * 36 + [1] * 4, key=range(40)), 0, "split by class"),
        (a_splitter(SplitKind.COLUMN, key=["a"] * 40, test_values=("b",)), 0, "another share or column"),
        (a_splitter(SplitKind.COLUMN, key=["a"] * 40, test_values=("a",)), 0, "another share or column"),
        (a_splitter(SplitKind.GROUP, key=["a", "b", "c", "d"] * 10), 5, "fewer folds"),
        (a_splitter(SplitKind.COLUMN, key=["a", "b"] * 20, test_values=("b",)), 2, "fewer folds"),
        (a_splitter(SplitKind.TIME, codes=[0] * 10 + [1, 0] * 15, key=range(40)), 5, "fewer folds"),
    ],
)
def test_an_impossible_split_says_the_way_out(splitter: Splitter, folds: int, says: str) -> None:
    refused = refusal_of(splitter, folds)
    assert refused.reason is FailureReason.IMPOSSIBLE_SPLIT
    assert says in refused.message


def test_too_many_folds_for_the_rows() -> None:
    assert refusal_of(a_splitter(SplitKind.RANDOM, 12), folds=10).reason is FailureReason.TOO_FEW_ROWS


@pytest.mark.parametrize("storage_type", [StorageType.STRING, StorageType.BOOL])
def test_a_split_by_time_needs_times(storage_type: StorageType) -> None:
    cells = Cells(np.array(["1/2/2020"] * 3, dtype=object), np.zeros(3, dtype=bool))
    with pytest.raises(Refused, match="date type"):
        split_key(cells, storage_type, Split(SplitKind.TIME, column="c"))


def test_a_row_without_a_time_cannot_be_placed() -> None:
    cells = Cells(np.array([1, 2, 3]), np.array([False, True, False]))
    with pytest.raises(Refused, match="1 rows without a time"):
        split_key(cells, StorageType.INT64, Split(SplitKind.TIME, column="c"))


def test_rows_without_a_group_stay_together() -> None:
    cells = Cells(np.array([1, 7, 9, 1]), np.array([False, True, True, False]))
    assert split_key(cells, StorageType.INT64, Split(SplitKind.GROUP, column="c")).tolist() == ["1", "", "", "1"]


def test_the_latest_rows_are_tested_whatever_their_order() -> None:
    times = np.random.default_rng(0).permutation(40)
    rows = a_splitter(SplitKind.TIME, key=times).rows()
    assert times[rows.train].max() < times[rows.test].min()
    assert len(rows.test) == 8


@pytest.mark.parametrize(("late", "tested"), [(6, 6), (12, 12), (30, 30)])
def test_rows_of_one_time_stay_on_one_side(late: int, tested: int) -> None:
    rows = a_splitter(SplitKind.TIME, key=[1] * (40 - late) + [2] * late).rows()
    assert len(rows.test) == tested


def test_folds_by_time_never_learn_from_the_future() -> None:
    times = np.random.default_rng(0).permutation(60)
    splitter = a_splitter(SplitKind.TIME, 60, key=times)
    made = splitter.rows()
    for fold in splitter.folds(made.train, 4):
        assert times[fold.train].max() < times[fold.test].min()


@pytest.mark.parametrize("kind", [SplitKind.GROUP, SplitKind.COLUMN])
def test_a_group_is_never_on_both_sides(kind: SplitKind) -> None:
    groups = np.array(list("abcdefgh") * 10, dtype=object)
    splitter = a_splitter(kind, 80, key=groups, test_values=("a", "b"))
    made = splitter.rows()
    for rows in (made, *splitter.folds(made.train, 3)):
        assert not set(groups[rows.train]) & set(groups[rows.test])
    if kind is SplitKind.COLUMN:
        assert set(groups[made.test]) == {"a", "b"}


def test_a_stratified_split_keeps_the_shares_of_classes() -> None:
    codes = np.array([0] * 80 + [1] * 20)
    rows = a_splitter(SplitKind.STRATIFIED, 100, codes=codes, test_size=0.3).rows()
    assert np.bincount(codes[rows.test]).tolist() == [24, 6]


@given(
    kind=st.sampled_from([SplitKind.RANDOM, SplitKind.STRATIFIED, SplitKind.GROUP, SplitKind.TIME]),
    rows=st.integers(30, 80),
    test_size=st.floats(0.1, 0.5),
    seed=st.integers(0, 2**32 - 1),
    folds=st.integers(2, 4),
)
def test_every_row_is_on_one_side_and_the_same_seed_gives_the_same_rows(
    kind: SplitKind, rows: int, test_size: float, seed: int, folds: int
) -> None:
    key = None if kind in (SplitKind.RANDOM, SplitKind.STRATIFIED) else np.arange(rows) // 2
    codes = np.arange(rows) % 2 if kind is SplitKind.STRATIFIED else None
    splitter = Splitter(Split(kind, test_size, seed, "c"), rows, codes, key)
    made, repeated = splitter.rows(), splitter.rows()
    assert sorted([*made.train, *made.test]) == list(range(rows))
    assert made.test.tolist() == repeated.test.tolist()
    seen: list[SplitRows] = list(splitter.folds(made.train, folds))
    assert len(seen) == folds
    for fold in seen:
        assert not set(fold.train) & set(fold.test)
        assert set(fold.train) | set(fold.test) <= set(made.train)
    if kind is not SplitKind.TIME:
        assert sorted(row for fold in seen for row in fold.test) == made.train.tolist()


def test_the_checksum_is_over_the_sorted_row_numbers() -> None:
    expected = hashlib.sha256(struct.pack("<3q", 1, 5, 300)).hexdigest()
    assert split_sha256(np.array([300, 1, 5])) == expected
