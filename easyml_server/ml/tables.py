"""Tables in files: what users upload becomes our Parquet, and our Parquet becomes previews and downloads.

Our Parquet has five types of columns: int64, double, string, bool and timestamp (microseconds, UTC). Times of day are
kept as text, decimals become doubles; durations, binary and nested values are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from easyml_server.domain.datasets import Conversion, ConvertedTable, DatasetWarning, FileFormat
from easyml_server.ml.column_types import Widened
from easyml_server.ml.content import check_content
from easyml_server.ml.csv_files import CsvFile
from easyml_server.ml.json_files import JsonFile
from easyml_server.ml.parquet_files import ParquetUpload
from easyml_server.ml.parquet_writer import ParquetTable
from easyml_server.ml.table_errors import unreadable
from easyml_server.ml.table_exports import export
from easyml_server.ml.table_previews import preview
from easyml_server.ml.table_schema import describe
from easyml_server.ml.xlsx_files import XlsxFile

__all__ = ["MAX_WARNINGS", "convert", "export", "preview"]
MAX_WARNINGS = 100


class TableFile(Protocol):
    """A user's file that is read as a table."""

    def batches(self) -> Iterator[Any]:
        """Record batches of one schema, of our types; raises Widened when the schema was too narrow."""
        ...

    def warnings(self) -> list[DatasetWarning]:
        """What was noticed, once all was read."""
        ...


_READERS: Mapping[FileFormat, type[CsvFile | JsonFile | XlsxFile | ParquetUpload]] = {
    FileFormat.CSV: CsvFile,
    FileFormat.JSON: JsonFile,
    FileFormat.XLSX: XlsxFile,
    FileFormat.PARQUET: ParquetUpload,
}


def convert(conversion: Conversion) -> ConvertedTable:
    """Read a user's file and write our Parquet at `conversion.target`, flushed to disk.

    Raises InvalidInput (UNREADABLE_FILE, TOO_LARGE). What lies at the target then is the caller's to remove.
    """
    target = Path(conversion.target)
    check_content(Path(conversion.source), conversion.format)
    file: TableFile = _READERS[conversion.format](conversion)
    table = _written(file, conversion, target)
    found = describe(target)
    return ConvertedTable(
        schema=found.schema,
        statistics=found.statistics,
        warnings=_distilled(file.warnings() + found.warnings),
        stored_bytes=target.stat().st_size,
        stored_sha256=table.sha256,
    )


def _written(file: TableFile, conversion: Conversion, target: Path) -> ParquetTable:
    while True:
        try:
            return _write(_read_ahead(file.batches()), conversion, target)
        except Widened:
            continue


def _read_ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same, each read while the one before it is written: both are work of pyarrow, which needs no lock for it."""
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(next, batches, None)
        while (batch := ahead.result()) is not None:
            ahead = thread.submit(next, batches, None)
            yield batch


def _write(batches: Iterator[Any], conversion: Conversion, target: Path) -> ParquetTable:
    first = next(batches, None)
    if first is None:
        raise unreadable(conversion.format, "The file has no rows; upload one with at least one row of values.")
    with ParquetTable(target, first.schema, conversion.limits) as table:
        table.write(first)
        del first
        for batch in batches:
            table.write(batch)
    return table


def _distilled(warnings: list[DatasetWarning]) -> tuple[DatasetWarning, ...]:
    """One of a kind for each column, and not more than people read."""
    return tuple({(warning.kind, warning.column): warning for warning in reversed(warnings)}.values())[::-1][
        :MAX_WARNINGS
    ]
