"""JSON as tables: an array of flat objects, or one object per line.

Read by Python's own parser, one object at a time: pyarrow's ends the process at 20,000 brackets, and takes 2,000 times
the size of a file of disjoint keys.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from easyml_server.domain.datasets import Conversion, DatasetWarning, FileFormat
from easyml_server.domain.errors import InvalidInput
from easyml_server.ml.encodings import text_file
from easyml_server.ml.records import TypedReading
from easyml_server.ml.table_errors import checked_names, too_large, unreadable

_BATCH_ROWS = 1 << 14
_BATCH_CELLS = 1 << 20
_BATCH_CHARACTERS = 8 << 20
_MAX_DIGITS = 300
_SPACE = re.compile(r"[ \t\r\n]*")
_WAY_OUT = "Write an array of objects, or one object per line."
Record = dict[str, Any]


class JsonFile:
    """One JSON file."""

    def __init__(self, conversion: Conversion) -> None:
        self._limits = conversion.limits
        self._text = text_file(Path(conversion.source), FileFormat.JSON, conversion.options.encoding)
        self._reading = TypedReading()

    def batches(self) -> Iterator[Any]:
        """The objects as rows; Widened when a later one has other columns or types."""
        return self._reading.batches(self._parts())

    def warnings(self) -> list[DatasetWarning]:
        """What was noticed while reading."""
        return self._text.warnings + self._reading.columns.warnings()

    def _parts(self) -> Iterator[tuple[dict[str, Sequence[object]], int]]:
        names: dict[str, None] = {}
        records: list[Record] = []
        size = 0
        for number, (record, length) in enumerate(_records(self._text.text(), self._limits.max_line_bytes), 1):
            self._check(record, number)
            records.append(record)
            size += length
            if new := [name for name in record if name not in names]:
                checked_names(new, FileFormat.JSON, self._limits)
                names.update(dict.fromkeys(new))
                if len(names) > self._limits.max_columns:
                    raise too_large("max_columns", self._limits.max_columns, "The objects have too many names")
            if size > _BATCH_CHARACTERS or len(records) >= min(_BATCH_ROWS, _BATCH_CELLS // max(len(names), 1) + 1):
                yield _columns(records, names), len(records)
                records, size = [], 0
        if records:
            yield _columns(records, names), len(records)

    def _check(self, record: Record, number: int) -> None:
        for name, value in record.items():
            if isinstance(value, list | dict):
                raise _refused(
                    f"{_cell(number, name)} holds {'a list' if isinstance(value, list) else 'an object'};"
                    " write flat objects with one value per name",
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise _refused(f"{_cell(number, name)} holds a number that is too large")
            if isinstance(value, str) and not value.isascii() and _is_broken(value):
                raise _refused(f"{_cell(number, name)} holds text that is not valid Unicode")
        if not record:
            raise _refused(f"Object {number} has no names")


def _columns(records: list[Record], names: dict[str, None]) -> dict[str, Sequence[object]]:
    return {name: [record.get(name) for record in records] for name in names}


def _records(parts: Iterator[str], longest: int) -> Iterator[tuple[Record, int]]:
    """The objects of an array or of lines, each with its length in characters."""
    text = _Text(parts, longest)
    opening = text.peek()
    if opening == "[":
        text.take()
        yield from _array_of_records(text)
    elif opening == "{":
        while text.peek():
            yield text.value()
    else:
        raise _refused(f"The file is no table. {_WAY_OUT}")
    if text.peek():
        raise _refused("There is something after the end of the array")


def _array_of_records(text: _Text) -> Iterator[tuple[Record, int]]:
    if text.peek() == "]":
        text.take()
        return
    while True:
        yield text.value()
        match text.peek():
            case ",":
                text.take()
            case "]":
                text.take()
                return
            case "":
                raise _refused("The array is not closed: the file is cut off")
            case _:
                raise _refused(f"A comma is missing after object {text.count}")


class _Text:
    """A window that moves over the text, never much longer than the longest object."""

    def __init__(self, parts: Iterator[str], longest: int) -> None:
        self._parts = parts
        self._longest = longest
        self._window = ""
        self._at = 0
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, parse_int=self._whole_number
        )
        self.count = 0

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            space = _SPACE.match(self._window, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._read():
                return ""

    def take(self) -> None:
        """Step over the character that was peeked."""
        self._at += 1

    def value(self) -> tuple[Record, int]:
        """The next object and its length."""
        if self.peek() != "{":
            raise _refused(f"Item {self.count + 1} is no object. {_WAY_OUT}")
        start = self._at
        while True:
            try:
                record, end = self._decoder.raw_decode(self._window, start)
            except json.JSONDecodeError as error:
                # Perhaps the rest of it has not been read yet.
                start = self._at
                if len(self._window) - start > self._longest:
                    raise self._too_long() from error
                if not self._read():
                    raise _refused(f"Object {self.count + 1} is broken: {error.msg}") from error
                start = self._at
            except RecursionError as error:
                raise _refused(f"Object {self.count + 1} is nested too deeply; write flat objects") from error
            else:
                # It may have been read as a whole, in one part with others.
                if end - start > self._longest:
                    raise self._too_long()
                self.count += 1
                self._at = end
                return record, end - start

    def _read(self) -> bool:
        part = next(self._parts, "")
        while part == "":
            following = next(self._parts, None)
            if following is None:
                return False
            part = following
        self._window = self._window[self._at :] + part
        self._at = 0
        return True

    def _too_long(self) -> InvalidInput:
        return too_large("max_line_bytes", self._longest, f"Object {self.count + 1} is too long, or not closed")

    def _object(self, pairs: list[tuple[str, Any]]) -> Record:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise _refused(f"Object {self.count + 1} has a name twice; names must differ")
        return record

    def _constant(self, name: str) -> NoReturn:
        raise _refused(f"Object {self.count + 1} holds {name}, which JSON does not know; write null")

    def _whole_number(self, digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            raise _refused(f"Object {self.count + 1} holds a number of {len(digits)} digits; write it as text")
        return int(digits)


def _cell(number: int, name: str) -> str:
    return f"Object {number}, {name[:100]!r},"


def _is_broken(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)


def _refused(message: str) -> InvalidInput:
    return unreadable(FileFormat.JSON, message if message.endswith(".") else f"{message}.")
