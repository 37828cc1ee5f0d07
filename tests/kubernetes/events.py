"""What there is of a kind, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from kubernetes.aio import watch
from kubernetes.aio.client import ApiException

GONE = 410


async def objects(listing: Callable[..., Any], **options: str) -> AsyncIterator[tuple[str, Any]]:
    """ADDED, MODIFIED or DELETED, and the object; for ever.

    After a few minutes in which nothing happened the API server has forgotten where a watch was: all are listed again.
    """
    known: dict[str, Any] = {}
    while True:
        listed = await listing(**options)
        found = {each.metadata.uid: each for each in listed.items}
        for uid in known.keys() - found.keys():
            yield "DELETED", known[uid]
        for uid, each in found.items():
            yield "MODIFIED" if uid in known else "ADDED", each
        known = found
        try:
            async with watch.Watch() as watching:
                version = listed.metadata.resource_version
                async for event in watching.stream(listing, resource_version=version, **options):
                    what, each = event["type"], event["object"]
                    known[each.metadata.uid] = each
                    if what == "DELETED":
                        del known[each.metadata.uid]
                    yield what, each
        except ApiException as error:
            if error.status != GONE:
                raise
