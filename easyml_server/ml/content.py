"""Whether a file's bytes agree with its stated format, told before any parser sees them."""

from __future__ import annotations

from pathlib import Path

from easyml_server.domain.datasets import FileFormat
from easyml_server.ml.table_errors import unreadable

_SIGNS = (
    (b"PAR1", "a Parquet file", "parquet"),
    (b"PARE", "an encrypted Parquet file", ""),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "xlsx"),
    (b"\xd0\xcf\x11\xe0", "an encrypted or an old Excel workbook (.xls)", ""),
    (b"\x1f\x8b", "compressed with gzip", ""),
    (b"BZh", "compressed with bzip2", ""),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", ""),
    (b"\xfd7zXZ", "compressed with xz", ""),
    (b"ARROW1", "an Arrow IPC file", ""),
    (b"%PDF", "a PDF document", ""),
)
_OWN_SIGN = {FileFormat.PARQUET: b"PAR1", FileFormat.XLSX: b"PK\x03\x04"}
_NAMES = {
    FileFormat.CSV: "CSV",
    FileFormat.XLSX: "an Excel workbook",
    FileFormat.JSON: "JSON",
    FileFormat.PARQUET: "Parquet",
}


def check_content(path: Path, format: FileFormat) -> None:
    """Raise InvalidInput if the file is empty or evidently of another format, and say what to do."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.strip():
        raise unreadable(format, "The file is empty; upload one with a header and rows.")
    own = _OWN_SIGN.get(format)
    if own and head.startswith(own):
        return
    for sign, what, suggestion in _SIGNS:
        if head.startswith(sign):
            way_out = f"state {suggestion} as its format" if suggestion else _way_out(what)
            raise unreadable(format, f"The file is not {_NAMES[format]} but {what}; {way_out}.")
    if own:
        raise unreadable(format, f"The file is not {_NAMES[format]}; state its format, or save it again.")


def _way_out(what: str) -> str:
    if "compressed" in what:
        return "unpack it first"
    if "encrypted" in what:
        return "save it without a password as .xlsx" if "Excel" in what else "save it without encryption"
    return "save it as csv, xlsx, json or parquet"
