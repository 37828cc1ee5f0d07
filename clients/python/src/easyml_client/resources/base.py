"""How a message of the contract becomes a frozen dataclass.

A resource declares the fields it shows, by the names they have in the contract; `of` fills them by their types. So
there is no hand-written mapping that could drift, and a test compares both sides.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar, dataclass_transform

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from easyml_client import values

M = TypeVar("M", bound=Message)
Reader = Callable[[Message], Any]

_WELL_KNOWN: Mapping[str, Callable[[Any], Any]] = {
    Timestamp.DESCRIPTOR.full_name: values.from_timestamp,
    Duration.DESCRIPTOR.full_name: lambda message: message.ToTimedelta(),
    Struct.DESCRIPTOR.full_name: values.from_struct,
    Value.DESCRIPTOR.full_name: values.from_value,
}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Resource(Generic[M]):
    """A message in plain Python values: enum words, datetimes, tuples, dicts, None for what is not set.

    `proto` is the message itself, for what is not shown.
    """

    by_message: ClassVar[dict[str, type[Resource[Any]]]] = {}
    message_type: ClassVar[type[Message]]

    def __init_subclass__(cls) -> None:
        """Freezes the class, and remembers which message it is for."""
        for base in cls.__dict__.get("__orig_bases__", ()):
            arguments = typing.get_args(base)
            if arguments and isinstance(arguments[0], type) and issubclass(arguments[0], Message):
                cls.message_type = arguments[0]
                Resource.by_message.setdefault(cls.message_type.DESCRIPTOR.full_name, cls)
        dataclasses.dataclass(frozen=True)(cls)

    @property
    def proto(self) -> M:
        """The message this was made of."""
        message: M = self.__dict__["_proto"]
        return message

    @classmethod
    def of(cls, message: M) -> Self:
        """The message in plain values."""
        readers = _readers(cls)  # type: ignore[arg-type]  # a class is hashable
        resource = cls(**{name: read(message) for name, read in readers.items()})
        resource.__dict__["_proto"] = message
        return resource

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain dicts and lists; times are RFC 3339 texts, lengths of time are seconds."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case Resource():
            return value.to_dict()
        case dt.datetime():
            return value.isoformat().replace("+00:00", "Z")
        case dt.timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


@functools.cache
def _readers(cls: type[Resource[Any]]) -> dict[str, Reader]:
    hints = typing.get_type_hints(cls)
    descriptors = cls.message_type.DESCRIPTOR.fields_by_name
    return {
        field.name: _reader(descriptors[field.name], optional=type(None) in typing.get_args(hints[field.name]))
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name in descriptors
    }


def _reader(field: Any, *, optional: bool) -> Reader:
    name, one = field.name, _one_value(field)
    if _is_map(field):
        value_of = _one_value(field.message_type.fields_by_name["value"])
        return lambda message: {key: value_of(value) for key, value in sorted(getattr(message, name).items())}
    if field.is_repeated:
        return lambda message: tuple(one(item) for item in getattr(message, name))
    if field.has_presence:
        return lambda message: one(getattr(message, name)) if message.HasField(name) else None
    if optional:
        return lambda message: one(getattr(message, name)) or None
    return lambda message: one(getattr(message, name))


def _is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _one_value(field: Any) -> Callable[[Any], Any]:
    """How one value of the field is read; nested resources are looked up late, so their order does not matter."""
    if field.enum_type is not None:
        descriptor = field.enum_type
        return lambda number: values.enum_word(descriptor, number)
    if field.message_type is None:
        return lambda value: value
    full_name = field.message_type.full_name
    return _WELL_KNOWN.get(full_name) or (
        lambda message: Resource.by_message[full_name].of(message)  # noqa: PLW0108 - looked up late on purpose
    )
