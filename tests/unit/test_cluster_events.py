"""What the tests' nodes hear goes on after the API server has forgotten where they were."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.aio import watch
from kubernetes.aio.client import ApiException

from tests.kubernetes.events import objects


def an_object(uid: str) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(uid=uid))


async def test_all_are_listed_again_and_what_went_meanwhile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [["a", "b"], ["b", "d"]]
    begun: list[str] = []

    async def listing(**_options: str) -> Any:
        items = [an_object(uid) for uid in lists.pop(0)]
        return SimpleNamespace(items=items, metadata=SimpleNamespace(resource_version=str(len(lists))))

    async def stream(_self: Any, _listing: Any, resource_version: str) -> AsyncIterator[dict[str, Any]]:
        begun.append(resource_version)
        if lists:
            yield {"type": "ADDED", "object": an_object("c")}
            raise ApiException(status=410)
        raise ApiException(status=403)

    monkeypatch.setattr(watch.Watch, "stream", stream)
    heard = []
    with pytest.raises(ApiException, match="403"):
        async with aclosing(objects(listing)) as events:
            async for what, found in events:
                heard.append((what, found.metadata.uid))
    assert heard[:3] == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]
    assert sorted(heard[3:]) == [("ADDED", "d"), ("DELETED", "a"), ("DELETED", "c"), ("MODIFIED", "b")]
    assert begun == ["1", "0"]
