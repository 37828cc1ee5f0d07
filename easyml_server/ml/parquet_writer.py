"""Writes our Parquet: five types of columns, in row groups of a size that previews and trainings like."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from easyml_server.domain.datasets import TableLimits
from easyml_server.ml.table_errors import too_large

_GROUP_ROWS = 1 << 17
_GROUP_BYTES = 64 << 20


class _HashedFile:
    """A file for pyarrow to write that hashes what it writes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._abandoned = False

    def write(self, data: bytes) -> int:
        if self._abandoned:
            return len(data)
        self._hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        """Pyarrow must not close it: it is flushed to disk first."""

    def abandon(self) -> None:
        """Let the writer, which closes itself late, write nowhere."""
        self._abandoned = True
        self._file.close()

    def finish(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()


class ParquetTable:
    """Our Parquet in the making; `sha256` and `rows` hold once it is closed without an error."""

    def __init__(self, path: Path, schema: Any, limits: TableLimits) -> None:
        self._path = path
        self._schema = schema
        self._limits = limits
        self._file = _HashedFile(path)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file, mode="w"),
            schema,
            compression="zstd",
            compression_level=1,
            # Dictionaries of numbers double the time of writing and make the file larger.
            use_dictionary=[field.name for field in schema if pa.types.is_string(field.type)],
        )
        self._waiting: list[Any] = []
        self.rows = 0
        self.sha256 = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write_group()
            self._writer.close()
            self.sha256 = self._file.finish()
            flush_folder(self._path.parent)
        else:
            self._file.abandon()

    def write(self, batch: Any) -> None:
        """Add rows; raises InvalidInput (TOO_LARGE) beyond the limits."""
        if self.rows + batch.num_rows > self._limits.max_rows:
            raise too_large("max_rows", self._limits.max_rows, "The table has more rows than are taken")
        self._check_cells(batch)
        self.rows += batch.num_rows
        self._waiting.append(batch)
        waiting_rows = sum(waiting.num_rows for waiting in self._waiting)
        if waiting_rows >= _GROUP_ROWS or sum(waiting.nbytes for waiting in self._waiting) >= _GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
            self._waiting = []

    def _check_cells(self, batch: Any) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_string(column.type):
                lengths = pc.binary_length(column)
                if (longest := pc.max(lengths).as_py() or 0) > self._limits.max_cell_bytes:
                    row = self.rows + pc.index(lengths, longest).as_py() + 1
                    raise too_large(
                        "max_cell_bytes",
                        self._limits.max_cell_bytes,
                        f"Row {row} holds a text of {longest:,} bytes in column {name!r}",
                    )


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def column_groups(names: list[str], size: int) -> Iterator[list[str]]:
    """The columns in groups that are read together."""
    for start in range(0, len(names), size):
        yield names[start : start + size]
