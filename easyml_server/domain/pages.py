"""Lists come in pages: how a page is asked for, and what one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")

DEFAULT_PAGE_SIZE = 50


class Order(StrEnum):
    """Orders a list can have; a list supports some of them."""

    NEWEST_FIRST = "newest_first"
    OLDEST_FIRST = "oldest_first"
    BY_NAME = "by_name"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`after` is the position behind the last item of the page before: (sort key, id)."""

    size: int = DEFAULT_PAGE_SIZE
    after: tuple[str, str] | None = None
    order: Order = Order.NEWEST_FIRST
    name_prefix: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """`next` is where the next page begins; None on the last one."""

    items: tuple[Item, ...]
    next: tuple[str, str] | None = None
