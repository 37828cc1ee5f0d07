"""How the columns of a signature lie in memory while a request is answered.

Columns of one storage type and encoding go through `prepare_cells` together, one after the other as a single long
column: it treats each cell by itself, so the result is the same, and a request of one row costs a few calls of NumPy
instead of a few per column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.ml.prepare import Cells, Encoding, encoding_of, prepare_cells, prepared_names

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


@dataclass(frozen=True, slots=True)
class Block:
    """Columns that are prepared together, by their positions in the signature.

    `names` holds the names of the prepared columns per column: one each, or one per part of a date.
    """

    storage_type: StorageType
    encoding: Encoding
    positions: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]
    signature: Signature

    def cells(self, table: RawTable) -> Cells:
        """The columns of this block, one after the other; a number that is NaN is missing."""
        values: list[Any] = []
        missing = np.zeros(table.rows * len(self.positions), dtype=np.bool_)
        for position in self.positions:
            column = table.columns[position]
            if column.nulls:
                missing[np.asarray(column.nulls) + len(values)] = True
            values += column.values
        array = np.array(values, dtype=DTYPES[self.storage_type])
        if self.storage_type is StorageType.DOUBLE:
            missing |= np.isnan(array)
        return Cells(array, missing)

    def prepare(self, cells: Cells) -> list[NDArray[Any]]:
        """One long prepared column, or one per part of a date."""
        return list(prepare_cells({_TOGETHER: cells}, self.signature).values())


class PreparedBlock(NamedTuple):
    """A block's prepared columns, with the raw cells they come from."""

    block: Block
    cells: Cells
    parts: Sequence[NDArray[Any]]


class Layout:
    """The blocks of a signature."""

    def __init__(self, signature: Signature) -> None:
        names = prepared_names(signature.inputs)
        positions: dict[tuple[StorageType, Encoding], list[int]] = {}
        for position, column in enumerate(signature.inputs):
            encoding = encoding_of(column.storage_type, column.kind)
            # Whole numbers and truth values become the same 64-bit floats here as they would in `prepare_cells`.
            as_double = encoding in (Encoding.NUMBER, Encoding.BOOLEAN)
            key = (StorageType.DOUBLE if as_double else column.storage_type, encoding)
            positions.setdefault(key, []).append(position)
        self.blocks = tuple(
            Block(
                storage_type,
                encoding,
                tuple(members),
                tuple(tuple(names[member]) for member in members),
                _signature_of(storage_type, encoding),
            )
            for (storage_type, encoding), members in positions.items()
        )
        self.prepared_names = tuple(name for parts in names for name in parts)

    def prepare(self, table: RawTable) -> list[PreparedBlock]:
        """All blocks of a table."""
        prepared = []
        for block in self.blocks:
            cells = block.cells(table)
            prepared.append(PreparedBlock(block, cells, block.prepare(cells)))
        return prepared


def _signature_of(storage_type: StorageType, encoding: Encoding) -> Signature:
    """What `prepare_cells` needs to know of a block: one column that stands for all."""
    together = SignatureColumn(_TOGETHER, storage_type, _KINDS[encoding], nullable=True)
    return Signature((together,), output="", output_type=StorageType.DOUBLE)
