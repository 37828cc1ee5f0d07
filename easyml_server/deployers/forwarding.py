"""Calls that pass through to a model server as bytes: what its answers and its silence mean."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Final, NoReturn

import grpc

from easyml_server.domain.errors import Unavailable
from easyml_server.ports.model_servers import ModelServerError

RETRY_SECONDS: Final = 1.0
STATUS_DETAILS: Final = "grpc-status-details-bin"
PUSHBACK: Final = "grpc-retry-pushback-ms"
LOST: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)


class Relayed:
    """Requests on their way; one that fails ends them, and its error is kept for the caller.

    gRPC would cancel the call instead, and answers that were already made would be lost.
    """

    def __init__(self, requests: AsyncIterator[bytes]) -> None:
        self._requests = requests
        self.error: Exception | None = None

    async def read(self) -> AsyncIterator[bytes]:
        """Up to the end, or to the first that fails."""
        try:
            async for request in self._requests:
                yield request
        except Exception as error:
            self.error = error


def raise_meaning(error: grpc.aio.AioRpcError) -> NoReturn:
    """Answers of the model server pass on as they are; a server that was lost is Unavailable."""
    trailers = details_of(error)
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        # Our token, not the caller's: told to the caller it would sign people out.
        raise RuntimeError("the model server refused the server's own token") from error
    if is_answer(error):
        raise ModelServerError(error.code().value[0], error.details() or "", trailers) from error
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise TimeoutError from error
    if error.code() in LOST:
        raise unavailable("The model server ended while it answered", RETRY_SECONDS) from error
    raise RuntimeError(f"the model server answered {error.code().name} without details") from error


def details_of(error: grpc.aio.AioRpcError) -> list[tuple[str, str | bytes]]:
    """What came with an error, for the caller."""
    return [(str(key), value) for key, value in error.trailing_metadata() or () if key in (STATUS_DETAILS, PUSHBACK)]


def is_answer(error: grpc.aio.AioRpcError) -> bool:
    """Whether a model server said this, rather than gRPC of one that was lost."""
    return any(key == STATUS_DETAILS for key, _ in details_of(error))


def unavailable(what: str, retry_after: float) -> Unavailable:
    """There is no model server just now; `what` begins the sentence."""
    return Unavailable(
        f"{what}; try again in {math.ceil(retry_after)} s.",
        retry_after=retry_after,
        metadata={"part": "model_server"},
    )
