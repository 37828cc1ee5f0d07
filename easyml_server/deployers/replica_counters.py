"""What a replica has counted, read where Prometheus would read it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode
from uuid import UUID

from easyml_server.domain.counters import Counters, Histogram, ReplicaCounters

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

ANSWER_SECONDS: Final = 1.0
MAX_BYTES: Final = 1 << 20

HANDLED: Final = "grpc_server_handled_total"
SECONDS: Final = "grpc_server_handling_seconds_bucket"
ANSWERED: Final = "easyml_model_run_requests_sum"
RUNS: Final = "easyml_model_run_requests_count"
ROWS: Final = "easyml_model_rows_total"
CPU_SECONDS: Final = "process_cpu_seconds_total"
RESIDENT_BYTES: Final = "process_resident_memory_bytes"
START_TIME: Final = "process_start_time_seconds"
CALL_SECONDS: Final = "easyml_call_seconds_total"
NAMES: Final = (HANDLED, SECONDS, ANSWERED, RUNS, ROWS, CPU_SECONDS, RESIDENT_BYTES, START_TIME)

UNARY: Final = frozenset({"Predict", "ModelInfer"})
"""Methods with one question, whose time is a latency; that of a stream is how long it was kept open."""
ASKING: Final = frozenset({*UNARY, "StreamPredict", "ModelStreamInfer"})
"""Methods that ask a model; the others ask for metadata."""
_OF_METHOD: Final = 'grpc_method="'


class Unreadable(Exception):
    """A replica did not tell what it counts."""


async def read_counters(replica_id: UUID, address: str) -> ReplicaCounters:
    """Ask a replica. Raises Unreadable."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            text = await _get(address, NAMES)
        return parse_counters(replica_id, text)
    except (OSError, ValueError, KeyError) as error:
        raise Unreadable(f"{address}: {type(error).__name__}") from error


async def counters_at(endpoints: Mapping[UUID, str]) -> Sequence[ReplicaCounters]:
    """Ask replicas by where each tells; those that do not are left out."""
    asked = (read_counters(identity, address) for identity, address in endpoints.items())
    told = await asyncio.gather(*asked, return_exceptions=True)
    return [counters for counters in told if isinstance(counters, ReplicaCounters)]


async def read_call_seconds(address: str) -> float:
    """Ask a replica for the seconds of its calls that ask a model alone. Raises Unreadable."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            text = await _get(address, [CALL_SECONDS])
        return _sums(_samples(text))[CALL_SECONDS]
    except (OSError, ValueError, KeyError) as error:
        raise Unreadable(f"{address}: {type(error).__name__}") from error


def parse_counters(replica_id: UUID, text: str) -> ReplicaCounters:
    """From Prometheus' text format. Raises ValueError, and KeyError where something is missing."""
    samples = _samples(text)
    sums = _sums(samples)
    counters = Counters(
        calls=_calls(samples),
        latency=_latency(samples),
        answered=int(sums.get(ANSWERED, 0)),
        runs=int(sums.get(RUNS, 0)),
        rows=int(sums.get(ROWS, 0)),
        cpu_seconds=sums[CPU_SECONDS],
    )
    started = datetime.fromtimestamp(sums[START_TIME], UTC)
    return ReplicaCounters(replica_id, started, counters, int(sums[RESIDENT_BYTES]))


def _samples(text: str) -> Sequence[Sample]:
    # Not before there is a replica to ask: the start of a server is shorter without.
    from prometheus_client.parser import text_string_to_metric_families

    wanted = "\n".join(line for line in text.splitlines() if _is_wanted(line))
    return [sample for family in text_string_to_metric_families(wanted + "\n") for sample in family.samples]


def _is_wanted(line: str) -> bool:
    if not line or line.startswith("#"):
        return False
    _, of_method, rest = line.partition(_OF_METHOD)
    return not of_method or rest.partition('"')[0] in ASKING


def _sums(samples: Iterable[Sample]) -> Mapping[str, float]:
    """Of each name, over all models."""
    sums: dict[str, float] = {}
    for sample in samples:
        sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def _calls(samples: Iterable[Sample]) -> Mapping[str, int]:
    calls: dict[str, int] = {}
    for sample in samples:
        if sample.name == HANDLED:
            code = sample.labels["grpc_code"]
            calls[code] = calls.get(code, 0) + int(sample.value)
    return calls


def _latency(samples: Iterable[Sample]) -> Histogram:
    counts: dict[float, int] = {}
    for sample in samples:
        if sample.name == SECONDS and sample.labels["grpc_method"] in UNARY:
            bound = float(sample.labels["le"])
            counts[bound] = counts.get(bound, 0) + int(sample.value)
    bounds = _kept_once(tuple(sorted(counts)))
    return Histogram(bounds, tuple(counts[bound] for bound in bounds))


@lru_cache(maxsize=16)
def _kept_once(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """The bounds, which are the same in hundreds of readings of each replica."""
    return bounds


async def _get(address: str, names: Sequence[str]) -> str:
    """The answer to one request; HTTP/1.0, so that it ends with the connection."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        query = urlencode([("name[]", name) for name in names])
        writer.write(f"GET /metrics?{query} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        answer = await _all(reader)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(maxsplit=2)[1:2] != [b"200"]:
        raise ValueError("it did not answer 200")
    return body.decode()


async def _all(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while part := await reader.read(MAX_BYTES):
        answer += part
        if len(answer) > MAX_BYTES:
            raise ValueError("its answer is too long")
    return bytes(answer)
