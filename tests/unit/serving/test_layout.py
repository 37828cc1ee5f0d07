"""Columns prepared together are prepared as each by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.ml.prepare import Cells, encoding_of, prepare_cells
from easyml_server.serving.layout import DTYPES, Layout, RawColumn, RawTable

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[StorageType, st.SearchStrategy[Any]] = {
    StorageType.INT64: INT64,
    StorageType.DOUBLE: st.floats(),
    StorageType.STRING: st.text(max_size=5),
    StorageType.BOOL: st.booleans(),
    StorageType.TIMESTAMP: st.integers(-(2**60), 2**60),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[Signature, RawTable]:
    types = draw(st.lists(st.tuples(st.sampled_from(StorageType), st.sampled_from(ColumnKind)), min_size=1, max_size=8))
    rows = draw(st.integers(1, 4))
    inputs = tuple(SignatureColumn(f"c{i}", storage, kind, nullable=True) for i, (storage, kind) in enumerate(types))
    columns = [
        RawColumn(
            draw(st.lists(VALUES[storage], min_size=rows, max_size=rows)),
            sorted(draw(st.sets(st.integers(0, rows - 1)))),
        )
        for storage, _ in types
    ]
    return Signature(inputs, "target", StorageType.DOUBLE), RawTable(rows, columns)


def one_by_one(signature: Signature, table: RawTable) -> dict[str, Any]:
    cells = {}
    for column, (values, nulls) in zip(signature.inputs, table.columns, strict=True):
        array = np.array(values, dtype=DTYPES[column.storage_type])
        missing = np.zeros(table.rows, dtype=np.bool_)
        missing[list(nulls)] = True
        if column.storage_type is StorageType.DOUBLE:
            missing |= np.isnan(array)
        cells[column.name] = Cells(array, missing)
    return prepare_cells(cells, signature)


@settings(max_examples=300)
@given(tables())
def test_blocks_hold_what_each_column_would_be_by_itself(made: tuple[Signature, RawTable]) -> None:
    signature, table = made
    layout = Layout(signature)
    prepared: dict[str, Any] = {}
    for block, parts in layout.prepare(table):
        for number, names in enumerate(block.names):
            for name, part in zip(names, parts.values(), strict=True):
                prepared[name] = part[number * table.rows : (number + 1) * table.rows]
    expected = one_by_one(signature, table)
    assert layout.prepared_names == tuple(expected)
    assert set(prepared) == set(expected)
    for name, values in expected.items():
        assert prepared[name].dtype == values.dtype
        assert_array_equal(prepared[name], values)


@given(tables())
def test_a_block_stands_for_columns_of_its_encoding(made: tuple[Signature, RawTable]) -> None:
    signature, _ = made
    for block in Layout(signature).blocks:
        assert encoding_of(block.together.storage_type, block.together.kind) is block.encoding
        for position in block.positions:
            column = signature.inputs[position]
            assert encoding_of(column.storage_type, column.kind) is block.encoding
