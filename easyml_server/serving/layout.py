"""How the columns of a signature lie in memory while a request is answered.

Columns of one storage type and encoding go through `prepare_column` together, one after the other as a single long
column: it treats each cell by itself, so the result is the same, and a request of one row costs a few calls of NumPy
instead of a few per column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.ml.prepare import Cells, Encoding, are_usable_numbers, encoding_of, prepare_column, prepared_names

DTYPES: Final[dict[StorageType, Any]] = {
    StorageType.INT64: np.int64,
    StorageType.DOUBLE: np.float64,
    StorageType.STRING: np.object_,
    StorageType.BOOL: np.bool_,
    StorageType.TIMESTAMP: np.int64,
}
_TOGETHER: Final = "block"
_KINDS: Final = {
    Encoding.NUMBER: ColumnKind.NUMERIC,
    Encoding.BOOLEAN: ColumnKind.BOOLEAN,
    Encoding.CATEGORY: ColumnKind.CATEGORICAL,
    Encoding.DATE: ColumnKind.DATETIME,
}


class RawColumn(NamedTuple):
    """The values of one column as Python has them, one per row, and the rows without one."""

    values: Sequence[Any]
    nulls: Sequence[int] = ()


class RawTable(NamedTuple):
    """A table that fits the signature: its columns in the signature's order."""

    rows: int
    columns: Sequence[RawColumn]


class RawRow(NamedTuple):
    """A table of one row without gaps: its values in the signature's order."""

    values: Sequence[Any]

    @property
    def rows(self) -> int:
        """One."""
        return 1

    @property
    def columns(self) -> Sequence[RawColumn]:
        """As a table has them."""
        return [RawColumn((value,)) for value in self.values]


Table = RawTable | RawRow


def stack(tables: Sequence[Table]) -> RawTable:
    """Tables of one signature, one below the other."""
    rows = [table.values for table in tables if isinstance(table, RawRow)]
    if len(rows) == len(tables):
        return RawTable(len(rows), [RawColumn(column) for column in zip(*rows, strict=True)])
    columns = []
    for parts in zip(*(table.columns for table in tables), strict=True):
        values: list[Any] = []
        nulls: list[int] = []
        for part, empty in parts:
            if empty:
                nulls += [len(values) + row for row in empty]
            values += part
        columns.append(RawColumn(values, nulls))
    return RawTable(sum(table.rows for table in tables), columns)


@dataclass(frozen=True, slots=True)
class Block:
    """Columns that are prepared together, by their positions in the signature.

    `names` holds the names of the prepared columns per column: one each, or one per part of a date. `together` is the
    one column that stands for all, and `parts` are the names of what becomes of it.
    """

    storage_type: StorageType
    encoding: Encoding
    positions: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]
    together: SignatureColumn
    parts: tuple[str, ...]

    def _joined(self, table: RawTable) -> tuple[list[Any], list[int]]:
        """The columns of this block, one after the other, and where there is no value."""
        values: list[Any] = []
        nulls: list[int] = []
        for position in self.positions:
            column, empty = table.columns[position]
            if empty:
                nulls += [len(values) + row for row in empty]
            values += column
        return values, nulls

    def _cells(self, array: NDArray[Any], nulls: Sequence[int]) -> Cells:
        """A number that is NaN is missing too."""
        is_double = self.storage_type is StorageType.DOUBLE
        missing = np.isnan(array) if is_double else np.zeros(len(array), dtype=np.bool_)
        if nulls:
            missing[nulls] = True
        return Cells(array, missing)

    def prepare(self, table: RawTable) -> dict[str, NDArray[Any]]:
        """One long prepared column, or one per part of a date."""
        values, nulls = self._joined(table)
        array = np.array(values, dtype=DTYPES[self.storage_type])
        if not nulls and self._is_prepared(array):
            return {self.parts[0]: array}
        return dict(zip(self.parts, prepare_column(self.together, self._cells(array, nulls)), strict=True))

    def _is_prepared(self, array: NDArray[Any]) -> bool:
        """Whether `prepare_column` would change nothing, which is so of most requests."""
        if self.encoding is Encoding.NUMBER:
            return are_usable_numbers(array)
        return self.encoding is Encoding.CATEGORY and self.storage_type is StorageType.STRING


class PreparedBlock(NamedTuple):
    """A block's prepared columns: one long one, or one per part of a date."""

    block: Block
    parts: Mapping[str, NDArray[Any]]

    @property
    def first(self) -> NDArray[Any]:
        """The one long column, or the first part, which tells where values are missing."""
        return next(iter(self.parts.values()))


class Layout:
    """The blocks of a signature."""

    def __init__(self, signature: Signature) -> None:
        names = prepared_names(signature.inputs)
        positions: dict[tuple[StorageType, Encoding], list[int]] = {}
        for position, column in enumerate(signature.inputs):
            encoding = encoding_of(column.storage_type, column.kind)
            # Whole numbers and truth values become the same 64-bit floats here as they would in `prepare_column`.
            as_double = encoding in (Encoding.NUMBER, Encoding.BOOLEAN)
            key = (StorageType.DOUBLE if as_double else column.storage_type, encoding)
            positions.setdefault(key, []).append(position)
        self.blocks = tuple(
            _block(storage_type, encoding, members, [names[member] for member in members])
            for (storage_type, encoding), members in positions.items()
        )
        self.prepared_names = tuple(name for parts in names for name in parts)

    def prepare(self, table: RawTable) -> list[PreparedBlock]:
        """All blocks of a table."""
        return [PreparedBlock(block, block.prepare(table)) for block in self.blocks]


def _block(
    storage_type: StorageType, encoding: Encoding, positions: Sequence[int], names: Sequence[Sequence[str]]
) -> Block:
    together = SignatureColumn(_TOGETHER, storage_type, _KINDS[encoding], nullable=True)
    (parts,) = prepared_names([together])
    return Block(storage_type, encoding, tuple(positions), tuple(tuple(each) for each in names), together, tuple(parts))
