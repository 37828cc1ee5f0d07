"""From the cells of a table to what a pipeline takes: one pure function, the same in training and in serving.

What learns from data is a step of the stored pipeline. What learns nothing and no library has is here: parts of a date,
infinite numbers, and how a missing value looks. NumPy only (pandas where a frame comes in), so that the model server
and a plain script can use it:

    number    float64; missing, infinite, or beyond 32-bit floats: NaN
    boolean   float64 0.0, 1.0; missing: NaN
    category  text; missing: the empty text, which is a category like any other
    date      six numbers, see DATE_PARTS; missing: NaN in each

An ONNX graph takes the prepared columns in the same order, each as a tensor of shape [rows, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn

if TYPE_CHECKING:
    import pandas as pd

MISSING_CATEGORY: Final = ""
DATE_PARTS: Final = ("year", "month", "day", "weekday", "hour", "elapsed_days")

# Graphs and several estimators compute in 32 bits; a number that does not fit would be infinite there and not here.
_LARGEST: Final = float(np.finfo(np.float32).max)
_GRAPH_TYPES: Final = {"tensor(string)": np.object_, "tensor(float)": np.float32, "tensor(double)": np.float64}
_DAY_MICROSECONDS: Final = 86_400_000_000
_HOUR_MICROSECONDS: Final = 3_600_000_000


class Encoding(StrEnum):
    """How a column reaches the pipeline."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Cells:
    """One raw column: values by storage type, and where there are none.

    int64, float64, bool, text (object), or microseconds since 1970-01-01 UTC (int64). What lies in `values` where
    `missing` is true does not matter.
    """

    values: NDArray[Any]
    missing: NDArray[np.bool_]


def encoding_of(storage_type: StorageType, kind: ColumnKind) -> Encoding:
    """How a column of this type and kind is encoded; text is a category, whatever else it is said to be.

    Ordinal numbers keep their order as numbers. The order of ordinal texts is recorded nowhere, and inventing one
    (the alphabet) would mislead a model, so they are categories.
    """
    match storage_type:
        case StorageType.STRING:
            return Encoding.CATEGORY
        case StorageType.TIMESTAMP:
            return Encoding.DATE
        case StorageType.BOOL:
            return Encoding.BOOLEAN
    if kind is ColumnKind.CATEGORICAL:
        return Encoding.CATEGORY
    return Encoding.BOOLEAN if kind is ColumnKind.BOOLEAN else Encoding.NUMBER


def prepared_names(inputs: Sequence[SignatureColumn]) -> list[list[str]]:
    """The names of the prepared columns, per input: its own name, or one per part of a date.

    A part's name that another column already has gets underscores until it is free.
    """
    taken = {column.name for column in inputs}
    names: list[list[str]] = []
    for column in inputs:
        if encoding_of(column.storage_type, column.kind) is not Encoding.DATE:
            names.append([column.name])
            continue
        parts = [_free_name(f"{column.name}.{part}", taken) for part in DATE_PARTS]
        taken.update(parts)
        names.append(parts)
    return names


def prepare_cells(cells: Mapping[str, Cells], signature: Signature) -> dict[str, NDArray[Any]]:
    """The prepared columns by name, in the order the pipeline and the graph take them."""
    prepared: dict[str, NDArray[Any]] = {}
    for column, names in zip(signature.inputs, prepared_names(signature.inputs), strict=True):
        prepared.update(zip(names, prepare_column(column, cells[column.name]), strict=True))
    return prepared


def prepare(frame: pd.DataFrame, signature: Signature) -> pd.DataFrame:
    """The same for a data frame of any of pandas's types and nulls; further columns are ignored."""
    import pandas as pd

    cells = {column.name: cells_of(frame[column.name], column.storage_type) for column in signature.inputs}
    prepared = {
        # An explicit type: else pandas makes its own text type of text, whose missing value is not ours.
        name: pd.Series(values, index=frame.index, dtype=values.dtype)
        for name, values in prepare_cells(cells, signature).items()
    }
    return pd.DataFrame(prepared, index=frame.index)


def cells_of(column: pd.Series[Any], storage_type: StorageType) -> Cells:
    """A column of a data frame as cells of its storage type."""
    missing = column.isna().to_numpy(dtype=bool)
    match storage_type:
        case StorageType.STRING:
            return Cells(column.to_numpy(dtype=object), missing)
        case StorageType.TIMESTAMP:
            return Cells(_microseconds(column), missing)
        case StorageType.BOOL:
            return Cells(_filled(column, missing, fill=False, dtype=np.bool_), missing)
        case StorageType.INT64:
            return Cells(_filled(column, missing, fill=0, dtype=np.int64), missing)
        case StorageType.DOUBLE:
            return Cells(_filled(column, missing, fill=0.0, dtype=np.float64), missing)


def texts_of(cells: Cells, storage_type: StorageType) -> NDArray[Any]:
    """Each value as text as `text_of` writes it, and the empty text where there is none; times in ISO 8601."""
    if storage_type is StorageType.STRING:
        return np.where(cells.missing, MISSING_CATEGORY, cells.values).astype(object)
    values = cells.values.astype("datetime64[us]") if storage_type is StorageType.TIMESTAMP else cells.values
    distinct, positions = np.unique(values, return_inverse=True)
    written = np.datetime_as_string(distinct, timezone="UTC") if values.dtype.kind == "M" else distinct
    texts = np.array([text_of(value) for value in written.tolist()], dtype=object)
    result = texts[positions]
    result[cells.missing] = MISSING_CATEGORY
    return result


def text_of(value: Any) -> str:
    """A class or category as text: `true`, `3` (also for 3.0), `2.5`, and text as it is."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value)


def graph_inputs(
    prepared: Mapping[str, NDArray[Any]] | pd.DataFrame, arguments: Sequence[tuple[str, str]]
) -> dict[str, NDArray[Any]]:
    """Prepared columns as the tensors of a graph, whose inputs are (name, type) in the graph's order.

    Types are as ONNX Runtime names them: `tensor(string)`, `tensor(float)`, and `tensor(double)` where 32 bits did not
    do for a model.
    """
    return {
        name: np.asarray(values).astype(_GRAPH_TYPES[tensor], copy=False).reshape(-1, 1)
        for (name, tensor), (_, values) in zip(arguments, prepared.items(), strict=True)
    }


def prepare_column(column: SignatureColumn, cells: Cells) -> Iterator[NDArray[Any]]:
    """The prepared column of one input, or one per part of a date."""
    match encoding_of(column.storage_type, column.kind):
        case Encoding.CATEGORY:
            yield texts_of(cells, column.storage_type)
        case Encoding.DATE:
            yield from _date_parts(cells)
        case Encoding.BOOLEAN:
            values = cells.values.astype(np.float64)
            yield np.where(cells.missing | np.isnan(values), np.nan, (values != 0).astype(np.float64))
        case Encoding.NUMBER:
            values = cells.values.astype(np.float64)
            yield np.where(cells.missing | unusable_numbers(values), np.nan, values)


def unusable_numbers(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where numbers are NaN, infinite, or beyond what a 32-bit float holds."""
    return ~(np.abs(values) <= _LARGEST)


def are_usable_numbers(values: NDArray[np.float64]) -> bool:
    """Whether none of them is (NaN is larger than anything, for NumPy)."""
    return bool(np.abs(values).max() <= _LARGEST)


def _date_parts(cells: Cells) -> Iterator[NDArray[np.float64]]:
    """In the order of DATE_PARTS; Monday is weekday 0, and elapsed days are whole ones since 1970-01-01.

    Whole days, because 32-bit floats hold them exactly; the hour says the rest.
    """
    micros = np.where(cells.missing, 0, cells.values).astype(np.int64)
    days = micros // _DAY_MICROSECONDS
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    parts = (
        dates.astype("datetime64[Y]").astype(np.int64) + 1970,
        months.astype(np.int64) % 12 + 1,
        (dates - months.astype("datetime64[D]")).astype(np.int64) + 1,
        (days + 3) % 7,
        micros % _DAY_MICROSECONDS // _HOUR_MICROSECONDS,
        days,
    )
    for part in parts:
        yield np.where(cells.missing, np.nan, part.astype(np.float64))


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _filled(column: pd.Series[Any], missing: NDArray[np.bool_], *, fill: Any, dtype: type[Any]) -> NDArray[Any]:
    if not missing.any():
        return column.to_numpy(dtype=dtype)
    values = column.to_numpy(dtype=object, copy=True)
    values[missing] = fill
    return values.astype(dtype)


def _microseconds(column: pd.Series[Any]) -> NDArray[np.int64]:
    import pandas as pd

    times = pd.to_datetime(column, utc=True).dt.tz_convert(None)
    return times.to_numpy(dtype="datetime64[us]").astype(np.int64)
