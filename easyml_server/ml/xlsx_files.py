"""Excel workbooks: the archive is checked before calamine sees it, then one sheet is read row by row."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from python_calamine import CalamineError, CalamineWorkbook

from easyml_server.domain.datasets import Conversion, DatasetWarning, DatasetWarningKind, FileFormat, TableLimits
from easyml_server.domain.errors import InvalidInput
from easyml_server.ml.column_types import NULL_SPELLINGS
from easyml_server.ml.records import TypedReading, whole
from easyml_server.ml.table_errors import checked_names, too_large, unreadable

_BATCH_CELLS = 1 << 18
_CHUNK = 1 << 20
# calamine keeps a rectangle around all cells of a sheet, at 32 bytes each, whether they hold anything or not.
_MAX_RECTANGLE = 25_000_000
_OVERLAP = 64
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml$", re.IGNORECASE)
_CELL = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]{0,7})([0-9]{1,18})["']""")
_ENCRYPTED = 0x1
_NO_VALUE = frozenset({*NULL_SPELLINGS, "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"})


class XlsxFile:
    """One sheet of a workbook: the one asked for, else the first."""

    def __init__(self, conversion: Conversion) -> None:
        self._limits = conversion.limits
        source = Path(conversion.source)
        _check_archive(source, self._limits)
        self._sheet, self._others = _open(source, conversion.options.sheet)
        self._names: list[str] = []
        self._reading = TypedReading()

    def batches(self) -> Iterator[Any]:
        """The rows below the header; Widened when a later one has other types."""
        return self._reading.batches(self._parts())

    def warnings(self) -> list[DatasetWarning]:
        """What was noticed while reading."""
        warnings = self._reading.columns.warnings()
        if self._others:
            message = f"The workbook has {self._others} more sheets; only the first was read. Name another to read it."
            warnings.insert(0, DatasetWarning(DatasetWarningKind.OTHER_SHEETS, "", message))
        return warnings

    def _parts(self) -> Iterator[tuple[dict[str, Sequence[object]], int]]:
        rows = (row for row in self._sheet.iter_rows() if any(cell not in ("", None) for cell in row))
        header = next(rows, None)
        if header is None:
            raise unreadable(FileFormat.XLSX, "The sheet is empty; choose one with a header and rows.")
        self._names = self._header(header)
        size = max(1, _BATCH_CELLS // len(self._names))
        batch: list[list[object]] = []
        for row in rows:
            batch.append(self._row(row))
            if len(batch) >= size:
                yield self._columns(batch), len(batch)
                batch = []
        if batch:
            yield self._columns(batch), len(batch)

    def _header(self, cells: Sequence[object]) -> list[str]:
        names = [str(whole(cell)) for cell in cells]
        while names and not names[-1].strip():
            names.pop()
        return checked_names(names, FileFormat.XLSX, self._limits)

    def _row(self, cells: Sequence[object]) -> list[object]:
        row = [None if isinstance(cell, str) and cell in _NO_VALUE else whole(cell) for cell in cells]
        if any(cell is not None for cell in row[len(self._names) :]):
            raise unreadable(
                FileFormat.XLSX,
                f"A row has values in column {len(row)}, which has no name in the header; name it, or clear it.",
            )
        return row[: len(self._names)]

    def _columns(self, rows: list[list[object]]) -> dict[str, Sequence[object]]:
        return dict(zip(self._names, zip(*rows, strict=True), strict=True))


def _open(source: Path, name: str) -> tuple[Any, int]:
    """The sheet, and how many others there are if none was asked for."""
    try:
        workbook = CalamineWorkbook.from_path(str(source))
        sheets = workbook.sheet_names
        if name and name not in sheets:
            known = ", ".join(repr(sheet) for sheet in sheets[:20])
            raise unreadable(FileFormat.XLSX, f"The workbook has no sheet {name!r}; it has {known}.")
        if not sheets:
            raise unreadable(FileFormat.XLSX, "The workbook has no sheets.")
        return workbook.get_sheet_by_name(name or sheets[0]), 0 if name else len(sheets) - 1
    except (CalamineError, OSError, ValueError) as error:
        raise _damaged() from error


def _check_archive(source: Path, limits: TableLimits) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            _check_members(members, limits)
            unpacked = 0
            for member in members:
                unpacked += _check_member(archive, member, limits, unpacked)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise _damaged() from error


def _check_members(members: Sequence[zipfile.ZipInfo], limits: TableLimits) -> None:
    if len(members) > limits.max_members:
        raise too_large("max_members", limits.max_members, f"The workbook has {len(members):,} parts")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise unreadable(FileFormat.XLSX, "The workbook is encrypted; save it without a password.")
        if member.filename.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.filename):
            raise unreadable(FileFormat.XLSX, "The workbook has parts outside itself; save it again.")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise _damaged()
    _check_size(sum(m.file_size for m in members), sum(m.compress_size for m in members), limits)


def _check_size(unpacked: int, packed: int, limits: TableLimits) -> None:
    if unpacked > limits.max_unpacked_bytes:
        raise too_large("max_unpacked_bytes", limits.max_unpacked_bytes, f"The workbook unpacks to {unpacked:,} bytes")
    if unpacked > limits.max_unpacked_ratio * max(packed, _CHUNK // limits.max_unpacked_ratio):
        message = "The workbook unpacks to too many times its size"
        raise too_large("max_unpacked_ratio", limits.max_unpacked_ratio, message)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: TableLimits, before: int) -> int:
    """Unpack a part, since what the archive says of its size may be a lie, and look at what calamine would meet."""
    sheet = _Rectangle() if _SHEET.match(member.filename) else None
    size, tail = 0, b""
    with archive.open(member) as part:
        while chunk := part.read(_CHUNK):
            size += len(chunk)
            _check_size(before + size, before + size, limits)
            window = tail + chunk
            if b"<!DOCTYPE" in window or b"<!ENTITY" in window:
                raise unreadable(FileFormat.XLSX, "The workbook declares a document type; save it again.")
            if sheet:
                sheet.add(window)
            tail = window[-_OVERLAP:]
    if size != member.file_size:
        raise _damaged()
    return size


class _Rectangle:
    """What a sheet's cells span, as far as their addresses say."""

    def __init__(self) -> None:
        self._rows = 1
        self._columns = 1

    def add(self, xml: bytes) -> None:
        for letters, digits in set(_CELL.findall(xml)):
            self._rows = max(self._rows, int(digits))
            self._columns = max(self._columns, _column_number(letters))
        if self._rows * self._columns > _MAX_RECTANGLE:
            raise unreadable(
                FileFormat.XLSX,
                f"A sheet spans {self._rows:,} rows and {self._columns:,} columns, more than can be read;"
                " clear stray cells at its far end, or save it as CSV.",
            )


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - ord("A") + 1
    return number


def _damaged() -> InvalidInput:
    return unreadable(FileFormat.XLSX, "The file is a damaged Excel workbook, or none; open it and save it again.")
