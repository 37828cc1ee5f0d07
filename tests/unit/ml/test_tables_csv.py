"""CSV as people send it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from easyml_server.domain.datasets import DatasetWarningKind, FileFormat, TableLimits
from easyml_server.domain.errors import InvalidInput, Reason
from tests.unit.ml.tables_helper import Reader


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path, FileFormat.CSV)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3\n", "Line 3 has 1 values"),
        ("a,b\n1,2\n\n3,4,5\n", "Line 4 has 3 values"),
        ('a,b\n1,"x\n', "quote is open"),
        ("a,b\n1,\0\n", "Line 2 holds a zero byte"),
        ("a,a\n1,2\n", "Columns 1 and 2"),
        ("a,\n1,2\n", "column 2 is empty"),
        ("a,b\n", "no rows"),
        ("", "empty"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_place(read: Reader, content: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(content)
    assert words in caught.value.message
    assert caught.value.reason is Reason.UNREADABLE_FILE
    assert caught.value.metadata["format"] == "csv"


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (TableLimits(max_columns=1), "EASYML_MAX_COLUMNS"),
        (TableLimits(max_rows=2), "EASYML_MAX_ROWS"),
        (TableLimits(max_cell_bytes=4), "EASYML_MAX_CELL_BYTES"),
        (TableLimits(max_line_bytes=64), "EASYML_MAX_LINE_BYTES"),
    ],
)
def test_a_file_beyond_a_limit_is_refused_with_its_setting(read: Reader, limits: TableLimits, setting: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read("a,b\n1,hello\n2,you\n3," + "x" * 1000 + "\n", limits)
    assert caught.value.reason is Reason.TOO_LARGE
    assert caught.value.metadata["limit"] == setting


def test_types_are_found_out(read: Reader) -> None:
    table = read(
        "i,d,s,b,t,z,n\n1,1.5,x,true,2021-01-02,2021-01-02T03:04:05+01:00,\n2,2,y,False,2021-01-02 03:04:05,,\n"
    )
    assert table.types == {
        "i": "int64", "d": "double", "s": "string", "b": "bool", "t": "timestamp", "z": "timestamp", "n": "double",
    }  # fmt: skip
    assert table.values("b") == [True, False]
    assert table.values("t") == [datetime(2021, 1, 2, tzinfo=UTC), datetime(2021, 1, 2, 3, 4, 5, tzinfo=UTC)]
    assert table.values("z") == [datetime(2021, 1, 2, 2, 4, 5, tzinfo=UTC), None]
    assert (DatasetWarningKind.ALL_NULL, "n") in table.warnings


def test_usual_spellings_of_nothing_are_null(read: Reader) -> None:
    table = read('a,b\n1,x\nNA,NULL\nnan,None\n"",n/a\n')
    assert table.values("a") == [1, None, None, None]
    assert table.column("b").null_count == 3


@pytest.mark.parametrize(
    ("late", "type"),
    [("1.5", "double"), ("x", "string"), ("", "int64"), ("2021-01-01", "string"), ("1e3", "double")],
)
def test_a_late_value_widens_its_column(read: Reader, late: str, type: str) -> None:
    rows = 1_200_000
    table = read("a,b\n" + "12,34\n" * rows + f"{late},5\n")
    assert table.types == {"a": type, "b": "int64"}
    assert table.converted.schema.row_count == rows + 1
    assert ((DatasetWarningKind.MIXED_TYPES, "a") in table.warnings) == (type == "string")


def test_many_columns_may_widen_late(read: Reader) -> None:
    """After some hasty readings all columns are looked at together."""
    late = [("1.5", "double"), ("x", "string"), ("true", "string"), ("2021-01-01", "string"), ("7", "int64")] * 4
    head = ",".join(f"c{index}" for index in range(len(late)))
    empty = ",".join(["1"] * len(late)) + "\n"
    odd = "".join(
        ",".join(value if position == index else "1" for position in range(len(late))) + "\n"
        for index, (value, _) in enumerate(late)
    )
    table = read(head + "\n" + empty * 110_000 + odd)
    assert list(table.types.values()) == [expected for _, expected in late]


def test_columns_that_begin_empty_get_the_type_of_what_comes(read: Reader) -> None:
    values = ["1", "1.5", "x", "true", "2021-01-01", "2021-01-01T00:00:00Z"]
    table = read("a,b,c,d,e,f\n" + ",,,,,\n" * 800_000 + ",".join(values) + "\n")
    assert list(table.types.values()) == ["int64", "double", "string", "bool", "timestamp", "timestamp"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_separators_are_found_out(read: Reader, delimiter: str) -> None:
    assert read(f"a{delimiter}b\n1{delimiter}x\n").types == {"a": "int64", "b": "string"}


def test_a_stated_separator_counts(read: Reader) -> None:
    assert read("a,b;c\n1,x;y\n", delimiter=";").types == {"a,b": "string", "c": "string"}


@pytest.mark.parametrize(
    ("encoding", "warned"),
    [
        ("utf-8", False),
        ("utf-8-sig", False),
        ("utf-16", True),
        ("utf-16-le", True),
        ("latin-1", True),
        ("cp1252", True),
    ],
)
def test_encodings_are_found_out(read: Reader, encoding: str, warned: bool) -> None:
    text = "städte,zahl\n" + ("Köln,1\n" if encoding != "cp1252" else "“Köln”,1\n")
    table = read(text.encode(encoding))
    assert table.types == {"städte": "string", "zahl": "int64"}
    assert any(kind is DatasetWarningKind.ENCODING for kind, _ in table.warnings) == warned
    assert "Köln" in table.values("städte")[0]


def test_a_stated_encoding_counts(read: Reader) -> None:
    assert read("a\nЖ\n".encode("koi8-r"), encoding="koi8-r").values("a") == ["Ж"]


@pytest.mark.parametrize("encoding", ["base64", "no such", "ascii"])
def test_a_wrong_encoding_is_refused(read: Reader, encoding: str) -> None:
    with pytest.raises(InvalidInput):
        read("a\nЖ\n", encoding=encoding)


def test_line_ends_in_quotes_belong_to_the_value(read: Reader) -> None:
    assert read('a,b\n"x\ny",1\n').values("a") == ["x\ny"]


def test_an_odd_quote_inside_a_value_is_kept(read: Reader) -> None:
    assert read('a,b\n5" pipe,1\n').values("a") == ['5" pipe']


def test_other_line_ends_and_blank_lines_are_read(read: Reader) -> None:
    assert read("\r\na,b\r\n1,2\r\n\r\n3,4\r\n").values("a") == [1, 3]
    assert read("a,b\r1,2\r3,4\r").values("b") == [2, 4]


def test_whole_numbers_beyond_64_bits_are_warned_of(read: Reader) -> None:
    table = read("a,b\n99999999999999999999,inf\n1,1\n")
    assert table.types["a"] == "double"
    assert (DatasetWarningKind.MIXED_TYPES, "a") in table.warnings
    assert (DatasetWarningKind.INFINITE_VALUES, "b") in table.warnings


def test_names_and_order_of_columns_are_kept(read: Reader) -> None:
    names = ["z", " a ", "../../etc", "1", "é", "a.b", "select"]
    table = read(",".join(names) + "\n" + ",".join("1234567") + "\n")
    assert list(table.types) == names


def test_what_is_stored_has_the_stated_size_and_hash(read: Reader) -> None:
    table = read("a\n1\n")
    stored = table.path.read_bytes()
    assert table.converted.stored_bytes == len(stored)
    assert table.converted.stored_sha256 == hashlib.sha256(stored).hexdigest()


def test_warnings_have_an_end(read: Reader) -> None:
    table = read(",".join(f"c{i}" for i in range(200)) + "\n" + ("1," * 199 + "1\n") * 2)
    assert len(table.converted.warnings) == 100
