"""What there is of a kind, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from kubernetes.aio import watch


async def objects(listing: Callable[..., Any], **options: str) -> AsyncIterator[tuple[str, Any]]:
    """ADDED, MODIFIED or DELETED, and the object; for ever."""
    async with watch.Watch() as watching:
        async for event in watching.stream(listing, **options):
            yield event["type"], event["object"]
