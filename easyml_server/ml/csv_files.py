"""CSV as people send it: encoding, separator and types are found out; it is read in blocks, so memory stays flat."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from easyml_server.domain.datasets import Conversion, DatasetWarning, DatasetWarningKind, FileFormat
from easyml_server.domain.errors import InvalidInput
from easyml_server.ml.column_types import NULL_SPELLINGS, NUMBERS, ColumnType, Widened, joined, stored_schema
from easyml_server.ml.encodings import text_file
from easyml_server.ml.table_errors import checked_names, too_large, unreadable

_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 50
_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
_BLOCK_BYTES = 4 << 20
_HASTY_READINGS = 3
_UNFIT = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to [^:]+:[^']*'(.*)'", re.DOTALL)
_ARROW_TYPES = {
    ColumnType.NULL: pa.null(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.INT64: pa.int64(),
    ColumnType.DOUBLE: pa.float64(),
    ColumnType.TIMESTAMP: pa.timestamp("us"),
    ColumnType.ZONED: pa.timestamp("us", tz="UTC"),
    ColumnType.STRING: pa.string(),
}
_CANDIDATES = (ColumnType.INT64, ColumnType.DOUBLE, ColumnType.BOOL, ColumnType.TIMESTAMP, ColumnType.ZONED)
_LARGEST_INT64 = float(1 << 63)


@dataclass(frozen=True, slots=True)
class _Header:
    names: list[str]
    lines: int


class CsvFile:
    """One CSV file; each reading learns types, until one fits all rows."""

    def __init__(self, conversion: Conversion) -> None:
        self._limits = conversion.limits
        self._text = text_file(Path(conversion.source), FileFormat.CSV, conversion.options.encoding)
        head = self._head()
        self._delimiter = conversion.options.delimiter or _delimiter_of(head)
        self._header = self._read_header(head)
        self._check_quotes()
        self._types: list[ColumnType] | None = None
        self._readings = 0
        self._mixed: set[str] = set()
        self._huge: set[str] = set()

    def batches(self) -> Iterator[Any]:
        """The rows; Widened after a value that did not fit."""
        self._readings += 1
        self._huge = set()
        if self._types is None:
            self._types = self._types_of_first_block()
        elif self._readings > _HASTY_READINGS:
            # Many columns change their types late: learn of all of them at once.
            self._learn_types()
        for batch in self._rows(self._types):
            yield self._stored(batch)

    def warnings(self) -> list[DatasetWarning]:
        """What was noticed while reading."""
        mixed = [
            DatasetWarning(
                DatasetWarningKind.MIXED_TYPES, name, f"Column {name!r} mixes numbers and text and is stored as text."
            )
            for name in self._header.names
            if name in self._mixed
        ]
        huge = [
            DatasetWarning(
                DatasetWarningKind.MIXED_TYPES,
                name,
                f"Column {name!r} holds whole numbers beyond 64 bits; they are stored with 15 digits."
                " Put a letter before them if they are names rather than amounts.",
            )
            for name in self._header.names
            if name in self._huge
        ]
        return [*self._text.warnings, *mixed, *huge]

    def _head(self) -> str:
        """Enough text for the header and some rows."""
        head = ""
        for part in self._text.text():
            head += part
            if len(head) > self._limits.max_line_bytes:
                break
        return head

    def _read_header(self, head: str) -> _Header:
        """The names, read here because a million columns end pyarrow."""
        skipped = len(head) - len(head.lstrip("\r\n"))
        line = re.split(r"\r\n|\r|\n", head[skipped:], maxsplit=1)[0]
        number = len(re.findall(r"\r\n|\r|\n", head[:skipped])) + 1
        if len(line) >= self._limits.max_line_bytes:
            raise too_large("max_line_bytes", self._limits.max_line_bytes, f"Line {number}, the header, is too long")
        if line.count(self._delimiter) >= self._limits.max_columns:
            columns = line.count(self._delimiter) + 1
            raise too_large("max_columns", self._limits.max_columns, f"The header names {columns:,} columns")
        try:
            names = next(csv.reader([line], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            raise unreadable(FileFormat.CSV, "The header has an open or misplaced quote; close it.", number) from error
        return _Header(checked_names(names, FileFormat.CSV, self._limits, number), number)

    def _check_quotes(self) -> None:
        """Refuse a quote that is never closed: it would swallow the rest of the file as one value, silently."""
        if self._text.quotes % 2 == 0:
            return
        # An odd number may also be a measure in inches, so only now it is worth to read every cell.
        line = self._header.lines
        try:
            for line, _ in self._records(strict=True):  # noqa: B007 - the last one read is near the fault
                pass
        except csv.Error as error:
            if "field larger" in str(error):
                raise self._too_long(line + 1) from error
            message = f"A quote is open or misplaced after line {line}; close it."
            raise unreadable(FileFormat.CSV, message, line + 1) from error

    def _records(self, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """The rows as Python reads them, slowly but knowing in which line each ends."""
        csv.field_size_limit(self._limits.max_line_bytes)
        with contextlib.closing(self._text.lines()) as lines:
            reader = csv.reader(lines, delimiter=self._delimiter, strict=strict)
            for row in reader:
                yield reader.line_num, row

    def _rows(self, types: list[ColumnType] | None) -> Iterator[Any]:
        """Record batches in Arrow's types; of the types that the first block suggests if none are given."""
        broken: list[Any] = []
        try:
            with self._text.path.open("rb") as source, self._open(source, types, broken) as reader:
                yield from reader
        except pa.ArrowInvalid as error:
            raise self._explained(error, broken) from error
        except UnicodeDecodeError as error:
            raise unreadable(FileFormat.CSV, f"The file is not {self._text.encoding}; name its encoding.") from error

    def _open(self, source: BinaryIO, types: list[ColumnType] | None, broken: list[Any]) -> Any:
        def remember(row: Any) -> str:
            broken.append(row)
            return "error"

        names = self._header.names
        known = {name: _ARROW_TYPES[kind] for name, kind in zip(names, types, strict=True)} if types else {}
        source.seek(self._text.mark_bytes)
        return pacsv.open_csv(
            pa.PythonFile(source, mode="r"),
            pacsv.ReadOptions(
                use_threads=False,  # only so it knows in which row it is
                block_size=min(_BLOCK_BYTES, self._limits.max_line_bytes),
                column_names=names,
                skip_rows=self._header.lines,
                encoding=self._text.encoding.replace("utf-8", "utf8"),
            ),
            pacsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=remember),
            pacsv.ConvertOptions(
                column_types=known,
                null_values=list(NULL_SPELLINGS),
                true_values=_TRUE,
                false_values=_FALSE,
                strings_can_be_null=True,
            ),
        )

    def _explained(self, error: Exception, broken: list[Any]) -> Exception:
        """What pyarrow's error means: types to widen, or a sentence without the values that pyarrow quotes."""
        message = str(error)
        if unfit := _UNFIT.search(message):
            self._widen(int(unfit[1]), _type_of(unfit[2]))
            return Widened()
        if broken:
            return self._ragged(broken[-1].actual_columns)
        if "straddling" in message:
            return self._too_long(None)
        if "Empty CSV" in message:
            return self._no_rows()
        return unreadable(FileFormat.CSV, "The file cannot be read as CSV; check its quotes and separators.")

    def _ragged(self, values: int) -> InvalidInput:
        """Look for the row again: pyarrow counts rows without empty lines and lines within values."""
        line = None
        with contextlib.suppress(csv.Error):
            line = next((end for end, row in self._records() if row and len(row) == values), None)
        where = f"Line {line}" if line else "A line"
        expected = len(self._header.names)
        message = f"{where} has {values} values, but the header names {expected} columns"
        return unreadable(FileFormat.CSV, f"{message} (separator {self._delimiter!r}).", line)

    def _too_long(self, line: int | None) -> InvalidInput:
        where = f"Line {line}" if line else "A line"
        return too_large("max_line_bytes", self._limits.max_line_bytes, f"{where} is too long, or has an open quote")

    def _no_rows(self) -> InvalidInput:
        return unreadable(FileFormat.CSV, "The file has a header but no rows; upload one with rows.")

    def _types_of_first_block(self) -> list[ColumnType]:
        first = next(self._rows(None), None)
        if first is None or not first.num_rows:
            raise self._no_rows()
        return [_column_type(kind) for kind in first.schema.types]

    def _learn_types(self) -> None:
        """Read all rows as text and widen every column by what it holds."""
        assert self._types is not None  # noqa: S101 - the first reading set them
        for batch in self._rows([ColumnType.STRING] * len(self._types)):
            for index, column in enumerate(batch.columns):
                if self._types[index] is not ColumnType.STRING:
                    self._widen(index, _type_of_all(column, self._types[index]))

    def _widen(self, index: int, kind: ColumnType) -> None:
        assert self._types is not None  # noqa: S101 - the first reading set them
        old = self._types[index]
        # A column that refused a value must not stay as it is, or it would be read for ever.
        new = (
            joined(old, kind) if joined(old, kind) is not old or self._readings > _HASTY_READINGS else ColumnType.STRING
        )
        if new is ColumnType.STRING and (old in NUMBERS or kind in NUMBERS):
            self._mixed.add(self._header.names[index])
        self._types[index] = new

    def _stored(self, batch: Any) -> Any:
        assert self._types is not None  # noqa: S101 - the first reading set them
        schema = stored_schema(self._header.names, self._types)
        columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
        for name, kind, column in zip(self._header.names, self._types, columns, strict=True):
            if kind is ColumnType.DOUBLE and name not in self._huge and _has_huge_whole_numbers(column):
                self._huge.add(name)
        return pa.record_batch(columns, schema=schema)


def _delimiter_of(head: str) -> str:
    """The separator that cuts the first lines into equally many values; the one that makes most of them."""
    lines = head.lstrip("\r\n").splitlines()[: _SAMPLE_LINES + 1]
    lines = lines if len(lines) <= _SAMPLE_LINES else lines[:-1]

    def fitness(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        if not widths or widths[0] == 1:
            return 0.0, 0
        return Counter(widths)[widths[0]] / len(widths), widths[0]

    try:
        return max(_DELIMITERS, key=fitness)
    except csv.Error:  # a value larger than the csv module takes; pyarrow will name it
        return ","


def _column_type(arrow_type: Any) -> ColumnType:
    if pa.types.is_timestamp(arrow_type):
        return ColumnType.ZONED if arrow_type.tz else ColumnType.TIMESTAMP
    if pa.types.is_date(arrow_type):
        return ColumnType.TIMESTAMP
    return next((kind for kind, known in _ARROW_TYPES.items() if known.equals(arrow_type)), ColumnType.STRING)


def _type_of(value: str) -> ColumnType:
    """The type that pyarrow itself would give a column with this value."""
    quoted = value.replace('"', '""').encode()
    options = pacsv.ConvertOptions(null_values=list(NULL_SPELLINGS), true_values=_TRUE, false_values=_FALSE)
    try:
        table = pacsv.read_csv(
            io.BytesIO(b'"' + quoted + b'"\n'),
            pacsv.ReadOptions(use_threads=False, column_names=["value"]),
            pacsv.ParseOptions(newlines_in_values=True),
            options,
        )
    except pa.ArrowInvalid:
        return ColumnType.STRING
    return _column_type(table.schema.types[0])


def _type_of_all(column: Any, at_least: ColumnType) -> ColumnType:
    """The narrowest type that all these texts and `at_least` fit in."""
    texts = pc.utf8_trim_whitespace(column.drop_null())
    if not len(texts):
        return at_least
    for kind in (at_least, *_CANDIDATES):
        if joined(kind, at_least) is kind and kind is not ColumnType.NULL and _fits(texts, kind):
            return kind
    return ColumnType.STRING


def _fits(texts: Any, kind: ColumnType) -> bool:
    if kind is ColumnType.BOOL:
        return bool(pc.all(pc.is_in(texts, value_set=pa.array([*_TRUE, *_FALSE]))).as_py())
    try:
        texts.cast(_ARROW_TYPES[kind])
    except pa.ArrowInvalid:
        return False
    return True


def _has_huge_whole_numbers(column: Any) -> bool:
    bounds = pc.min_max(column).as_py()
    least, most = bounds["min"], bounds["max"]
    if least is None or max(-least, most) < _LARGEST_INT64:
        return False
    huge = column.filter(pc.greater_equal(pc.abs(column), _LARGEST_INT64))
    return bool(pc.any(pc.is_finite(huge)).as_py())
