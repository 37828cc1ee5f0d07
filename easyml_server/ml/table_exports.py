"""Our Parquet as files of other formats, written in parts so that memory stays flat."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from easyml_server.domain.datasets import FileFormat
from easyml_server.domain.errors import InvalidInput, Reason

_BATCH_ROWS = 1 << 14
_BATCH_CELLS = 1 << 20
XLSX_ROWS, XLSX_COLUMNS, XLSX_TEXT = 1_048_576, 16_384, 32_767
_EXACT = 1 << 53
_EXCEL_YEARS = range(1900, 10_000)


def export(table_path: str, format: FileFormat, target: str) -> None:
    """Write the table of `table_path` to `target`.

    JSON has no infinite numbers and gets null for them, Excel the words. Raises InvalidInput (TOO_LARGE) where Excel
    cannot hold the table.
    """
    source, path = Path(table_path), Path(target)
    match format:
        case FileFormat.CSV:
            _write_csv(source, path)
        case FileFormat.JSON:
            _write_json(source, path)
        case FileFormat.XLSX:
            _write_xlsx(source, path)
        case FileFormat.PARQUET:
            shutil.copyfile(source, path)
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _batches(file: Any) -> Iterator[Any]:
    columns = max(len(file.schema_arrow), 1)
    return iter(file.iter_batches(max(1, min(_BATCH_ROWS, _BATCH_CELLS // columns))))


def _write_csv(source: Path, target: Path) -> None:
    with pq.ParquetFile(source) as file, pacsv.CSVWriter(target, file.schema_arrow) as writer:
        for batch in _batches(file):
            writer.write_batch(batch)


def _write_json(source: Path, target: Path) -> None:
    with pq.ParquetFile(source) as file, target.open("w", encoding="utf-8") as output:
        separator = "[\n"
        for batch in _batches(file):
            for record in batch.to_pylist():
                plain = {name: _json_value(value) for name, value in record.items()}
                output.write(separator + json.dumps(plain, ensure_ascii=False, allow_nan=False))
                separator = ",\n"
        output.write("[]\n" if separator == "[\n" else "\n]\n")


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_xlsx(source: Path, target: Path) -> None:
    import xlsxwriter

    with pq.ParquetFile(source) as file:
        _check_xlsx(file)
        options = {
            "constant_memory": True,
            "tmpdir": str(target.parent),
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        }
        with xlsxwriter.Workbook(str(target), options) as workbook:
            _write_sheet(file, workbook)


def _write_sheet(file: Any, workbook: Any) -> None:
    sheet = workbook.add_worksheet("data")
    moment = workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
    for column, name in enumerate(file.schema_arrow.names):
        sheet.write_string(0, column, _checked_text(name, 0))
    row = 0
    for batch in _batches(file):
        for values in zip(*(_cells(column) for column in batch.columns), strict=True):
            row += 1
            for column, value in enumerate(values):
                _write_cell(sheet, row, column, value, moment)


def _cells(column: Any) -> list[Any]:
    return list(column.to_pylist())


def _write_cell(sheet: Any, row: int, column: int, value: Any, moment: Any) -> None:
    match value:
        case None:
            return
        case bool():
            sheet.write_boolean(row, column, value)
        case str():
            sheet.write_string(row, column, _checked_text(value, row))
        case datetime() if value.year in _EXCEL_YEARS:
            sheet.write_datetime(row, column, value.astimezone(UTC).replace(tzinfo=None), moment)
        case datetime():
            sheet.write_string(row, column, value.isoformat())
        case _ if not math.isfinite(value) or (abs(value) > _EXACT and isinstance(value, int)):
            sheet.write_string(row, column, str(value))
        case _:
            sheet.write_number(row, column, value)


def _check_xlsx(file: Any) -> None:
    rows, columns = file.metadata.num_rows + 1, len(file.schema_arrow)
    if rows > XLSX_ROWS:
        raise _beyond_excel(f"{rows:,} rows with the header", XLSX_ROWS)
    if columns > XLSX_COLUMNS:
        raise _beyond_excel(f"{columns:,} columns", XLSX_COLUMNS)


def _checked_text(text: str, row: int) -> str:
    if len(text) > XLSX_TEXT:
        raise _beyond_excel(f"a text of {len(text):,} characters in row {row}", XLSX_TEXT)
    return text


def _beyond_excel(what: str, maximum: int) -> InvalidInput:
    return InvalidInput(
        f"The table has {what}; Excel holds at most {maximum:,}. Download it as csv, json or parquet.",
        Reason.TOO_LARGE,
        metadata={"limit": "xlsx", "maximum": str(maximum)},
    )
