"""Times, durations, ids and free values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2

from easyml_server.domain.errors import InvalidInput, Reason

MAX_STRUCT_DEPTH = 16


def timestamp(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    """A time of the domain; None stays unset."""
    if time is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(time)
    return message


def to_time(message: timestamp_pb2.Timestamp, field: str) -> datetime:
    """A time of the contract, aware and UTC."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput.at(field, f"{field} is no time between the years 1 and 9999.") from error


def duration(seconds: float | None) -> duration_pb2.Duration | None:
    """Seconds; None stays unset."""
    if seconds is None:
        return None
    message = duration_pb2.Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def to_seconds(message: duration_pb2.Duration) -> float:
    """A duration of the contract, which can be longer than Python's."""
    return float(message.seconds) + message.nanos / 1e9


def text(identity: UUID | None) -> str:
    """An id; empty where there is none."""
    return "" if identity is None else str(identity)


def find_id(value: str) -> UUID | None:
    """An id that the contract's rules have checked; None if empty."""
    return UUID(value) if value else None


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """A JSON object."""
    message = struct_pb2.Struct()
    message.update(dict(values))
    return message


def value(content: Any) -> struct_pb2.Value:
    """A JSON value."""
    wrapped = struct_pb2.Struct()
    wrapped.update({"value": content})
    return wrapped.fields["value"]


def from_struct(message: struct_pb2.Struct, field: str) -> dict[str, Any]:
    """A JSON object in Python's types; too deep or unset values are refused."""
    return {name: _from_value(each, f"{field}.{name}", 1) for name, each in message.fields.items()}


def _from_value(message: struct_pb2.Value, field: str, depth: int) -> Any:
    if depth > MAX_STRUCT_DEPTH:
        raise InvalidInput.at(field, f"Values nest at most {MAX_STRUCT_DEPTH} deep.", Reason.MALFORMED_MESSAGE)
    match message.WhichOneof("kind"):
        case "null_value":
            return None
        case "number_value":
            return message.number_value
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "list_value":
            return [_from_value(each, field, depth + 1) for each in message.list_value.values]
        case "struct_value":
            return {
                name: _from_value(each, f"{field}.{name}", depth + 1)
                for name, each in message.struct_value.fields.items()
            }
        case _:
            raise InvalidInput.at(field, f"{field} has no value; leave it out, or say null.", Reason.MALFORMED_MESSAGE)
