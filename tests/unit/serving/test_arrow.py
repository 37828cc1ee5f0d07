"""Tables in Arrow IPC: nothing in them is trusted."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.serving.layout import RawTable
from easyml_server.serving.tables import TableLimits, TableReader
from tests.unit.serving.requests import SIGNATURE

LIMITS = TableLimits(max_predict_rows=5, max_predict_cells=25)
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
NOON_MICROS = 1_709_208_000_000_000


def arrays(count: int = 2) -> dict[str, pa.Array]:
    return {
        "size": pa.array([1.5] * count),
        "age": pa.array([42] * count),
        "city": pa.array(["Rome"] * count),
        "member": pa.array([True] * count),
        "since": pa.array([NOON] * count, pa.timestamp("us", tz="UTC")),
    }


def stream(changed: Mapping[str, pa.Array] | None = None, leave_out: str = "", **options: Any) -> bytes:
    return written([batch({k: v for k, v in {**arrays(), **(changed or {})}.items() if k != leave_out})], **options)


def batch(columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def written(batches: list[pa.RecordBatch], schema: pa.Schema | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink,
        batches[0].schema if schema is None else schema,
        options=pa.ipc.IpcWriteOptions(**options) if options else None,
    ) as writer:
        for each in batches:
            writer.write_batch(each)
    return bytes(sink.getvalue())


def read(sent: bytes) -> RawTable:
    return TableReader(SIGNATURE, LIMITS).read(pb.PredictRequest(arrow=sent))


def refused(sent: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read(sent)
    assert caught.value.violations[0].field == "arrow" if caught.value.violations else caught.value.metadata["limit"]
    return caught.value


def column_of(table: RawTable, name: str) -> tuple[list[Any], list[int]]:
    position = [each.name for each in SIGNATURE.inputs].index(name)
    values, nulls = table.columns[position]
    return list(values), list(nulls)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_batch_is_refused(codec: str) -> None:
    error = refused(stream(compression=codec))
    assert error.reason is Reason.MALFORMED_MESSAGE
    assert "compressed" in error.message


def test_dictionaries_are_refused() -> None:
    error = refused(stream({"city": pa.array(["Rome", "Oslo"]).dictionary_encode()}))
    assert error.reason is Reason.WRONG_COLUMN_TYPE


@pytest.mark.parametrize("sent", [b"", b"\x00", b"not arrow at all", b"\xff" * 64, written([], pa.schema([]))])
def test_what_is_no_stream_is_refused(sent: bytes) -> None:
    assert refused(sent).reason is Reason.MALFORMED_MESSAGE


def test_a_stream_has_one_batch() -> None:
    one = batch(arrays())
    for batches in ([], [one, one]):
        assert refused(written(batches, one.schema)).reason is Reason.MALFORMED_MESSAGE


def test_a_batch_without_rows_is_refused() -> None:
    assert "no rows" in refused(written([batch(arrays(0))])).message


def test_extension_types_are_refused() -> None:
    metadata = {b"ARROW:extension:name": b"some.type", b"ARROW:extension:metadata": b""}
    columns = arrays()
    fields = [pa.field(name, array.type) for name, array in columns.items()]
    fields[1] = fields[1].with_metadata(metadata)
    made = pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))
    assert refused(written([made])).reason is Reason.WRONG_COLUMN_TYPE
    bools = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))
    assert refused(stream({"member": bools})).reason is Reason.WRONG_COLUMN_TYPE


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([b"1", b"2"]),
        pa.array(["1", "2"]),
        pa.array(["1", "2"], pa.string_view()),
        pa.array([1.5, 2.5]),
        pa.array([True, False]),
        pa.array([1, 2], pa.duration("s")),
        pa.array([1, 2], pa.decimal128(5)),
        pa.array([2**63, 1], pa.uint64()),
        pa.array([NOON, NOON]),
        pa.RunEndEncodedArray.from_arrays([2], [1]),
    ],
    ids=lambda array: str(array.type),
)
def test_other_types_are_refused_by_name(array: pa.Array) -> None:
    error = refused(stream({"age": array}))
    assert error.reason is Reason.WRONG_COLUMN_TYPE
    assert error.metadata["column"] == "age"


def test_columns_are_checked_as_in_the_other_forms() -> None:
    assert refused(stream({"beak": pa.array([1, 2])})).reason is Reason.UNKNOWN_COLUMN
    assert refused(stream(leave_out="age")).reason is Reason.MISSING_COLUMN
    twice = pa.RecordBatch.from_arrays([*arrays().values(), pa.array([1, 2])], names=[*arrays(), "age"])
    assert "twice" in refused(written([twice])).message


def test_limits_hold() -> None:
    error = refused(written([batch(arrays(6))]))
    assert error.metadata == {"limit": "EASYML_MAX_PREDICT_ROWS", "maximum": "5"}


@pytest.mark.parametrize("rows", [3, 5, 2**40, -1])
def test_a_batch_that_lies_about_its_rows_is_refused(rows: int) -> None:
    sent = stream()
    length = struct.pack("<q", 2)
    places = [i for i in range(len(sent) - 8) if sent[i : i + 8] == length]
    assert places
    changed = 0
    for place in places:
        lie = sent[:place] + struct.pack("<q", rows) + sent[place + 8 :]
        try:
            table = read(lie)
        except InvalidInput:
            changed += 1
        else:
            assert all(len(values) == table.rows for values, _ in table.columns)
    assert changed


@pytest.mark.parametrize(
    ("name", "array", "values", "nulls"),
    [
        ("size", pa.array([1.5, None], pa.float32()), [1.5, 0.0], [1]),
        ("size", pa.array([1, 2], pa.uint8()), [1, 2], []),
        ("size", pa.nulls(2), [0.0, 0.0], [0, 1]),
        ("age", pa.array([7, None], pa.int16()), [7, 0], [1]),
        ("age", pa.array([7.0, 8.0]), [7, 8], []),
        ("age", pa.array([7, 8], pa.uint64()), [7, 8], []),
        ("city", pa.array(["Łódź", None], pa.large_string()), ["Łódź", ""], [1]),
        ("member", pa.array([False, None]), [False, False], [1]),
        ("since", pa.array([NOON, None], pa.timestamp("s")), [NOON_MICROS, 0], [1]),
        ("since", pa.array([NOON, NOON], pa.timestamp("ns", tz="+02:00")), [NOON_MICROS, NOON_MICROS], []),
        ("since", pa.array([date(1970, 1, 2), date(1969, 12, 31)]), [86_400_000_000, -86_400_000_000], []),
        ("since", pa.array([date(1970, 1, 2), None], pa.date64()), [86_400_000_000, 0], [1]),
    ],
)
def test_plain_types_are_taken(name: str, array: pa.Array, values: list[Any], nulls: list[int]) -> None:
    table = read(stream({name: array}))
    assert table.rows == 2
    assert column_of(table, name) == (values, nulls)


def test_times_beyond_64_bits_are_refused() -> None:
    far = pa.array([2**62, 0]).cast(pa.timestamp("s"))
    assert refused(stream({"since": far})).reason is Reason.WRONG_COLUMN_TYPE


def test_a_slice_is_what_it_shows() -> None:
    whole = batch(arrays(5) | {"age": pa.array([1, 2, 3, 4, 5])})
    table = read(written([whole.slice(2, 2)]))
    assert column_of(table, "age") == ([3, 4], [])


def test_text_that_is_not_utf_8_is_refused() -> None:
    sent = stream({"city": pa.array(["RomeRome", "Oslo"])})
    assert refused(sent.replace(b"RomeRome", b"Rome\xff\xfe\xff\xff")).reason is Reason.MALFORMED_MESSAGE


def test_a_stream_cut_anywhere_is_refused_or_whole() -> None:
    sent = stream()
    for length in range(len(sent)):
        try:
            assert read(sent[:length]).rows == 2
        except InvalidInput:
            continue


def test_mutations_are_refused_or_read() -> None:
    rng = random.Random(20_240_229)
    streams = [stream(), stream({"city": pa.array([None, "Oslo"]), "age": pa.nulls(2)})]
    for _ in range(600):
        sent = bytearray(rng.choice(streams))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(sent))
            sent[place] = rng.choice([0, 0xFF, 0x7F, 0x80, rng.randrange(256)])
        try:
            table = read(bytes(sent))
        except InvalidInput:
            continue
        assert all(len(values) == table.rows for values, _ in table.columns)
