"""Bodies of documents in forms that JSONB and BSON hold without loss, so that every engine gives back the same.

JSON has no NaN and no infinity, and JSONB makes 1e+300 an integer and -0.0 a zero. BSON has no integers beyond 64 bits,
and servers differ in what they think of dots and dollars in keys. What one of them cannot hold becomes an object with
one key that begins with a percent sign, which is escaped in all other keys. What no engine could hold alike is refused
by all of them: NUL, halves of characters, nesting and sizes beyond BSON's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from easyml_server.domain.errors import InvalidInput, Reason

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024 - 1024
"""MongoDB's limit, less what stands around the body."""
MAX_DEPTH = 64
EXACT_FROM = 1e16
"""From here on JSONB writes a whole float as an integer."""
INT32, INT64 = 1 << 31, 1 << 63
FLOAT, INT = "%float", "%int"
LEAVES = (str, int, float, type(None))

Body = Mapping[str, Any]


def for_json(value: Any) -> Any:
    """The form for JSON columns."""
    return _mapped(value, _marked, _float_of)


def from_json(value: Any) -> Any:
    """Back from `for_json`."""
    return _unmapped(value, FLOAT, float)


def for_bson(value: Any) -> Any:
    """The form for MongoDB."""
    return _mapped(value, _escaped, _int_of)


def from_bson(value: Any) -> Any:
    """Back from `for_bson`."""
    return _unmapped(value, INT, int)


def check(body: Body) -> None:
    """Refuse what not every engine holds; InvalidInput."""
    _check_text(body, 0)
    size = bson_bytes(for_bson(body))
    if size > MAX_DOCUMENT_BYTES:
        raise InvalidInput(
            f"This would be stored as a document of {size} bytes, and the largest has {MAX_DOCUMENT_BYTES}; make it "
            "smaller.",
            Reason.TOO_LARGE,
            metadata={"limit": "document_bytes", "maximum": str(MAX_DOCUMENT_BYTES)},
        )


def bson_bytes(value: Any) -> int:
    """Bytes of a value in BSON's layout; embedded mode knows them without a driver."""
    # Leaves first: there are many of them, and whether something is a Mapping takes long to tell.
    if isinstance(value, float):
        return 8
    if isinstance(value, str):
        return 5 + len(value.encode())
    if value is None or isinstance(value, bool):
        return int(value is not None)
    if isinstance(value, int):
        return 4 if -INT32 <= value < INT32 else 8
    if isinstance(value, list | tuple):
        value = {str(index): each for index, each in enumerate(value)}
    return 5 + sum(2 + len(key.encode()) + bson_bytes(each) for key, each in value.items())


def _mapped(value: Any, key: Callable[[str], str], leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, LEAVES):
        return leaf(value)
    if isinstance(value, list | tuple):
        return [_mapped(each, key, leaf) for each in value]
    return {key(name): _mapped(each, key, leaf) for name, each in value.items()}


def _unmapped(value: Any, mark: str, number: Callable[[str], Any]) -> Any:
    if isinstance(value, Mapping):
        if len(value) == 1 and mark in value:
            return number(value[mark])
        return {unquote(name): _unmapped(each, mark, number) for name, each in value.items()}
    if isinstance(value, list):
        return [_unmapped(each, mark, number) for each in value]
    return value


def _marked(key: str) -> str:
    return key.replace("%", "%25")


def _escaped(key: str) -> str:
    return _marked(key).replace(".", "%2E").replace("$", "%24")


def _float_of(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    plain = math.isfinite(value) and abs(value) < EXACT_FROM and (value or math.copysign(1, value) > 0)
    return value if plain else {FLOAT: repr(value)}


def _int_of(value: Any) -> Any:
    if not isinstance(value, int) or -INT64 <= value < INT64:
        return value
    return {INT: str(value)}


def _check_text(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"Values nest at most {MAX_DEPTH} deep.", Reason.MALFORMED_MESSAGE)
    if isinstance(value, str):
        if "\0" in value or not (value.isascii() or _is_whole(value)):
            raise InvalidInput("A text holds a character that cannot be stored, such as NUL; leave it out.")
    elif isinstance(value, Mapping):
        for key, each in value.items():
            _check_text(key, depth)
            _check_text(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_text(each, depth + 1)


def _is_whole(text: str) -> bool:
    """Whether there is no half of a character in it, which UTF-8 has no form for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
