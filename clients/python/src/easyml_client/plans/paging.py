"""Lists that page by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message

from easyml_client.steps import Emit, Plan, Stream, call

T = TypeVar("T")
Page = TypeVar("Page", bound=Message)


def pages(request: Any, response: type[Page], items: Callable[[Page], Iterable[T]]) -> Stream[T]:
    """Emits every item of every page; the next page is asked for when it is needed."""
    while True:
        page = yield from call(request, response)
        for item in items(page):
            yield Emit(item)
        token = page.next_page_token  # type: ignore[attr-defined]  # every list response has it
        if not token:
            return
        request.page_token = token


def collect(stream: Stream[T]) -> Plan[list[T]]:
    """What a stream emits, as a list: for plans that need a list themselves."""
    found: list[T] = []
    reply = None
    try:
        while True:
            step = stream.send(reply)
            if isinstance(step, Emit):
                found.append(step.value)
                reply = None
            else:
                reply = yield step
    except StopIteration:
        return found
