"""Rows to predict, from the command line or a file, with the types of the model's signature."""

from __future__ import annotations

import csv
import datetime as dt
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyml_client.cli.output import UsageError

if TYPE_CHECKING:
    from easyml_client.resources.models import Signature

Row = Mapping[str, Any]
# What the contract reads as missing in an uploaded file (ReadOptions); a row must mean the same here as it did there.
NO_VALUE = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
        *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
_YES, _NO = {"true", "1", "yes"}, {"false", "0", "no"}


def rows_of_file(path: Path | None, format: str | None) -> Iterator[Row]:
    """Rows of a csv or json file, or of stdin (None, "-"): json if its text begins like it."""
    if path is None or str(path) == "-":
        text = sys.stdin.read()
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8; rows to predict are csv or json text in UTF-8.") from error
    looks_like_json = text.lstrip()[:1] in ("[", "{")
    if format == "json" or (format is None and looks_like_json):
        return iter(_json_rows(text))
    return _csv_rows(text)


def _json_rows(text: str) -> list[Row]:
    """An array of objects, one object, or one object per line."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise UsageError(f"The rows are no JSON: {error}.") from error
    rows = found if isinstance(found, list) else [found]
    if not all(isinstance(row, dict) for row in rows):
        raise UsageError('JSON rows are objects: [{"column": value}, …], or one object per line.')
    return rows


def _csv_rows(text: str) -> Iterator[Row]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t|", key=header.count)
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(f"Line {reader.line_num} has another number of cells than the header.")
            yield {name: None if cell in NO_VALUE else cell for name, cell in row.items()}
    except csv.Error as error:
        raise UsageError(f"Line {reader.line_num} is no CSV: {error}.") from error


def typed(rows: Iterable[Row], signature: Signature | None, *, ignore_extra: bool) -> Iterator[Row]:
    """The rows with values of the signature's types; an empty text is no value."""
    types = {column.name: column.storage_type or "" for column in signature.inputs} if signature else {}
    for number, row in enumerate(rows, start=1):
        kept = {name: value for name, value in row.items() if name in types or not ignore_extra}
        yield {name: _typed(number, name, value, types.get(name, "")) for name, value in kept.items()}


def _typed(number: int, name: str, value: Any, storage_type: str) -> Any:
    if value is None or value == "":
        return None
    read = _READERS.get(storage_type)
    if read is None or (not isinstance(value, str) and storage_type != "double"):
        return value
    try:
        return read(value)
    except ValueError:
        raise UsageError(f"Row {number}: {name} is {value!r}, which is no {_WORDS[storage_type]}.") from None


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    try:
        return int(text)
    except ValueError:
        return int(number)


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise ValueError(text)
    return word in _YES


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "int64": _whole,
    "double": float,
    "bool": _truth,
    "timestamp": _moment,
}
_WORDS = {
    "int64": "whole number",
    "double": "number",
    "bool": "true or false",
    "timestamp": "time such as 2026-05-04T12:00",
}


def blocks(rows: Iterable[Row], length: int) -> Iterator[Sequence[Row]]:
    """The rows in lists of at most that length."""
    rows = iter(rows)
    while block := list(itertools.islice(rows, length)):
        yield block
