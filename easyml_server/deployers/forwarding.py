"""Calls that pass through to a model server as bytes: what its answers and its silence mean."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Final, NoReturn

import grpc

from easyml_server.domain.errors import Unavailable
from easyml_server.ports.model_servers import ModelServerError, StreamCall, UnaryCall

RETRY_SECONDS: Final = 1.0
STATUS_DETAILS: Final = "grpc-status-details-bin"
PUSHBACK: Final = "grpc-retry-pushback-ms"
LOST: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)


CONNECT_MS: Final = 1_000
"""For how long a connection is tried: whatever has the port of a dead model server by now may never answer."""

CHANNEL: Final = [
    ("grpc.enable_http_proxy", 0),
    # What is tried again is decided by the caller.
    ("grpc.enable_retries", 0),
    # A new child may get the port of a dead one, whose connection and back-off must not be found again.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


class Connection:
    """A connection to a model server: bytes in, bytes out."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL)
        self.unary: Mapping[UnaryCall, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {
            call: self._channel.unary_unary(call.value) for call in UnaryCall
        }
        self._streams: Mapping[StreamCall, grpc.aio.StreamStreamMultiCallable[bytes, bytes]] = {
            call: self._channel.stream_stream(call.value) for call in StreamCall
        }

    async def stream(
        self, kind: StreamCall, requests: AsyncIterator[bytes], metadata: tuple[tuple[str, str], ...]
    ) -> AsyncGenerator[bytes, None]:
        """The answers; an error of the model server by its meaning, and that of a request when all are there."""
        relayed = _Relayed(requests)
        call = self._streams[kind](relayed.read(), metadata=metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise_meaning(error)
        finally:
            call.cancel()
        if relayed.error is not None:
            raise relayed.error

    async def close(self) -> None:
        """Once nobody uses it: calls on it would look as if their callers had gone away."""
        await self._channel.close()


class _Relayed:
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
