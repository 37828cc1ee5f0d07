"""Which encoding a text file is in, found out by reading all of it once."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from easyml_server.domain.datasets import DatasetWarning, DatasetWarningKind, FileFormat
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
        "ascii utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be latin-1 mac-roman koi8-r koi8-u"
        " gb2312 gbk gb18030 big5 shift_jis cp932 euc-jp euc-kr cp949 cp437 cp850 cp852 cp855 cp858 cp866"
        " cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 iso8859-2 iso8859-3 iso8859-4 iso8859-5"
        " iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10 iso8859-13 iso8859-14 iso8859-15 iso8859-16"
    ).split()
)
_C1_CONTROLS = bytes(range(0x80, 0xA0))


@dataclass(frozen=True, slots=True)
class TextFile:
    """How a file's bytes become text; `mark_bytes` at its beginning are not text."""

    path: Path
    format: FileFormat
    encoding: str
    mark_bytes: int = 0

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


def text_file(path: Path, format: FileFormat, asked: str) -> TextFile:
    """Find the encoding (a mark, UTF-8, UTF-16 by its zeros, else a Western one) and check that all bytes are in it."""
    with path.open("rb") as file:
        head = file.read(4096)
    mark = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", ""))
    encoding = _asked_encoding(asked, format) if asked else mark[1] or _without_mark(path, head)
    if mark[1] and codecs.lookup(encoding).name in ("utf-8-sig", "utf-16", "utf-32"):
        encoding = mark[1]
    found = TextFile(path, format, encoding, len(mark[0]) if encoding == mark[1] else 0)
    _check(found)
    return found


def _asked_encoding(asked: str, format: FileFormat) -> str:
    try:
        name = codecs.lookup(asked).name
    except (LookupError, ValueError):
        name = ""
    if name not in _ACCEPTED:
        raise unreadable(format, f"{asked!r} is no encoding that is known here; try utf-8, utf-16 or latin-1.")
    return name


def _without_mark(path: Path, head: bytes) -> str:
    if _mostly_zero(head[1::2]) and not _mostly_zero(head[::2]):
        return "utf-16-le"
    if _mostly_zero(head[::2]) and not _mostly_zero(head[1::2]):
        return "utf-16-be"
    if _is_utf8(path):
        return "utf-8"
    # Latin-1 gives every byte a letter, but these are control characters in it and letters in Windows.
    return "cp1252" if any(chunk.translate(None, _C1_CONTROLS) != chunk for chunk in _chunks(path)) else "latin-1"


def _mostly_zero(part: bytes) -> bool:
    return len(part) > 1 and part.count(0) > 0.7 * len(part)


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _check(file: TextFile) -> None:
    """Refuse bytes that are not in the encoding, and NUL, which no table holds as text."""
    lines = 1
    try:
        for part in file.text():
            if "\0" in part:
                line = lines + part.count("\n", 0, part.index("\0"))
                message = f"Line {line} holds a zero byte: this is no text, or in an encoding that must be named."
                raise unreadable(file.format, message, line)
            lines += part.count("\n")
    except UnicodeDecodeError as error:
        message = f"The file is not {file.encoding} after line {lines}; name the encoding it is in."
        raise unreadable(file.format, message, lines) from error


def _chunks(path: Path, skip: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(skip)
        while chunk := file.read(_CHUNK):
            yield chunk
