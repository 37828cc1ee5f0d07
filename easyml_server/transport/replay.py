"""Answers that hold a secret, repeatable for a few seconds and never stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from easyml_server.domain.errors import AlreadyExists, Reason
from easyml_server.transport.calls import CURRENT, request_key

REMEMBERED_SECONDS = 10.0
MAX_REMEMBERED = 10_000

Answer = TypeVar("Answer")


class SecretReplay:
    """Remembers answers by request id; who repeats a request while it is answered waits for the same answer."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], tuple[float, str, asyncio.Future[Any]]] = {}

    async def once(self, request: Any, answer: Callable[[], Awaitable[Answer]]) -> Answer:
        """The first answer to this request; a failed one is not remembered."""
        key = request_key(request)
        if key is None:
            return await answer()
        call = CURRENT.get()
        owner = str(call.caller.user_id) if call.caller else ""
        place = (owner, str(key.request_id))
        self._forget()
        if place in self._answers:
            _, fingerprint, first = self._answers[place]
            if fingerprint != key.method + key.fingerprint:
                raise AlreadyExists(
                    "This request_id was used for another request; make a new one.", Reason.REQUEST_ID_REUSED
                )
            return await asyncio.shield(first)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        until = time.monotonic() + REMEMBERED_SECONDS
        self._answers[place] = (until, key.method + key.fingerprint, future)
        try:
            result = await answer()
        except BaseException as error:
            del self._answers[place]
            # Who waits for this answer fails alike; marked as seen, since often nobody does.
            if isinstance(error, Exception):
                future.set_exception(error)
                future.exception()
            else:
                future.cancel()
            raise
        future.set_result(result)
        return result

    def _forget(self) -> None:
        now = time.monotonic()
        if len(self._answers) >= MAX_REMEMBERED:
            self._answers.clear()
        for place in [place for place, (until, _, _) in self._answers.items() if until < now]:
            del self._answers[place]
