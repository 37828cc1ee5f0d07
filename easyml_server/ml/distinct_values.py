"""The different values of a column, up to a limit, and how often each occurs."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from easyml_server.domain.statistics import FREQUENT_VALUES, SHOWN_CHARACTERS, ValueCount

DISTINCT_LIMIT = 10_000
_DIGESTED_BYTES = 256
_CUT = "…"


class DistinctValues:
    """The different values; long texts as digests, so that they need little memory."""

    def __init__(self, counted_up_to: int) -> None:
        """Occurrences are counted while there are at most so many different values."""
        self._seen: Any = None
        self._counts: NDArray[np.int64] | None = np.empty(0, np.int64) if counted_up_to else None
        self._counted_up_to = counted_up_to
        self._digested = False
        self.exact = True
        self.count = 0

    def add(self, column: Any) -> int | None:
        """Take in values, and say how many different ones there were among them, if they were looked at."""
        if not self.exact:
            return None
        values, counts = self._different(column)
        different = len(values)
        if pa.types.is_string(values.type) and pc.max(pc.binary_length(values)).as_py() > _DIGESTED_BYTES:
            self._digested = True
            self._counts = counts = None
        if self._digested:
            values = _digests(values)
            self._seen = _digests(self._seen)
        self._take_in(values, counts)
        self.count = len(self._seen)
        if self.count > DISTINCT_LIMIT:
            self.exact = False
            self.count = DISTINCT_LIMIT + 1
        if self.count > self._counted_up_to:
            self._counts = None
        return different

    def matches(self, pattern: str) -> tuple[int, int]:
        """How many of the different texts match and do not; those seen until the limit."""
        if self._seen is None or self._digested:
            return 0, 0
        found = pc.sum(pc.match_substring_regex(self._seen, pattern)).as_py()
        return found, len(self._seen) - found

    def most_frequent(self) -> tuple[ValueCount, ...]:
        """The most frequent ones, those of equal number in their own order; none if they were not counted."""
        if self._counts is None or self._seen is None:
            return ()
        table = pa.table({"value": self._seen, "count": self._counts})
        if pa.types.is_boolean(self._seen.type):
            table = table.set_column(0, "value", self._seen.cast(pa.string()))
        order = [("count", "descending"), ("value", "ascending")]
        chosen = table.take(pc.select_k_unstable(table, FREQUENT_VALUES, order)).to_pylist()
        return tuple(ValueCount(_shown(row["value"]), row["count"]) for row in chosen)

    def _different(self, column: Any) -> tuple[Any, NDArray[np.int64] | None]:
        if self._counts is None:
            return pc.unique(column), None
        counted = pc.value_counts(column)
        return counted.field("values"), counted.field("counts").to_numpy().copy()

    def _take_in(self, values: Any, counts: NDArray[np.int64] | None) -> None:
        if self._seen is None:
            self._seen, self._counts = values, counts
        elif self._counts is None or counts is None:
            self._seen = pc.unique(pa.concat_arrays([self._seen, values]))
        else:
            places = pc.index_in(values, value_set=self._seen)
            new = places.is_null()
            are_new = new.to_numpy(zero_copy_only=False)
            self._counts[places.drop_null().to_numpy()] += counts[~are_new]
            if are_new.any():
                self._seen = pa.concat_arrays([self._seen, values.filter(new)])
                self._counts = np.concatenate([self._counts, counts[are_new]])


def _digests(values: Any) -> Any:
    if values is None or not pa.types.is_string(values.type):
        return values
    return pa.array([blake2b(value.encode(), digest_size=16).digest() for value in values.to_pylist()], pa.binary(16))


def _shown(value: Any) -> str:
    """As a document and an answer can hold it: not every document store knows NUL."""
    text = str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + _CUT
