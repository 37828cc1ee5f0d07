"""Which columns a model learns from, and what is noticed about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from easyml_server.domain.datasets import ColumnKind, ColumnSchema, StorageType
from easyml_server.domain.experiments import FailureReason, TrainingWarning, TrainingWarningKind
from easyml_server.domain.models import SignatureColumn
from easyml_server.ml.prepare import (
    MISSING_CATEGORY,
    Cells,
    Encoding,
    encoding_of,
    texts_of,
    unusable_numbers,
)
from easyml_server.ml.refusal import Refused

Warn = Callable[[TrainingWarning], None]

# More categories than this are not written down; unseen ones of such a column are then not noted when predicting.
MAX_NOTED_CATEGORIES: Final = 10_000
_IDENTIFIER_SHARE: Final = 0.95
_IDENTIFIER_ROWS: Final = 20


@dataclass(frozen=True, slots=True)
class _Column:
    schema: ColumnSchema
    cells: Cells
    train: NDArray[np.int64]

    @property
    def known(self) -> NDArray[Any]:
        """The values in the training rows that are there."""
        return self.cells.values[self.train][~self.cells.missing[self.train]]


def choose_features(
    columns: Sequence[ColumnSchema], cells: Mapping[str, Cells], train: NDArray[np.int64], warn: Warn
) -> tuple[SignatureColumn, ...]:
    """The inputs of the model: what can be learned from in the training rows. Raises Refused (NO_FEATURES)."""
    inputs = []
    for schema in columns:
        column = _Column(schema, cells[schema.name], train)
        if left_out := _reason_to_leave_out(column):
            warn(left_out)
            continue
        for noticed in _noticed(column):
            warn(noticed)
        inputs.append(_input(column))
    if not inputs:
        raise Refused(
            FailureReason.NO_FEATURES,
            "No column is left to learn from; the warnings say why each was left out. Choose other features.",
        )
    return tuple(inputs)


def _reason_to_leave_out(column: _Column) -> TrainingWarning | None:
    name = column.schema.name
    if column.schema.kind is ColumnKind.TEXT:
        return _warning(TrainingWarningKind.TEXT_COLUMN, name, "holds free text, which the pipeline leaves out")
    known = _usable(column.known)
    if not len(known):
        return _warning(
            TrainingWarningKind.ALL_NULL_COLUMN, name, "holds no value in the training rows; it is left out"
        )
    if len(known) == len(column.train) and (known == known[0]).all():
        return _warning(
            TrainingWarningKind.CONSTANT_COLUMN, name, "holds one value only in the training rows; it is left out"
        )
    return None


def _noticed(column: _Column) -> Iterator[TrainingWarning]:
    name = column.schema.name
    infinite = _infinite_count(column.cells)
    if infinite:
        yield _warning(
            TrainingWarningKind.INFINITE_VALUES,
            name,
            f"holds {infinite:,} infinite numbers (or beyond 32-bit floats), which count as missing",
        )
    if _looks_like_identifier(column):
        yield _warning(
            TrainingWarningKind.IDENTIFIER_LIKE_COLUMN,
            name,
            "has a value of its own in (nearly) every row, like an identifier; a model can only learn it by heart, "
            "so give it the role IDENTIFIER if it is one",
        )


def _input(column: _Column) -> SignatureColumn:
    schema, cells = column.schema, column.cells
    return SignatureColumn(
        schema.name,
        schema.storage_type,
        schema.kind,
        nullable=bool(cells.missing.any()) or _infinite_count(cells) > 0,
        categories=_categories(column),
    )


def _categories(column: _Column) -> tuple[str, ...]:
    if encoding_of(column.schema.storage_type, column.schema.kind) is not Encoding.CATEGORY:
        return ()
    cells = Cells(column.cells.values[column.train], column.cells.missing[column.train])
    seen = set(texts_of(cells, column.schema.storage_type).tolist()) - {MISSING_CATEGORY}
    return tuple(sorted(seen)) if len(seen) <= MAX_NOTED_CATEGORIES else ()


def _looks_like_identifier(column: _Column) -> bool:
    """Texts that nearly all differ, or whole numbers that all differ and leave hardly a gap."""
    known = column.known
    if len(known) < _IDENTIFIER_ROWS:
        return False
    match column.schema.storage_type:
        case StorageType.STRING:
            return len(set(known.tolist())) >= _IDENTIFIER_SHARE * len(known)
        case StorageType.INT64:
            dense = int(known.max()) - int(known.min()) < 2 * len(column.cells.values)
            return dense and len(np.unique(known)) == len(known)
    return False


def _usable(known: NDArray[Any]) -> NDArray[Any]:
    return known[~unusable_numbers(known)] if known.dtype.kind == "f" else known


def _infinite_count(cells: Cells) -> int:
    if cells.values.dtype.kind != "f":
        return 0
    return int((unusable_numbers(cells.values) & ~np.isnan(cells.values) & ~cells.missing).sum())


def _warning(kind: TrainingWarningKind, column: str, what: str) -> TrainingWarning:
    return TrainingWarning(kind, column, f"Column {column!r} {what}.")
