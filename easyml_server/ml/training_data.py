"""The rows a training works on: those with a target, their weights, and how a few of them look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from easyml_server.domain.datasets import ColumnSchema, StorageType, TableSchema
from easyml_server.domain.experiments import FailureReason, TrainingSpec, TrainingWarning, TrainingWarningKind
from easyml_server.domain.models import SignatureColumn
from easyml_server.domain.training import TrainingJob
from easyml_server.ml.features import Warn
from easyml_server.ml.frames import read_frame
from easyml_server.ml.prepare import Cells, cells_of, texts_of
from easyml_server.ml.refusal import Refused
from easyml_server.ml.splits import check_row_count
from easyml_server.ml.target import Target, target_of

_EXAMPLE_ROWS: Final = 5


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Rows that have a target; `numbers` are row numbers of the table, positions elsewhere refer to these rows."""

    numbers: NDArray[np.int64]
    cells: Mapping[str, Cells]
    target: Target
    weights: NDArray[np.float64] | None


def load_data(job: TrainingJob, warn: Warn) -> TrainingData:
    """Read the columns that the training needs. Raises Refused when target or weights do not do."""
    spec = job.spec
    columns = {name: column_of(job.schema, name) for name in _needed(spec)}
    frame = read_frame(job.table_path, list(columns))
    answered = frame[spec.target].notna().to_numpy(dtype=bool)
    missing = int((~answered).sum())
    if missing:
        message = f"{missing:,} of {len(frame):,} rows have no target and were left out."
        warn(TrainingWarning(TrainingWarningKind.ROWS_WITHOUT_TARGET, spec.target, message))
    check_row_count(len(frame) - missing)
    frame = frame[answered]
    cells = {name: cells_of(frame[name], column.storage_type) for name, column in columns.items()}
    target = target_of(cells[spec.target], columns[spec.target].storage_type, spec.task)
    name = spec.objective.weight_column
    weights = _row_weights(cells[name], columns[name]) if name else None
    return TrainingData(np.flatnonzero(answered).astype(np.int64), cells, target, weights)


def column_of(schema: TableSchema, name: str) -> ColumnSchema:
    """The column of that name. Raises Refused."""
    column = schema.find(name)
    if column is None:
        raise Refused(FailureReason.FIT_REFUSED, f"The table has no column {name!r}; name one that it has.")
    return column


def input_example(
    data: TrainingData, inputs: tuple[SignatureColumn, ...], train: NDArray[np.int64]
) -> tuple[Mapping[str, Any], ...]:
    """A few training rows as JSON has them: times as text, and null for what is missing or infinite.

    They are spread over the table, since files are often sorted and the first rows much alike.
    """
    spread = np.linspace(0, len(train) - 1, min(_EXAMPLE_ROWS, len(train))).astype(np.int64)
    rows = np.sort(train)[spread]
    columns = {column.name: _plain_values(data.cells[column.name], column.storage_type, rows) for column in inputs}
    return tuple({name: values[i] for name, values in columns.items()} for i in range(len(rows)))


def _needed(spec: TrainingSpec) -> list[str]:
    optional = [name for name in (spec.objective.weight_column, spec.split.column) if name]
    return list(dict.fromkeys([*spec.features, spec.target, *optional]))


def _row_weights(cells: Cells, column: ColumnSchema) -> NDArray[np.float64]:
    if column.storage_type not in (StorageType.INT64, StorageType.DOUBLE):
        raise Refused(
            FailureReason.FIT_REFUSED, f"The weight column {column.name!r} holds no numbers; name one that does."
        )
    weights = cells.values.astype(np.float64)
    wrong = int((cells.missing | ~np.isfinite(weights) | (weights < 0)).sum())
    if wrong:
        raise Refused(
            FailureReason.FIT_REFUSED,
            f"{wrong:,} rows have no weight, or a negative or infinite one, in column {column.name!r}; correct them.",
        )
    return weights


def _plain_values(cells: Cells, storage_type: StorageType, rows: NDArray[np.int64]) -> list[Any]:
    some = Cells(cells.values[rows], cells.missing[rows])
    is_time = storage_type is StorageType.TIMESTAMP
    values = texts_of(some, storage_type).tolist() if is_time else some.values.tolist()
    missing = some.missing | ~np.isfinite(some.values) if some.values.dtype.kind == "f" else some.missing
    return [None if absent else value for value, absent in zip(values, missing, strict=True)]
