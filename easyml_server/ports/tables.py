"""Reading and writing of tables, always in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from easyml_server.domain.datasets import Conversion, ConvertedTable, FileFormat, Preview, TableSchema


class TableReader(Protocol):
    """Turns files into our Parquet and our Parquet into files, in workers used once."""

    async def convert(self, conversion: Conversion) -> ConvertedTable:
        """Read a user's file and write our Parquet, flushed to disk.

        Raises InvalidInput (UNREADABLE_FILE, TOO_LARGE) with a sentence that says where; LimitReached (DISK_FULL).
        """
        ...

    async def preview(
        self, table_path: str, schema: TableSchema, columns: Sequence[str], rows: int, max_bytes: int
    ) -> Preview:
        """The first rows of our Parquet; fewer when they would exceed `max_bytes`."""
        ...

    async def export(self, table_path: str, format: FileFormat, target: str) -> None:
        """Write our Parquet as a file of another format."""
        ...
