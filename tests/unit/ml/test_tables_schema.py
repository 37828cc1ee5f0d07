"""Kinds, roles, counts and warnings."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easyml_server.domain.datasets import ColumnKind, ColumnRole, ColumnSchema, DatasetWarningKind, FileFormat
from tests.unit.ml.tables_helper import Read, Reader

CHANCE = random.Random(7)


def described(folder: Path, values: Any, name: str = "a") -> tuple[ColumnSchema, Read]:
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: values}), buffer)
    table = Reader(folder, FileFormat.PARQUET)(buffer.getvalue())
    return table.column(name), table


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False], ColumnKind.BOOLEAN),
        ([1, 2], ColumnKind.NUMERIC),
        ([1.5, 2.5], ColumnKind.NUMERIC),
        (pa.array([0, 1], pa.timestamp("us")), ColumnKind.DATETIME),
        (["red", "blue"] * 50, ColumnKind.CATEGORICAL),
        ([f"city {i % 40}" for i in range(100)], ColumnKind.CATEGORICAL),
        ([f"comment {i}" for i in range(100)], ColumnKind.TEXT),
        (["a long story " * 20, "another one " * 20] * 10, ColumnKind.TEXT),
    ],
)
def test_kinds_are_guessed(tmp_path: Path, values: Any, kind: ColumnKind) -> None:
    assert described(tmp_path, values)[0].kind is kind


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a", list(range(20))),
        ("a", [5 * i for i in range(200_000)]),
        ("customer_id", CHANCE.sample(range(10**9), 1000)),
        ("a", [str(UUID(int=CHANCE.getrandbits(128))) for _ in range(100_000)]),
        ("a", [f"user {i}" for i in range(98)] + ["user 1", "user 2"]),
    ],
    ids=["counting", "counting in steps", "named so", "uuids", "nearly all"],
)
def test_identifiers_are_found(tmp_path: Path, name: str, values: Any) -> None:
    column, table = described(tmp_path, values, name)
    assert column.role is ColumnRole.IDENTIFIER
    assert (DatasetWarningKind.IDENTIFIER_LIKE, name) in table.warnings


@pytest.mark.parametrize(
    "values",
    [
        list(range(19)),
        [i / 3 for i in range(100)],
        CHANCE.sample(range(10**9), 1000),
        [i % 50_000 for i in range(100_000)],
        [f"user {i % 70_000}" for i in range(140_000)],
        ["a very long text that differs " * 5 + str(i) for i in range(100)],
        [*range(50), *[None] * 50],
    ],
    ids=["few", "doubles", "amounts", "again after a while", "texts again after a while", "texts", "nulls"],
)
def test_what_only_looks_like_identifiers_stays_a_feature(tmp_path: Path, values: Any) -> None:
    column, table = described(tmp_path, values)
    assert column.role is ColumnRole.FEATURE
    assert (DatasetWarningKind.IDENTIFIER_LIKE, "a") not in table.warnings


@pytest.mark.parametrize(("distinct", "counted"), [(1, 1), (10_000, 10_000), (10_001, 10_001), (30_000, 10_001)])
@pytest.mark.parametrize("form", [str, float, lambda i: "long " * 60 + str(i)], ids=["text", "number", "long text"])
def test_distinct_values_are_counted_to_a_limit(tmp_path: Path, form: Any, distinct: int, counted: int) -> None:
    values = [form(i % distinct) for i in range(70_000)]
    assert described(tmp_path, values)[0].distinct_count == counted


def test_short_and_long_texts_are_counted_together(tmp_path: Path) -> None:
    short, long = [f"s{i % 10}" for i in range(70_000)], [f"{'l' * 300}{i % 5}" for i in range(70_000)]
    assert described(tmp_path, short + long + short)[0].distinct_count == 15


def test_nulls_are_counted_and_not_values(tmp_path: Path) -> None:
    column, _ = described(tmp_path, [1, None, 1, None, None])
    assert (column.null_count, column.distinct_count) == (3, 1)


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([7, 7], {DatasetWarningKind.CONSTANT}),
        ([7, None], set()),
        ([None, None], {DatasetWarningKind.ALL_NULL}),
        ([1.0, float("-inf")], {DatasetWarningKind.INFINITE_VALUES}),
        (["1", "2", "x"], {DatasetWarningKind.MIXED_TYPES}),
        (["=1", "x"], {DatasetWarningKind.FORMULA}),
        (["+cmd()", "-x"], {DatasetWarningKind.FORMULA}),
        (["-", "-5 to 5"], set()),
    ],
)
def test_oddities_are_warned_of(tmp_path: Path, values: Any, kinds: set[DatasetWarningKind]) -> None:
    _, table = described(tmp_path, pa.array(values, pa.float64()) if values == [None, None] else values)
    assert {kind for kind, _ in table.warnings} == kinds


def test_warnings_hold_no_values(tmp_path: Path) -> None:
    _, table = described(tmp_path, ["secret"] * 30)
    assert all("secret" not in warning.message for warning in table.converted.warnings)
