"""Files made to break their reader: each ends in a sentence for its sender, and nothing else is harmed."""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
import xlsxwriter

from easyml_server.domain.datasets import Conversion, ConvertedTable, FileFormat, ReadOptions, TableLimits
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.trainers.converter import ConverterLimits, ProcessTableReader, start_table_reader

LARGEST_ANSWER = 64 << 20
SEED = 20_261
MUTATIONS = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader() -> AsyncIterator[ProcessTableReader]:
    async with start_table_reader(2, ConverterLimits(memory_bytes=1 << 30, seconds=60)) as reader:
        yield reader


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def convert(reader: ProcessTableReader, tmp_path: Path) -> Callable[..., Any]:
    async def convert(content: bytes, format: FileFormat, **options: str) -> ConvertedTable:
        source = tmp_path / "upload"
        source.write_bytes(content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            return await reader.convert(
                Conversion(str(source), format, ReadOptions(**options), str(tmp_path / "table.parquet"), TableLimits())
            )
        finally:
            assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < LARGEST_ANSWER

    return convert


CSV: dict[str, tuple[bytes, Reason]] = {
    "nothing": (b"", Reason.UNREADABLE_FILE),
    "spaces only": (b" \n\n", Reason.UNREADABLE_FILE),
    "a header without rows": (b"a,b\n", Reason.UNREADABLE_FILE),
    "a million columns": (b",".join(b"%d" % i for i in range(10**6)) + b"\n1\n", Reason.TOO_LARGE),
    "more columns than are taken": (b",".join(b"%d" % i for i in range(10_001)) + b"\n1\n", Reason.TOO_LARGE),
    "a cell of 10 MB": (b"a,b\n1," + b"x" * (10 << 20) + b"\n", Reason.TOO_LARGE),
    "a cell of 2 MB": (b"a,b\n1," + b"x" * (2 << 20) + b"\n", Reason.TOO_LARGE),
    "a header of 10 MB": (b"x" * (10 << 20), Reason.TOO_LARGE),
    "an open quote": (b'a,b\n1,"x\n2,y\n', Reason.UNREADABLE_FILE),
    "an open quote before 20 MB": (b'a,b\n1,"x\n' + b"2,3\n" * (5 << 20), Reason.TOO_LARGE),
    "an open quote in the header": (b'a,"b\n1,2\n', Reason.UNREADABLE_FILE),
    "a zero byte": (b"a,b\n1,\0\n", Reason.UNREADABLE_FILE),
    "duplicate names": (b"a,b,a\n1,2,3\n", Reason.UNREADABLE_FILE),
    "an empty name": (b"a,,c\n1,2,3\n", Reason.UNREADABLE_FILE),
    "a control character in a name": (b"a,b\x07\n1,2\n", Reason.UNREADABLE_FILE),
    "a name of 5 kB": (b"a," + b"b" * 5000 + b"\n1,2\n", Reason.UNREADABLE_FILE),
    "too few values": (b"a,b\n1,2\n3\n", Reason.UNREADABLE_FILE),
    "too many values": (b"a,b\n1,2\n3,4,5\n", Reason.UNREADABLE_FILE),
    "a Parquet file": (b"PAR1" + b"\0" * 100, Reason.UNREADABLE_FILE),
    "a zip archive": (b"PK\x03\x04" + b"\0" * 100, Reason.UNREADABLE_FILE),
    "half of UTF-16": (b"\xff\xfea\0,\0b\0\n\0" + b"\xd8", Reason.UNREADABLE_FILE),
    "random bytes": (random.Random(SEED).randbytes(100_000), Reason.UNREADABLE_FILE),
}


@pytest.mark.parametrize("name", CSV)
async def test_hostile_csv(convert: Callable[..., Any], name: str) -> None:
    content, reason = CSV[name]
    with pytest.raises(InvalidInput) as caught:
        await convert(content, FileFormat.CSV)
    assert caught.value.reason is reason
    assert caught.value.metadata


async def test_a_line_at_fault_is_named(convert: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        await convert(b"a,b\n" + b"1,2\n" * 1000 + b"1,secret,3\n", FileFormat.CSV)
    assert caught.value.metadata["line"] == "1002"
    assert "secret" not in caught.value.message


async def test_an_encoding_that_is_none_is_refused(convert: Callable[..., Any]) -> None:
    for encoding in ("zip", "unicode_escape", "idna", "no-such", "utf-7\0"):
        with pytest.raises(InvalidInput):
            await convert(b"a,b\n1,2\n", FileFormat.CSV, encoding=encoding)


JSON: dict[str, tuple[bytes, Reason]] = {
    "20,000 brackets": (b"[" * 20_000, Reason.UNREADABLE_FILE),
    "20,000 objects in each other": (b'{"a":' * 20_000, Reason.UNREADABLE_FILE),
    "20,000 brackets in a value": (b'[{"a":' + b"[" * 20_000, Reason.UNREADABLE_FILE),
    "20,000 disjoint names": (json.dumps([{f"k{i}": 1} for i in range(20_000)]).encode(), Reason.TOO_LARGE),
    "NaN": (b'[{"a": NaN}]', Reason.UNREADABLE_FILE),
    "1e999": (b'[{"a": 1e999}]', Reason.UNREADABLE_FILE),
    "a number of 10,000 digits": (b'[{"a": ' + b"9" * 10_000 + b"}]", Reason.UNREADABLE_FILE),
    "a name twice": (b'[{"a": 1, "a": 2}]', Reason.UNREADABLE_FILE),
    "a nested value": (b'[{"a": {"b": 1}}]', Reason.UNREADABLE_FILE),
    "a list": (b"[1, 2, 3]", Reason.UNREADABLE_FILE),
    "a number": (b"42", Reason.UNREADABLE_FILE),
    "no objects": (b"[]", Reason.UNREADABLE_FILE),
    "objects without names": (b"[{}, {}]", Reason.UNREADABLE_FILE),
    "an empty name": (b'[{"": 1}]', Reason.UNREADABLE_FILE),
    "a half": (b'[{"a": 1}, {"a"', Reason.UNREADABLE_FILE),
    "broken text": (b'[{"a": "\\ud800"}]', Reason.UNREADABLE_FILE),
    "an object of 8 MB": (b'[{"a": "' + b"x" * (8 << 20) + b'"}]', Reason.TOO_LARGE),
    "a text of 2 MB": (b'[{"a": "' + b"x" * (2 << 20) + b'"}]', Reason.TOO_LARGE),
    "an object that never ends": (b'[{"a": 1, ' + b'"b' * (4 << 20), Reason.TOO_LARGE),
}


@pytest.mark.parametrize("name", JSON)
async def test_hostile_json(convert: Callable[..., Any], name: str) -> None:
    content, reason = JSON[name]
    with pytest.raises(InvalidInput) as caught:
        await convert(content, FileFormat.JSON)
    assert caught.value.reason is reason


def a_workbook(rows: int = 50, sheets: int = 1) -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as workbook:
        for _ in range(sheets):
            sheet = workbook.add_worksheet()
            sheet.write_row(0, 0, ["a", "b", "c"])
            for row in range(1, rows + 1):
                sheet.write_row(row, 0, [row, f"text {row}", row / 7])
    return buffer.getvalue()


def repacked(changes: dict[str, bytes], content: bytes | None = None) -> bytes:
    """A workbook with other parts."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content or a_workbook())) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in {*old.namelist(), *changes}:
            new.writestr(name, changes.get(name) or old.read(name))
    return buffer.getvalue()


def a_sheet(cells: str, head: str = "") -> dict[str, bytes]:
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    xml = f'<?xml version="1.0"?>{head}<worksheet xmlns="{space}"><sheetData>{cells}</sheetData></worksheet>'
    return {"xl/worksheets/sheet1.xml": xml.encode()}


def encrypted(content: bytes) -> bytes:
    changed = bytearray(content)
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(sign)
        while at >= 0:
            changed[at + offset] |= 1
            at = changed.find(sign, at + 1)
    return bytes(changed)


def lying(content: bytes) -> bytes:
    """The directory says that every part has 10 bytes."""
    changed = bytearray(content)
    at = changed.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", changed, at + 24, 10)
        at = changed.find(b"PK\x01\x02", at + 1)
    return bytes(changed)


FAR = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
FAR_ENCODED = FAR.replace("XFD1048576", "&#88;FD1048576")
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
XLSX: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "no zip": (lambda: b"hello", Reason.UNREADABLE_FILE),
    "an old or encrypted workbook": (lambda: b"\xd0\xcf\x11\xe0" + b"\0" * 1000, Reason.UNREADABLE_FILE),
    "a sign and nothing else": (lambda: b"PK\x03\x04", Reason.UNREADABLE_FILE),
    "a half": (lambda: a_workbook()[:2000], Reason.UNREADABLE_FILE),
    "two cells at the far ends": (lambda: repacked(a_sheet(FAR)), Reason.UNREADABLE_FILE),
    "a stated dimension and far cells": (lambda: repacked(a_sheet(FAR_ENCODED)), Reason.UNREADABLE_FILE),
    "a bomb": (lambda: repacked({"xl/sharedStrings.xml": b"\0" * (513 << 20)}), Reason.TOO_LARGE),
    "a small bomb": (lambda: repacked({"xl/media/x": b"\0" * (100 << 20)}), Reason.TOO_LARGE),
    "lying sizes": (lambda: lying(a_workbook()), Reason.UNREADABLE_FILE),
    "encrypted parts": (lambda: encrypted(a_workbook()), Reason.UNREADABLE_FILE),
    "entities": (lambda: repacked(a_sheet("", ENTITIES)), Reason.UNREADABLE_FILE),
    "a part outside": (lambda: repacked({"../../etc/x": b"x"}), Reason.UNREADABLE_FILE),
    "too many parts": (lambda: repacked({f"x{i}": b"x" for i in range(1001)}), Reason.TOO_LARGE),
    "no sheet in it": (lambda: repacked(a_sheet("")), Reason.UNREADABLE_FILE),
    "a zip of something else": (lambda: _zip({"hello.txt": b"hello"}), Reason.UNREADABLE_FILE),
    "values beside the header": (
        lambda: repacked(
            a_sheet(
                '<row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c></row>'
                '<row r="2"><c r="A2"><v>1</v></c><c r="B2"><v>2</v></c></row>'
            )
        ),
        Reason.UNREADABLE_FILE,
    ),
}


def _zip(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", XLSX)
async def test_hostile_xlsx(convert: Callable[..., Any], name: str) -> None:
    make, reason = XLSX[name]
    with pytest.raises(InvalidInput) as caught:
        await convert(make(), FileFormat.XLSX)
    assert caught.value.reason is reason


def a_parquet(table: Any = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    known = pa.table({"a": list(range(200)), "b": [f"text {i}" for i in range(200)], "c": [i / 7 for i in range(200)]})
    pq.write_table(known if table is None else table, buffer, **options)
    return buffer.getvalue()


def a_lying_footer(length: int) -> bytes:
    content = a_parquet()
    return content[:-8] + struct.pack("<I", length) + b"PAR1"


def of_type(array: Any) -> Callable[[], bytes]:
    return lambda: a_parquet(pa.table({"a": array}))


PARQUET: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "a sign and nothing else": (lambda: b"PAR1", Reason.UNREADABLE_FILE),
    "two signs": (lambda: b"PAR1PAR1", Reason.UNREADABLE_FILE),
    "a footer of 2 GB": (lambda: a_lying_footer(2**31), Reason.UNREADABLE_FILE),
    "a footer of 4 GB": (lambda: a_lying_footer(2**32 - 1), Reason.UNREADABLE_FILE),
    "a footer of nothing": (lambda: a_lying_footer(0), Reason.UNREADABLE_FILE),
    "a half": (lambda: a_parquet()[:500], Reason.UNREADABLE_FILE),
    "no rows": (lambda: a_parquet(pa.table({"a": pa.array([], pa.int64())})), Reason.UNREADABLE_FILE),
    "no columns": (lambda: a_parquet(pa.table({})), Reason.UNREADABLE_FILE),
    "an encrypted footer": (lambda: b"PARE" + a_parquet()[4:-4] + b"PARE", Reason.UNREADABLE_FILE),
    "lists": (of_type(pa.array([[1]])), Reason.UNREADABLE_FILE),
    "structs": (of_type(pa.array([{"x": 1}])), Reason.UNREADABLE_FILE),
    "binary": (of_type(pa.array([b"x"])), Reason.UNREADABLE_FILE),
    "durations": (of_type(pa.array([1], pa.duration("s"))), Reason.UNREADABLE_FILE),
    "an extension type": (of_type(pa.array([b"0" * 16], pa.uuid())), Reason.UNREADABLE_FILE),
    "a foreign extension type": (lambda: a_parquet(_of_foreign_type()), Reason.UNREADABLE_FILE),
    "duplicate names": (
        lambda: a_parquet(pa.table([pa.array([1]), pa.array([2])], ["a", "a"])),
        Reason.UNREADABLE_FILE,
    ),
    "too many columns": (lambda: a_parquet(pa.table({f"c{i}": [1] for i in range(10_001)})), Reason.TOO_LARGE),
    "a cell of 2 MB": (of_type(pa.array(["x" * (2 << 20)])), Reason.TOO_LARGE),
}


def _of_foreign_type() -> Any:
    field = pa.field("a", pa.int64(), metadata={"ARROW:extension:name": "somebody.else"})
    return pa.table([pa.array([1])], schema=pa.schema([field]))


@pytest.mark.parametrize("name", PARQUET)
async def test_hostile_parquet(convert: Callable[..., Any], name: str) -> None:
    make, reason = PARQUET[name]
    with pytest.raises(InvalidInput) as caught:
        await convert(make(), FileFormat.PARQUET)
    assert caught.value.reason is reason


async def test_a_dictionary_bomb_ends_at_the_limit_of_memory(convert: Callable[..., Any]) -> None:
    """A megabyte of text, referred to from each of 400,000 rows."""
    text = pa.array(["x" * ((1 << 20) - 1)])
    bomb = pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0] * 400_000, pa.int32()), text)})
    content = a_parquet(bomb, compression="zstd")
    assert len(content) < 1 << 20
    with pytest.raises(InvalidInput) as caught:
        await convert(content, FileFormat.PARQUET)
    assert caught.value.metadata["limit"] == "EASYML_CONVERTER_MEMORY_BYTES"


def mutated(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    match chance.randrange(4):
        case 0:
            for _ in range(chance.randrange(1, 9)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        case 1:
            del changed[chance.randrange(len(changed)) :]
        case 2:
            at = chance.randrange(len(changed))
            changed[at:at] = chance.randbytes(chance.randrange(1, 64))
        case _:
            start = chance.randrange(len(changed))
            changed[start : start + 8] = b"\xff" * 8
    return bytes(changed)


def mutated_inside(content: bytes, chance: random.Random) -> bytes:
    """A whole archive, whose checksums are right, with a broken part: every second time; else a broken archive."""
    if chance.randrange(2):
        return mutated(content, chance)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = chance.choice([name for name in archive.namelist() if name.endswith(".xml")])
        return repacked({name: mutated(archive.read(name), chance)}, content)


@pytest.mark.parametrize("format", [FileFormat.PARQUET, FileFormat.XLSX])
async def test_mutations_give_a_table_or_a_refusal(convert: Callable[..., Any], format: FileFormat) -> None:
    chance = random.Random(SEED)
    mutate = mutated if format is FileFormat.PARQUET else mutated_inside
    content = a_parquet() if format is FileFormat.PARQUET else a_workbook()
    outcomes = [await _outcome(convert, mutate(content, chance), format) for _ in range(MUTATIONS)]
    assert set(outcomes) <= {InvalidInput, ConvertedTable}
    assert InvalidInput in outcomes


async def _outcome(convert: Callable[..., Any], content: bytes, format: FileFormat) -> type:
    try:
        return type(await convert(content, format))
    except InvalidInput as error:
        return InvalidInput if error.reason in (Reason.UNREADABLE_FILE, Reason.TOO_LARGE) else type(error.reason)
