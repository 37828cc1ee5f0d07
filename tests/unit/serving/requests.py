"""Builders of signatures and requests for the tests of `serving`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.models import Signature, SignatureColumn

VERSION = "00000000-0000-4000-8000-000000000001"

SIZE = SignatureColumn("size", StorageType.DOUBLE, ColumnKind.NUMERIC, nullable=True)
AGE = SignatureColumn("age", StorageType.INT64, ColumnKind.NUMERIC, nullable=False)
CITY = SignatureColumn("city", StorageType.STRING, ColumnKind.CATEGORICAL, nullable=True, categories=("Oslo", "Rome"))
MEMBER = SignatureColumn("member", StorageType.BOOL, ColumnKind.BOOLEAN, nullable=False)
SINCE = SignatureColumn("since", StorageType.TIMESTAMP, ColumnKind.DATETIME, nullable=False)
SIGNATURE = Signature((SIZE, AGE, CITY, MEMBER, SINCE), "level", StorageType.STRING, ("high", "low"), True)

A_ROW: Mapping[str, Any] = {
    "size": 1.5,
    "age": 42,
    "city": "Rome",
    "member": True,
    "since": "2024-02-29T12:00:00Z",
}


def a_row(**changes: Any) -> dict[str, Any]:
    """A row that fits, with changes."""
    return {**A_ROW, **changes}


def without(name: str) -> dict[str, Any]:
    """A row that lacks a column."""
    return {key: value for key, value in A_ROW.items() if key != name}


def rows(*rows: Mapping[str, Any]) -> pb.PredictRequest:
    """A request in rows."""
    request = pb.PredictRequest(model_version_id=VERSION, rows=table_pb2.RowTable())
    for row in rows:
        request.rows.rows.add().update(row)
    return request


def column(name: str, kind: str, values: Sequence[Any], nulls: Sequence[int] = ()) -> table_pb2.Column:
    """A typed column."""
    made = table_pb2.Column(name=name, null_positions=nulls)
    typed = getattr(made, kind)
    typed.SetInParent()
    (typed.micros if kind == "timestamps" else typed.values).extend(values)
    return made


def typed_columns(count: int = 2) -> dict[str, table_pb2.Column]:
    """Columns that fit, by name."""
    return {
        "size": column("size", "doubles", [1.5] * count),
        "age": column("age", "int64s", [42] * count),
        "city": column("city", "strings", ["Rome"] * count),
        "member": column("member", "bools", [True] * count),
        "since": column("since", "timestamps", [1_709_208_000_000_000] * count),
    }


def columns(*changed: table_pb2.Column, count: int = 2, leave_out: str = "") -> pb.PredictRequest:
    """A request in typed columns, with some changed or added."""
    all_columns = typed_columns(count) | {each.name: each for each in changed}
    all_columns.pop(leave_out, None)
    return pb.PredictRequest(model_version_id=VERSION, columns=table_pb2.ColumnTable(columns=all_columns.values()))
