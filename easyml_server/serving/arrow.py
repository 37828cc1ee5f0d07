"""Reads a table from Arrow IPC, trusting nothing in it.

Before a batch is touched its header is looked at: a compressed one unpacks to thirty thousand times its size, and one
that says more rows than there are crashes whoever reads a cell. Only flat types are taken, and only one batch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.models import SignatureColumn
from easyml_server.serving import faults
from easyml_server.serving.layout import RawColumn, RawTable
from easyml_server.serving.tables import LARGEST_INT64, PLACEHOLDERS, SMALLEST_INT64, Elsewhere, TableReader, accept

FIELD: Final = "arrow"
_PLACE: Final = Elsewhere(FIELD)
_EXTENSION: Final = b"ARROW:extension:name"
_DAY_MICROSECONDS: Final = 86_400_000_000
# Microseconds as a multiple of the unit, or the unit of microseconds: (times, divided by).
_UNITS: Final = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
_DAMAGED: Final = (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, struct.error)

# Where flatbuffers keep what is needed here: the numbers of fields in the tables Message and RecordBatch.
_MESSAGE_HEADER: Final = 2
_BATCH_LENGTH: Final = 0
_BATCH_COMPRESSION: Final = 3


def read_arrow(sent: bytes, reader: TableReader) -> RawTable:
    """The table in an IPC stream of one batch. Raises InvalidInput."""
    try:
        return _read(sent, reader)
    except _DAMAGED as error:
        raise _refused("cannot be read") from error


def _read(sent: bytes, reader: TableReader) -> RawTable:
    messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(sent))
    first = _next(messages)
    if first is None or first.type != "schema":
        raise _refused("does not begin with a schema")
    schema = pa.ipc.read_schema(first)
    positions = list(_positions(schema, reader))
    message = _next(messages)
    if message is None or message.type != "record batch":
        raise _refused("must hold its schema and then one record batch, without dictionaries")
    rows = _check_header(bytes(message.metadata))
    reader.check_size(rows, FIELD)
    if _next(messages) is not None:
        raise _refused("must hold one record batch")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    if batch.num_rows != rows:
        raise _refused("cannot be read")
    columns: list[RawColumn | None] = [None] * len(reader.columns)
    for position, array in zip(positions, batch.columns, strict=True):
        columns[position] = _column(reader.columns[position], array)
    return RawTable(rows, reader.complete(columns, FIELD))


def _next(messages: Any) -> Any:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _positions(schema: pa.Schema, reader: TableReader) -> Iterator[int]:
    """Where the columns stand in the signature, each there once and of a plain type."""
    seen: set[int] = set()
    for field in schema:
        position = reader.position(field.name, FIELD)
        if position in seen:
            raise InvalidInput.at(FIELD, f"Column {faults.quoted(field.name)} is there twice; send it once.")
        seen.add(position)
        if _EXTENSION in (field.metadata or {}) or (_kind(field.type) is None and not pa.types.is_null(field.type)):
            raise faults.wrong_type(reader.columns[position], FIELD, "a column of an Arrow type that is not taken")
        yield position


def _kind(type: pa.DataType) -> str | None:
    """The name of the typed column that an Arrow type stands for."""
    if pa.types.is_integer(type):
        return "int64s"
    if pa.types.is_floating(type):
        return "doubles"
    if pa.types.is_string(type) or pa.types.is_large_string(type):
        return "strings"
    if pa.types.is_boolean(type):
        return "bools"
    if pa.types.is_timestamp(type) or pa.types.is_date(type):
        return "timestamps"
    return None


def _column(column: SignatureColumn, array: pa.Array) -> RawColumn:
    placeholder = PLACEHOLDERS[column.storage_type]
    kind = _kind(array.type)
    if kind is None:
        return RawColumn([placeholder] * len(array), range(len(array)))
    cells = _cells(array, kind)
    nulls = [row for row, cell in enumerate(cells) if cell is None]
    values = [placeholder if cell is None else cell for cell in cells] if nulls else cells
    _check_range(column, kind, values)
    return accept(column, kind, values, nulls, _PLACE)


def _cells(array: pa.Array, kind: str) -> list[Any]:
    if kind == "doubles":
        return list(array.cast(pa.float64()).to_pylist())
    if kind != "timestamps":
        return list(array.to_pylist())
    times, divided_by = _unit(array.type)
    whole = array.cast(pa.int32()) if pa.types.is_date32(array.type) else array
    numbers = whole.cast(pa.int64()).to_pylist()
    return [None if number is None else number * times // divided_by for number in numbers]


def _unit(type: pa.DataType) -> tuple[int, int]:
    if pa.types.is_date32(type):
        return _DAY_MICROSECONDS, 1
    return _UNITS["ms"] if pa.types.is_date64(type) else _UNITS[type.unit]


def _check_range(column: SignatureColumn, kind: str, values: Sequence[Any]) -> None:
    """Whole numbers without a sign, and seconds, reach beyond 64 bits with one."""
    if kind not in ("int64s", "timestamps"):
        return
    for row, value in enumerate(values):
        if not SMALLEST_INT64 <= value <= LARGEST_INT64:
            raise faults.wrong_type(column, FIELD, "a number that is too large", row)


def _check_header(metadata: bytes) -> int:
    """The rows a batch says it has; refuses a compressed one."""
    message = struct.unpack_from("<I", metadata)[0]
    header = _field(metadata, message, _MESSAGE_HEADER)
    if header is None:
        raise _refused("cannot be read")
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    if _field(metadata, batch, _BATCH_COMPRESSION) is not None:
        raise _refused("is compressed; send it uncompressed")
    length = _field(metadata, batch, _BATCH_LENGTH)
    return 0 if length is None else int(struct.unpack_from("<q", metadata, length)[0])


def _field(metadata: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffers table lies, if it is there; the library has verified the offsets."""
    fields = table - struct.unpack_from("<i", metadata, table)[0]
    entry = 4 + 2 * number
    if fields < 0 or entry >= struct.unpack_from("<H", metadata, fields)[0]:
        return None
    offset = struct.unpack_from("<H", metadata, fields + entry)[0]
    return table + offset if offset else None


def _refused(what: str) -> InvalidInput:
    return faults.malformed(f"The Arrow stream {what}.", FIELD)
