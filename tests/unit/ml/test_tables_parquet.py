"""Parquet of others, previews and downloads."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easyml_server.domain.datasets import DatasetWarningKind, FileFormat, StorageType, TableLimits
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.ml import tables
from easyml_server.ml.table_exports import XLSX_COLUMNS, XLSX_ROWS, XLSX_TEXT
from tests.unit.ml.tables_helper import Read, Reader

MOMENT = datetime(2021, 1, 2, 3, 4, 5, 678901, UTC)


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path, FileFormat.PARQUET)


def a_parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1]]),
        pa.array([{"x": 1}]),
        pa.array([b"x"]),
        pa.array([1], pa.duration("s")),
        pa.array([b"0" * 16], pa.uuid()),
        pa.array([[(1, 2)]], pa.map_(pa.int8(), pa.int8())),
    ],
    ids=str,
)
def test_a_column_that_no_table_holds_is_refused_by_name(read: Reader, array: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(a_parquet(good=[1], odd=array))
    assert "'odd'" in caught.value.message
    assert caught.value.reason is Reason.UNREADABLE_FILE


def test_rows_are_counted_before_they_are_read(read: Reader) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(a_parquet(a=[1, 2, 3]), TableLimits(max_rows=2))
    assert caught.value.metadata["limit"] == "EASYML_MAX_ROWS"


@pytest.mark.parametrize(
    ("array", "type", "values"),
    [
        (pa.array([1, None], pa.uint8()), "int64", [1, None]),
        (pa.array([2**63], pa.uint64()), "string", [str(2**63)]),
        (pa.array([1.5, float("nan")], pa.float32()), "double", [1.5, None]),
        (pa.array([Decimal("1.50")]), "double", [1.5]),
        (pa.array([date(2021, 1, 2)]), "timestamp", [datetime(2021, 1, 2, tzinfo=UTC)]),
        (pa.array([date(2021, 1, 2)], pa.date64()), "timestamp", [datetime(2021, 1, 2, tzinfo=UTC)]),
        (pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("ns")), "timestamp", [MOMENT]),
        (pa.array([1, 2], pa.timestamp("ns")), "timestamp", [datetime(1970, 1, 1, tzinfo=UTC)] * 2),
        (pa.array([MOMENT], pa.timestamp("us", tz="Asia/Tokyo")), "timestamp", [MOMENT]),
        (pa.array([time(1, 2, 3)], pa.time32("s")), "string", ["01:02:03.000"]),
        (pa.array(["x", "x"]).dictionary_encode(), "string", ["x", "x"]),
        (pa.array(["x"], pa.large_string()), "string", ["x"]),
        (pa.nulls(2), "double", [None, None]),
        (pa.array([True, None]), "bool", [True, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_types_become_ours(read: Reader, array: Any, type: str, values: list[Any]) -> None:
    table = read(a_parquet(a=array))
    assert table.types == {"a": type}
    assert table.values("a") == values


def a_table(read: Reader, rows: int = 3) -> Read:
    return read(
        a_parquet(
            i=list(range(rows)),
            d=[1.5, float("inf"), *[None] * (rows - 2)],
            s=["=1+1", 'x,"y\nz', *["é"] * (rows - 2)],
            b=[True, None, *[False] * (rows - 2)],
            t=pa.array([MOMENT.replace(tzinfo=None), *[None] * (rows - 1)]),
        )
    )


def test_a_preview_has_typed_columns_in_the_order_asked_for(read: Reader) -> None:
    table = a_table(read)
    found = tables.preview(str(table.path), table.converted.schema, ["t", "d"], 2, 1 << 20)
    assert [(column.name, column.storage_type) for column in found.columns] == [
        ("t", StorageType.TIMESTAMP),
        ("d", StorageType.DOUBLE),
    ]
    micros = int(MOMENT.timestamp()) * 10**6 + MOMENT.microsecond
    assert found.columns[0].values == [micros, 0]
    assert found.columns[0].null_positions == (1,)
    assert found.columns[1].values == [1.5, float("inf")]
    assert not found.truncated


def test_a_preview_asks_for_columns_that_are_there(read: Reader) -> None:
    table = a_table(read)
    with pytest.raises(InvalidInput) as caught:
        tables.preview(str(table.path), table.converted.schema, ["nowhere"], 2, 1 << 20)
    assert caught.value.reason is Reason.UNKNOWN_COLUMN
    assert caught.value.metadata == {"column": "nowhere"}


@pytest.mark.parametrize(("max_bytes", "rows"), [(1 << 20, 100), (2_000, 39), (10, 0)])
def test_a_preview_is_cut_by_bytes(read: Reader, max_bytes: int, rows: int) -> None:
    table = a_table(read, 200)
    found = tables.preview(str(table.path), table.converted.schema, [], 100, max_bytes)
    assert {len(column.values) for column in found.columns} == {rows}
    assert found.truncated == (rows < 100)


def test_a_preview_of_no_rows_has_columns(read: Reader) -> None:
    table = a_table(read)
    found = tables.preview(str(table.path), table.converted.schema, [], 0, 1 << 20)
    assert [len(column.values) for column in found.columns] == [0] * 5
    assert not found.truncated


def test_names_with_dots_are_told_apart(read: Reader) -> None:
    table = read(a_parquet(**{"a": [1], "a.b": [2]}))
    found = tables.preview(str(table.path), table.converted.schema, ["a"], 5, 1 << 20)
    assert [list(column.values) for column in found.columns] == [[1]]
    assert table.column("a.b").distinct_count == 1


@pytest.mark.parametrize("format", FileFormat)
def test_a_download_can_be_uploaded_again(read: Reader, tmp_path: Path, format: FileFormat) -> None:
    table = a_table(read)
    kept, target = tmp_path / "kept.parquet", tmp_path / "download"
    table.path.rename(kept)
    tables.export(str(kept), format, str(target))
    again = Reader(tmp_path, format)(target.read_bytes())
    expected = table.types | ({"d": "string"} if format is FileFormat.XLSX else {})
    assert again.types == expected
    assert again.values("s") == ["=1+1", 'x,"y\nz', "é"]
    assert again.values("b") == [True, None, False]
    assert again.values("i") == [0, 1, 2]
    assert abs((again.values("t")[0] - MOMENT).total_seconds()) < 0.001


def test_json_has_no_infinite_numbers(read: Reader, tmp_path: Path) -> None:
    tables.export(str(a_table(read).path), FileFormat.JSON, str(tmp_path / "download"))
    records = json.loads((tmp_path / "download").read_text(), parse_constant=pytest.fail)
    assert [record["d"] for record in records] == [1.5, None, None]


def test_large_whole_numbers_reach_excel_whole(read: Reader, tmp_path: Path) -> None:
    table = read(a_parquet(a=[2**60, 1]))
    tables.export(str(table.path), FileFormat.XLSX, str(tmp_path / "download"))
    assert Reader(tmp_path, FileFormat.XLSX)((tmp_path / "download").read_bytes()).values("a") == [str(2**60), "1"]


@pytest.mark.parametrize(
    "columns",
    [
        {"a": ["x" * (XLSX_TEXT + 1)]},
        {"a": pa.array(range(XLSX_ROWS))},
        {f"c{i}": [1] for i in range(XLSX_COLUMNS + 1)},
    ],
    ids=["text", "rows", "columns"],
)
def test_what_excel_cannot_hold_is_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    source = tmp_path / "table.parquet"
    source.write_bytes(a_parquet(**columns))
    with pytest.raises(InvalidInput, match="Excel holds at most") as caught:
        tables.export(str(source), FileFormat.XLSX, str(tmp_path / "download"))
    assert caught.value.reason is Reason.TOO_LARGE


def test_unsigned_numbers_beyond_64_bits_are_warned_of(read: Reader) -> None:
    assert (DatasetWarningKind.MIXED_TYPES, "a") in read(a_parquet(a=pa.array([2**64 - 1], pa.uint64()))).warnings
