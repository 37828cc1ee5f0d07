"""Reads the stored table of a dataset version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
import pyarrow.parquet as pq

# Nullable types, because plain NumPy would turn whole numbers with a null into floats and lose digits.
_TYPES: Final[dict[str, Any]] = {
    "int64": pd.Int64Dtype(),
    "bool": pd.BooleanDtype(),
    "string": pd.StringDtype(na_value=pd.NA),
    "large_string": pd.StringDtype(na_value=pd.NA),
}


def read_frame(path: str, columns: Sequence[str]) -> pd.DataFrame:
    """The named columns of a Parquet file, read by mapping it into memory; row numbers are the index."""
    table = pq.read_table(path, columns=list(dict.fromkeys(columns)), memory_map=True)
    frame: pd.DataFrame = table.to_pandas(types_mapper=lambda kind: _TYPES.get(str(kind)))
    return frame
