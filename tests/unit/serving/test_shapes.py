"""What is read off the bytes of a request is what decoding it says, whatever the bytes are."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.serving.layout import RawRow
from easyml_server.serving.shapes import LONGEST_TEXT, Shape, shape_of
from easyml_server.serving.tables import TableLimits, TableReader
from tests.unit.serving.requests import SIGNATURE, column, columns

READER = TableReader(SIGNATURE, TableLimits())


def request(
    size: float = 1.5, age: int = 42, city: str = "Rome", member: bool = True, since: int = 1_709_208_000_000_000
) -> bytes:
    made = columns(
        column("size", "doubles", [size]),
        column("age", "int64s", [age]),
        column("city", "strings", [city]),
        column("member", "bools", [member]),
        column("since", "timestamps", [since]),
        count=1,
    )
    return made.SerializeToString()


def shape(raw: bytes) -> Shape | None:
    return shape_of(raw, pb.PredictRequest.FromString(raw), READER)


KNOWN = shape(request())
assert KNOWN is not None


def decoded(raw: bytes) -> list[Any]:
    """The only row, as protobuf and the reader have it."""
    message = pb.PredictRequest.FromString(raw)
    assert message.model_version_id == pb.PredictRequest.FromString(request()).model_version_id
    table = READER.read(message)
    assert table.rows == 1
    assert not any(each.nulls for each in table.columns)
    return [each.values[0] for each in table.columns]


def bits(row: Any) -> list[Any]:
    """NaN included."""
    return [struct.pack("<d", value) if isinstance(value, float) else value for value in row]


@given(
    size=st.floats(),
    age=st.integers(-(2**63), 2**63 - 1),
    city=st.text(max_size=120),
    member=st.booleans(),
    since=st.integers(0, 2**53),
)
@example(size=0.0, age=0, city="", member=False, since=0)
@example(size=0.0, age=2**56 - 1, city="x" * LONGEST_TEXT, member=False, since=0)
@example(size=0.0, age=0, city="x" * (LONGEST_TEXT + 1), member=False, since=0)
@example(size=0.0, age=2**56, city="Łódź", member=False, since=0)
def test_other_values_are_read_as_decoding_has_them(size: float, age: int, city: str, member: bool, since: int) -> None:
    raw = request(size, age, city, member, since)
    row = KNOWN.read(raw)
    if row is not None:
        assert bits(row.values) == bits(decoded(raw))
    # Only long numbers and long texts are left to protobuf.
    assert (row is not None) == (0 <= age < 2**56 and len(city.encode()) <= LONGEST_TEXT)


@given(place=st.integers(0, len(request()) - 1), byte=st.integers(0, 255))
def test_a_request_with_another_byte_is_left_to_protobuf_or_read_alike(place: int, byte: int) -> None:
    raw = bytearray(request())
    raw[place] = byte
    row = KNOWN.read(bytes(raw))
    if row is not None:
        assert bits(row.values) == bits(decoded(bytes(raw)))


@given(st.binary(max_size=12), st.integers(0, len(request())), st.integers(0, 12))
def test_a_request_with_other_bytes_in_between_is_left_to_protobuf_or_read_alike(
    more: bytes, place: int, fewer: int
) -> None:
    raw = request()[:place] + more + request()[place + fewer :]
    row = KNOWN.read(raw)
    if row is not None:
        assert bits(row.values) == bits(decoded(raw))


@pytest.mark.parametrize("sent", [b"\x02", b"\x82\x01", b""])
def test_what_is_no_truth_value_is_left_to_protobuf(sent: bytes) -> None:
    raw = request().replace(b"member*\x03\x0a\x01\x01", b"member*" + bytes([2 + len(sent), 0x0A, len(sent)]) + sent)
    assert raw != request()
    assert KNOWN.read(raw) is None


def test_two_numbers_are_no_long_one() -> None:
    raw = request(age=300)
    assert KNOWN.read(raw) is not None
    assert KNOWN.read(raw.replace(b"\x0a\x02\xac\x02", b"\x0a\x02\x2c\x02")) is None


def test_columns_come_in_any_order() -> None:
    message = pb.PredictRequest.FromString(request())
    turned = pb.PredictRequest(model_version_id=message.model_version_id)
    turned.columns.columns.extend(reversed(message.columns.columns))
    raw = turned.SerializeToString()
    known = shape(raw)
    assert known is not None
    assert known.read(raw) == RawRow(decoded(raw))
    assert known.read(request()) is None


@pytest.mark.parametrize(
    "changed",
    [
        column("size", "doubles", [0.0], nulls=[0]),
        column("age", "doubles", [42.0]),
        column("city", "strings", ["x" * 200]),
    ],
    ids=["a gap", "values that are converted", "a long text"],
)
def test_requests_without_a_shape_are_always_decoded(changed: Any) -> None:
    assert shape(columns(changed, count=1).SerializeToString()) is None
