"""Plain Python values for what protobuf has messages and numbers for."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from easyml_client.errors import InvalidInput

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def is_id(text: str) -> bool:
    """Whether a text is an id (a UUID) rather than a name."""
    return _UUID.fullmatch(text) is not None


def enum_word(descriptor: EnumDescriptor, number: int) -> str | None:
    """The value as a lower-case word without its enum's prefix: "running".

    None for 0; a value that only a later server knows stays a number.
    """
    if number == 0:
        return None
    value = descriptor.values_by_number.get(number)
    return value.name[len(_prefix(descriptor)) :].lower() if value else str(number)


def enum_number(field: str, enum: Any, word: str | None) -> Any:
    """The number of a word; 0 for None. Unknown words are InvalidInput at `field`, and the answer lists the known."""
    if not word:
        return 0
    descriptor: EnumDescriptor = enum.DESCRIPTOR
    name = _prefix(descriptor) + word.upper().replace("-", "_")
    if name in descriptor.values_by_name:
        return descriptor.values_by_name[name].number
    known = [w for v in descriptor.values if (w := enum_word(descriptor, v.number))]
    raise InvalidInput.at(field, misspelt(field, word, known))


def misspelt(what: str, word: str, known: Sequence[str]) -> str:
    """The sentence for a word that is none of those known: did you mean, or which there are."""
    close = difflib.get_close_matches(word.lower(), known, n=1)
    if close:
        return f"{word!r} is no {what}; did you mean {close[0]!r}?"
    return f"{word!r} is no {what}; choose one of {', '.join(known)}."


def _prefix(descriptor: EnumDescriptor) -> str:
    """The contract names the zero value <PREFIX>UNSPECIFIED."""
    return descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")


def from_timestamp(message: Timestamp) -> dt.datetime:
    """An aware datetime, in UTC."""
    return message.ToDatetime(tzinfo=dt.UTC)


def to_timestamp(moment: dt.datetime) -> Timestamp:
    """A naive datetime counts as UTC."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def to_duration(length: dt.timedelta | float) -> Duration:
    """A number counts as seconds."""
    message = Duration()
    message.FromTimedelta(length if isinstance(length, dt.timedelta) else dt.timedelta(seconds=length))
    return message


def to_micros(moment: dt.date) -> int:
    """Microseconds since 1970 in UTC; a date is its midnight, a naive datetime counts as UTC."""
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime(moment.year, moment.month, moment.day, tzinfo=dt.UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def from_micros(micros: int) -> dt.datetime:
    """An aware datetime, in UTC."""
    return EPOCH + dt.timedelta(microseconds=micros)


def to_struct(values: Mapping[str, Any]) -> Struct:
    """Numbers, texts, booleans, None, lists and mappings of these; tuples count as lists."""
    message = Struct()
    for name, value in values.items():
        message.fields[name].CopyFrom(to_value(name, value))
    return message


def to_value(name: str, value: Any) -> Value:
    """One JSON value; other types are InvalidInput at `name`."""
    match value:
        case None:
            return Value(null_value=0)  # type: ignore[arg-type]  # the stubs want the enum's name for its only number
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=_exact(name, value))
        case str():
            return Value(string_value=value)
        case Mapping():
            return Value(struct_value=to_struct(value))
        case list() | tuple():
            return Value(list_value=ListValue(values=[to_value(name, item) for item in value]))
    raise InvalidInput.at(name, f"{name} is a {type(value).__name__}; numbers, texts, booleans and lists can be sent.")


def _exact(name: str, number: float) -> float:
    """JSON numbers are doubles: a whole number that would come out as another one is refused."""
    if isinstance(number, int) and (abs(number) > 1 << 1023 or int(float(number)) != number):
        raise InvalidInput.at(name, f"{name} is too large to be sent as a JSON number; use typed columns for it.")
    return float(number)


def from_struct(message: Struct) -> dict[str, Any]:
    """A dict; see `from_value`."""
    return {name: from_value(value) for name, value in message.fields.items()}


def from_value(message: Value) -> Any:
    """One JSON value; whole numbers come back as int, which is what was meant by `n_estimators: 100`."""
    match message.WhichOneof("kind"):
        case "number_value":
            number = message.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return from_struct(message.struct_value)
        case "list_value":
            return [from_value(item) for item in message.list_value.values]
    return None
