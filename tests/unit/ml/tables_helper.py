"""Turns bytes into a table and back into Python values, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from easyml_server.domain.datasets import (
    ColumnSchema,
    Conversion,
    ConvertedTable,
    DatasetWarningKind,
    FileFormat,
    ReadOptions,
    TableLimits,
)
from easyml_server.ml import tables

LIMITS = TableLimits()


@dataclass(frozen=True)
class Read:
    """What a conversion found, and the table it made."""

    converted: ConvertedTable
    path: Path

    @property
    def types(self) -> dict[str, str]:
        return {column.name: column.storage_type.value for column in self.converted.schema.columns}

    @property
    def warnings(self) -> set[tuple[DatasetWarningKind, str]]:
        return {(warning.kind, warning.column) for warning in self.converted.warnings}

    def column(self, name: str) -> ColumnSchema:
        found = self.converted.schema.find(name)
        assert found
        return found

    def values(self, name: str) -> list[Any]:
        return list(pq.read_table(self.path)[name].to_pylist())


class Reader:
    """Reads files of one format below a folder."""

    def __init__(self, folder: Path, format: FileFormat) -> None:
        self._folder = folder
        self._format = format

    def __call__(self, content: bytes | str, limits: TableLimits = LIMITS, **options: str) -> Read:
        source, target = self._folder / "upload", self._folder / "table.parquet"
        source.write_bytes(content.encode() if isinstance(content, str) else content)
        conversion = Conversion(str(source), self._format, ReadOptions(**options), str(target), limits)
        return Read(tables.convert(conversion), target)
