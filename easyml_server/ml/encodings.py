"""Which encoding a text file is in, found out by reading all of it once."""

from __future__ import annotations

import codecs
import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from easyml_server.domain.datasets import DatasetWarning, DatasetWarningKind, FileFormat
from easyml_server.domain.errors import InvalidInput
from easyml_server.ml.table_errors import unreadable

_CHUNK = 4 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python also calls compressions and escapes encodings; only real ones may be asked for.
_ACCEPTED = frozenset(
    codecs.lookup(name).name
    for name in (
        *("ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
        *("latin-1", "mac-roman", "koi8-r", "koi8-u", "gb2312", "gbk", "gb18030", "big5", "shift_jis"),
        *(
            "euc-jp",
            "euc-kr",
            *(f"cp125{number}" for number in range(9)),
            *(f"iso8859-{n}" for n in (*range(2, 12), *range(13, 17))),
        ),
        *("cp437", "cp850", "cp852", "cp855", "cp858", "cp866", "cp932", "cp949"),
    )
)
_C1_CONTROLS = bytes(range(0x80, 0xA0))


@dataclass(frozen=True, slots=True)
class TextFile:
    """How a file's bytes become text; `mark_bytes` at its beginning are not text."""

    path: Path
    format: FileFormat
    encoding: str
    mark_bytes: int = 0
    quotes: int = 0

    @property
    def warnings(self) -> list[DatasetWarning]:
        """A word if it is not UTF-8."""
        if self.encoding == "utf-8":
            return []
        message = f"The file is not UTF-8; it was read as {self.encoding}. If letters look wrong, name its encoding."
        return [DatasetWarning(DatasetWarningKind.ENCODING, "", message)]

    def text(self) -> Iterator[str]:
        """All of it, in parts."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        for chunk in _chunks(self.path, self.mark_bytes):
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)

    def lines(self) -> Generator[str, None, None]:
        """All of it, in lines with their ends, whichever of the three kinds they are."""
        with self.path.open("rb") as file:
            file.seek(self.mark_bytes)
            with io.TextIOWrapper(file, encoding=self.encoding, newline="") as lines:
                yield from lines


def text_file(path: Path, format: FileFormat, asked: str) -> TextFile:
    """Find the encoding (a mark, UTF-8, UTF-16 by its zeros, else a Western one) and check that all bytes are in it."""
    with path.open("rb") as file:
        head = file.read(4096)
    mark, marked = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", ""))
    encoding = _asked_encoding(asked, format) if asked else marked or _likely(head)
    if marked and encoding in ("utf-8-sig", "utf-16", "utf-32"):
        encoding = marked
    found = TextFile(path, format, encoding, len(mark) if encoding == marked else 0)
    try:
        return _checked(found)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or asked or marked:
            message = f"The file is not {encoding} text; name the encoding it is in, or save it as UTF-8."
            raise unreadable(format, message) from error
        return _checked(replace(found, encoding=_western(path)))


def _asked_encoding(asked: str, format: FileFormat) -> str:
    try:
        name = codecs.lookup(asked).name
    except (LookupError, ValueError):
        name = ""
    if name not in _ACCEPTED:
        raise unreadable(format, f"{asked!r} is no encoding that is known here; try utf-8, utf-16 or latin-1.")
    return name


def _likely(head: bytes) -> str:
    if _mostly_zero(head[1::2]) and not _mostly_zero(head[::2]):
        return "utf-16-le"
    if _mostly_zero(head[::2]) and not _mostly_zero(head[1::2]):
        return "utf-16-be"
    return "utf-8"


def _western(path: Path) -> str:
    """Latin-1 gives every byte a letter, but some are control characters in it and letters in Windows."""
    in_windows = any(chunk.translate(None, _C1_CONTROLS) != chunk for chunk in _chunks(path))
    try:
        if in_windows:
            _checked(TextFile(path, FileFormat.CSV, "cp1252"))
            return "cp1252"
    except UnicodeDecodeError:
        return "latin-1"
    return "latin-1"


def _mostly_zero(part: bytes) -> bool:
    return len(part) > 1 and part.count(0) > 0.7 * len(part)


def _checked(file: TextFile) -> TextFile:
    """Read all of it: refuse NUL, which no table holds as text, and count what the CSV reader wants to know."""
    quotes = 0
    for part in file.text():
        if "\0" in part:
            raise _zero_byte(file)
        quotes += part.count('"')
    return replace(file, quotes=quotes)


def _zero_byte(file: TextFile) -> InvalidInput:
    line = 1
    for part in file.text():
        if "\0" in part:
            line += part.count("\n", 0, part.index("\0"))
            break
        line += part.count("\n")
    message = f"Line {line} holds a zero byte: this is no text, or in an encoding that must be named."
    return unreadable(file.format, message, line)


def _chunks(path: Path, skip: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(skip)
        while chunk := file.read(_CHUNK):
            yield chunk
