"""The rules of the contract, enforced once for every call."""

from __future__ import annotations

from collections.abc import Iterable

import protovalidate
from google.protobuf.message import Message

from easyml_server.domain.errors import InvalidInput, Reason, Violation


class Validator:
    """Checks messages against the protovalidate rules in their descriptors."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()

    def warm(self, types: Iterable[type[Message]]) -> None:
        """Compile the rules of these types before the first call needs them."""
        for each in types:
            self._validator.collect_violations(each())

    def check(self, message: Message) -> None:
        """Raise InvalidInput that names each field at fault."""
        named = self.violations(message)
        if not named:
            return
        first = named[0]
        raise InvalidInput(f"{first.field}: {first.description}.", Reason.INVALID_FIELD, violations=named)

    def violations(self, message: Message) -> list[Violation]:
        """Each field at fault."""
        found = self._validator.collect_violations(message)
        return [Violation(_path(violation), violation.proto.message) for violation in found]


def _path(violation: protovalidate.Violation) -> str:
    """`labels["team"]`, `spec.features[2]`; empty for a rule of the whole message."""
    field = violation.proto.field
    parts: list[str] = []
    for element in field.elements if field is not None else ():
        part, subscript = element.field_name, element.subscript
        if subscript is not None:
            key = subscript.value
            part += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
        parts.append(part)
    return ".".join(parts)
