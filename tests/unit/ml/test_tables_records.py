"""JSON and Excel, whose values come one by one."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from easyml_server.domain.datasets import DatasetWarningKind, FileFormat, TableLimits
from easyml_server.domain.errors import InvalidInput, Reason
from tests.unit.ml.tables_helper import Reader


@pytest.fixture
def read_json(tmp_path: Path) -> Reader:
    return Reader(tmp_path, FileFormat.JSON)


@pytest.fixture
def read_xlsx(tmp_path: Path) -> Reader:
    return Reader(tmp_path, FileFormat.XLSX)


def a_workbook(rows: list[list[Any]], sheets: int = 1) -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"strings_to_formulas": False, "default_date_format": "yyyy-mm-dd"}) as workbook:
        for _ in range(sheets):
            sheet = workbook.add_worksheet()
            for index, row in enumerate(rows):
                sheet.write_row(index, 0, row)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"a": 1}, {"a": NaN}]', "Object 2 holds NaN"),
        ('{"a": 1}\n{"a": 1e999}', "Object 2, 'a',"),
        ('[{"a": 1, "a": 2}]', "twice"),
        ('[{"a": [1]}]', "holds a list"),
        ('[{"a": {}}]', "holds an object"),
        ("[1]", "Item 1 is no object"),
        ('"a"', "no table"),
        ('[{"a": 1} {"a": 2}]', "comma"),
        ('[{"a": 1}', "not closed"),
        ('[{"a": 1}] 2', "after the end"),
        ("[]", "no rows"),
        ('{"a": 1', "broken"),
    ],
)
def test_json_that_is_no_table_is_refused_with_the_place(read_json: Reader, content: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_json(content)
    assert words in caught.value.message
    assert caught.value.reason is Reason.UNREADABLE_FILE


def test_disjoint_names_have_an_end(read_json: Reader) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_json(json.dumps([{f"k{i}": i} for i in range(50)]), TableLimits(max_columns=49))
    assert caught.value.metadata["limit"] == "EASYML_MAX_COLUMNS"


@pytest.mark.parametrize("form", ["array", "lines", "pretty"])
def test_json_is_read_in_each_form(read_json: Reader, form: str) -> None:
    records = [{"a": 1, "b": "x", "c": True, "d": 1.5}, {"b": "y", "a": None, "e": "2021-01-01"}]
    content = {
        "array": json.dumps(records),
        "lines": "\n".join(map(json.dumps, records)) + "\n",
        "pretty": json.dumps(records, indent=2),
    }[form]
    table = read_json(content)
    assert table.types == {"a": "int64", "b": "string", "c": "bool", "d": "double", "e": "timestamp"}
    assert table.values("a") == [1, None]
    assert table.values("e") == [None, datetime(2021, 1, 1, tzinfo=UTC)]


def test_late_types_and_names_are_learned(read_json: Reader) -> None:
    lines = ['{"a": 1, "b": 1, "c": "2021-01-01"}'] * 40_000
    lines += ['{"a": 1.5, "b": "x", "c": "no", "d": 1}']
    table = read_json("\n".join(lines))
    assert table.types == {"a": "double", "b": "string", "c": "string", "d": "int64"}
    assert table.values("b")[-2:] == ["1", "x"]
    assert table.values("c")[-2:] == ["2021-01-01", "no"]
    assert table.column("d").null_count == 40_000
    assert (DatasetWarningKind.MIXED_TYPES, "b") in table.warnings


def test_whole_numbers_beyond_64_bits_are_kept_as_text(read_json: Reader) -> None:
    table = read_json('[{"a": 18446744073709551616}, {"a": 1}]')
    assert table.values("a") == ["18446744073709551616", "1"]
    assert (DatasetWarningKind.MIXED_TYPES, "a") in table.warnings


def test_json_in_other_encodings_is_read(read_json: Reader) -> None:
    table = read_json('[{"é": "ü"}]'.encode("utf-16"))
    assert table.values("é") == ["ü"]


def test_mixed_values_become_the_text_that_json_has(read_json: Reader) -> None:
    table = read_json('[{"a": true}, {"a": 1}, {"a": 1.5}, {"a": "x"}, {"a": null}]')
    assert table.values("a") == ["true", "1", "1.5", "x", None]


def test_a_sheet_is_read_with_its_types(read_xlsx: Reader) -> None:
    rows = [
        ["i", "d", "s", "b", "t", 2020],
        [1, 1.5, "x", True, date(2021, 1, 2), 7],
        [2, 2, "NA", False, datetime(2021, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None), None],
    ]
    table = read_xlsx(a_workbook(rows))
    assert list(table.types.values()) == ["int64", "double", "string", "bool", "timestamp", "int64"]
    assert list(table.types)[-1] == "2020"
    assert table.values("s") == ["x", None]
    assert table.values("t") == [datetime(2021, 1, 2, tzinfo=UTC), datetime(2021, 1, 2, 3, 4, 5, tzinfo=UTC)]


def test_formulas_as_text_stay_text_and_are_warned_of(read_xlsx: Reader) -> None:
    table = read_xlsx(a_workbook([["a"], ["=1+1"], ["x"]]))
    assert table.values("a") == ["=1+1", "x"]
    assert (DatasetWarningKind.FORMULA, "a") in table.warnings


def test_the_first_sheet_is_read_unless_another_is_named(read_xlsx: Reader) -> None:
    content = a_workbook([["a"], [1]], sheets=3)
    assert (DatasetWarningKind.OTHER_SHEETS, "") in read_xlsx(content).warnings
    assert (DatasetWarningKind.OTHER_SHEETS, "") not in read_xlsx(content, sheet="Sheet2").warnings
    with pytest.raises(InvalidInput, match="'Sheet1', 'Sheet2', 'Sheet3'"):
        read_xlsx(content, sheet="Sheet4")


def test_empty_rows_and_nameless_empty_columns_are_left_out(read_xlsx: Reader) -> None:
    table = read_xlsx(a_workbook([[None], ["a", "b", None], [1, 2, None], [None, None, None], [3, 4, None]]))
    assert table.values("a") == [1, 3]
    assert list(table.types) == ["a", "b"]


def test_late_types_of_a_sheet_are_learned(read_xlsx: Reader) -> None:
    rows = [["a", *(f"c{i}" for i in range(63))], *([[1] * 64] * 5_000), ["x", *[1.5] * 63]]
    table = read_xlsx(a_workbook(rows))
    assert set(table.types.values()) == {"string", "double"}
