"""Notes on the cells for which a pipeline made something up: values it filled in, categories it never saw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.models import Signature
from easyml_server.ml.prepare import MISSING_CATEGORY, Encoding
from easyml_server.serving.layout import PreparedBlock
from easyml_server.serving.predictors import Answers

MAX_NOTES: Final = 1000
NULL_FILLED: Final = pb.CELL_NOTE_KIND_NULL_FILLED
UNSEEN_CATEGORY: Final = pb.CELL_NOTE_KIND_UNSEEN_CATEGORY


@dataclass(frozen=True, slots=True)
class Notes:
    """The first notes by row, and how many there are beyond."""

    kept: Sequence[pb.CellNote]
    omitted: int


class Answered(NamedTuple):
    """What a model says of a table, and the notes on its cells, if there are any."""

    answers: Answers
    notes: Notes | None


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of one column with the same note."""

    rows: NDArray[np.intp]
    position: int
    kind: pb.CellNoteKind.ValueType


class NoteTaker:
    """Takes notes for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._names = [column.name for column in signature.inputs]
        # Without a list of what was seen (too many to keep) nothing can be said of what was not.
        self._categories = [frozenset(column.categories) for column in signature.inputs]

    def take(self, blocks: Sequence[PreparedBlock], rows: int) -> Notes | None:
        """Notes on a prepared table, if there are any."""
        found = [found for block in blocks for found in self._of(block, rows)]
        if not found:
            return None
        lengths = [len(each.rows) for each in found]
        all_rows = np.concatenate([each.rows for each in found])
        columns = np.repeat([each.position for each in found], lengths)
        kinds = np.repeat([each.kind for each in found], lengths)
        first = np.lexsort((columns, all_rows))[:MAX_NOTES]
        cells = np.column_stack([all_rows, columns, kinds])[first].tolist()
        kept = [pb.CellNote(row=row, column=self._names[column], kind=kind) for row, column, kind in cells]
        return Notes(kept, len(all_rows) - len(kept))

    def _of(self, prepared: PreparedBlock, rows: int) -> Iterator[_Found]:
        if prepared.block.encoding is Encoding.CATEGORY:
            yield from self._of_categories(prepared, rows)
            return
        # Infinite numbers, and those that 32 bits cannot hold, are filled in too. A sum over one NaN is NaN.
        values = prepared.first
        if not math.isnan(values.sum()):
            return
        filled = np.isnan(values)
        for number, position in enumerate(prepared.block.positions):
            places = np.flatnonzero(filled[number * rows : (number + 1) * rows])
            if len(places):
                yield _Found(places, position, NULL_FILLED)

    def _of_categories(self, prepared: PreparedBlock, rows: int) -> Iterator[_Found]:
        """The empty text is what a missing category looks like, so it counts as none."""
        texts = prepared.first.tolist()
        for number, position in enumerate(prepared.block.positions):
            seen = self._categories[position]
            own = texts[number * rows : (number + 1) * rows]
            unknown = [row for row, text in enumerate(own) if text not in seen]
            if not unknown:
                continue
            filled = [row for row in unknown if own[row] == MISSING_CATEGORY]
            if filled:
                yield _Found(np.array(filled), position, NULL_FILLED)
            if seen and len(filled) < len(unknown):
                unseen = [row for row in unknown if own[row] != MISSING_CATEGORY]
                yield _Found(np.array(unseen), position, UNSEEN_CATEGORY)
