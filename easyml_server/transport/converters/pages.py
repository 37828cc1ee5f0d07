"""Page tokens: opaque, and good only for the list, caller and filter they came from."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.domain.pages import DEFAULT_PAGE_SIZE, Order, Page, PageRequest
from easyml_server.transport.calls import CURRENT, caller

MAX_PAGE_BYTES = 3 << 20
"""Clients accept answers of 4 MiB by default."""
PAGING_FIELDS = ("page_size", "page_token", "view")

Item = TypeVar("Item")
Result = TypeVar("Result", bound=Message)


def page_request(request: Any, order: Order = Order.NEWEST_FIRST) -> PageRequest:
    """The page that a list request asks for."""
    fields = request.DESCRIPTOR.fields_by_name
    return PageRequest(
        size=request.page_size or DEFAULT_PAGE_SIZE,
        after=_position(request) if request.page_token else None,
        order=order,
        name_prefix=request.name_prefix if "name_prefix" in fields else "",
        labels=dict(request.labels) if "labels" in fields else {},
    )


def fit(
    request: Any, page: Page[Item], convert: Callable[[Item], Result], position: Callable[[Item], tuple[str, str]]
) -> tuple[list[Result], str]:
    """The messages of a page and the next token; cut where the answer would grow beyond `MAX_PAGE_BYTES`."""
    messages: list[Result] = []
    size = 0
    for index, item in enumerate(page.items):
        message = convert(item)
        size += message.ByteSize()
        if messages and size > MAX_PAGE_BYTES:
            return messages, page_token(request, position(page.items[index - 1]))
        messages.append(message)
    return messages, page_token(request, page.next)


def by_time(item: Any) -> tuple[str, str]:
    """The position of an item in a list ordered by time."""
    return item.create_time.isoformat(), str(item.id)


def by_name(item: Any) -> tuple[str, str]:
    """The position of an item in a list ordered by name."""
    return item.name, str(item.id)


def next_page_token(request: Any, page: Page[Any]) -> str:
    """The token of the next page; empty on the last one."""
    return page_token(request, page.next)


def page_token(request: Any, position: tuple[str, str] | None) -> str:
    """The token of the page behind a position."""
    if position is None:
        return ""
    content = json.dumps([_fingerprint(request), *position]).encode()
    return base64.urlsafe_b64encode(content).decode()


def place(page: PageRequest) -> int:
    """Where a page begins in a list that is counted through."""
    if page.after is None:
        return 0
    if not page.after[0].isdecimal():
        raise _invalid()
    return int(page.after[0])


def _position(request: Any) -> tuple[str, str]:
    try:
        fingerprint, key, identity = json.loads(base64.urlsafe_b64decode(request.page_token.encode()))
    except (binascii.Error, ValueError, TypeError) as error:
        raise _invalid() from error
    if fingerprint != _fingerprint(request):
        raise _invalid()
    return str(key), str(identity)


def _fingerprint(request: Any) -> str:
    filters = type(request)()
    filters.CopyFrom(request)
    for name in PAGING_FIELDS:
        if name in request.DESCRIPTOR.fields_by_name:
            filters.ClearField(name)
    content = CURRENT.get().method.encode() + caller().user_id.bytes + filters.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()[:16]


def _invalid() -> InvalidInput:
    return InvalidInput.at(
        "page_token",
        "This page token is not one of this list, caller and filter; start again without it.",
        Reason.INVALID_PAGE_TOKEN,
    )
