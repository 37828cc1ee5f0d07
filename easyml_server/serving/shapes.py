"""One row in typed columns, read off the bytes of a request of which only the values are new.

Who asks for one prediction after the other sends the same columns in the same order. Of such a request all bytes are
known but the values and their lengths, so it is compared instead of decoded, which takes a quarter of the time. What
differs in any other byte is None here and decoded, which also finds what is wrong with it. See docs/decisions/
0028-what-a-prediction-costs.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import table_pb2
from easyml_server.serving.layout import RawRow
from easyml_server.serving.tables import TableReader

SHORT: Final = 0x80
"""Lengths below take one byte."""
LONGEST_NUMBER: Final = 8
"""Bytes of a varint; longer ones, as of negative numbers, are left to protobuf."""
LONGEST_TEXT: Final = 64
"""Bytes of a text; longer ones are hardly categories."""
Decode = Callable[[bytes], Any]

_double: Final = struct.Struct("<d").unpack


class _Heads(dict[int, bytes]):
    """How a column begins on the wire, by the length of its only value; made when a length is first seen."""

    def __init__(self, name: bytes, kind: str) -> None:
        self._name = name
        self._kind = kind

    def __missing__(self, size: int) -> bytes:
        """Raises LookupError for a length that is left to protobuf."""
        name, length = self._name, len(self._name) + size + 6
        if size not in _KINDS[self._kind].sizes or length >= SHORT:
            raise LookupError
        start = _COLUMN + bytes([length]) + _NAME + bytes([len(name)]) + name
        self[size] = head = start + _TAGS[self._kind] + bytes([size + 2]) + _VALUES + bytes([size])
        return head


class _Cell(NamedTuple):
    """Where one column's value is: its place in the signature, and how the column begins."""

    position: int
    heads: _Heads
    head_length: int
    decode: Decode


class Shape:
    """Requests that differ in the values of their only row."""

    def __init__(self, prefix: bytes, cells: Sequence[_Cell]) -> None:
        self._prefix = prefix
        self._cells = cells

    def read(self, raw: bytes) -> RawRow | None:
        """The row of a request of this shape; None if it has another."""
        if not raw.startswith(self._prefix):
            return None
        try:
            length, place = _length_at(raw, len(self._prefix))
            if place + length != len(raw):
                return None
            values: list[Any] = [None] * len(self._cells)
            for position, heads, head_length, decode in self._cells:
                start = place + head_length
                # The last byte of a head is the length of the value.
                size = raw[start - 1]
                if not raw.startswith(heads[size], place):
                    return None
                place = start + size
                values[position] = decode(raw[start:place])
        except (LookupError, ValueError, struct.error):
            return None
        return RawRow(values) if place == len(raw) else None


def shape_of(raw: bytes, request: pb.PredictRequest, reader: TableReader) -> Shape | None:
    """The shape of a request of one row that was accepted; None if it has none."""
    cells = [_cell(column, reader) for column in request.columns.columns]
    target = pb.PredictRequest()
    target.CopyFrom(request)
    target.ClearField("columns")
    shape = Shape(target.SerializeToString() + _tag(pb.PredictRequest, "columns"), [cell for cell in cells if cell])
    # What it does not read of the request that it was made of, it will not read of others.
    return shape if None not in cells and shape.read(raw) is not None else None


def _cell(column: table_pb2.Column, reader: TableReader) -> _Cell | None:
    kind = column.WhichOneof("values")
    position = reader.position(column.name, "columns")
    if kind is None or column.null_positions or not reader.takes_as_it_is(position, kind):
        return None
    name = column.name.encode()
    return _Cell(position, _Heads(name, kind), len(name) + 8, _KINDS[kind].decode)


def _length_at(raw: bytes, place: int) -> tuple[int, int]:
    """A length of one or two bytes, and where what it is of begins. Raises LookupError and ValueError."""
    first = raw[place]
    if first < SHORT:
        return first, place + 1
    if raw[place + 1] >= SHORT:
        raise ValueError("a longer one")
    return first - SHORT | raw[place + 1] << 7, place + 2


def _number(sent: bytes) -> int:
    """A varint. Raises ValueError if it is none, or more than one."""
    value = 0
    for index, byte in enumerate(sent):
        value |= (byte & 0x7F) << 7 * index
        if (byte < SHORT) != (index == len(sent) - 1):
            raise ValueError("not one number")
    return value


def _truth(sent: bytes) -> bool:
    """0 or 1. Raises ValueError."""
    if sent[0] > 1:
        raise ValueError("no truth value")
    return sent[0] == 1


def _tag(message: Any, field: str) -> bytes:
    """How a field begins whose length follows."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | 2])


class _Kind(NamedTuple):
    """How long values of a kind may be, and how they are read."""

    sizes: range
    decode: Decode


_NUMBERS: Final = _Kind(range(1, LONGEST_NUMBER + 1), _number)
_KINDS: Final[Mapping[str, _Kind]] = {
    "doubles": _Kind(range(8, 9), lambda sent: _double(sent)[0]),
    "int64s": _NUMBERS,
    "strings": _Kind(range(LONGEST_TEXT + 1), bytes.decode),
    "bools": _Kind(range(1, 2), _truth),
    "timestamps": _NUMBERS,
}
_COLUMN: Final = _tag(table_pb2.ColumnTable, "columns")
_NAME: Final = _tag(table_pb2.Column, "name")
_VALUES: Final = _tag(table_pb2.StringValues, "values")
_TAGS: Final = {kind: _tag(table_pb2.Column, kind) for kind in _KINDS}
