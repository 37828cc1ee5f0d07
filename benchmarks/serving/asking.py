"""Callers: connections over which one question follows the other, as soon as it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

import grpc

CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    # Else all channels would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
LONGEST_SECONDS = 60.0

Ask = Callable[[bytes], Awaitable[bytes]]


class Address(Protocol):
    """Where and how a server is asked."""

    def connect(self) -> AbstractAsyncContextManager[Ask]:
        """A connection of its own."""
        ...


class GrpcAddress:
    """A method of a gRPC server."""

    def __init__(self, address: str, method: str, token: Callable[[], str] = str) -> None:
        """`token` makes one that lives for minutes, for each connection."""
        self._address = address
        self._method = method
        self._token = token

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Ask]:
        """See Address."""
        token = self._token()
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        async with grpc.aio.insecure_channel(self._address, options=CHANNEL) as channel:
            call = channel.unary_unary(self._method)

            async def ask(body: bytes) -> bytes:
                answer: bytes = await call(body, metadata=metadata, timeout=LONGEST_SECONDS)
                return answer

            yield ask


class HttpAddress:
    """A path of an HTTP server, asked by as little code as there can be: JSON is posted, the connection is kept."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Ask]:
        """See Address."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)

        async def ask(body: bytes) -> bytes:
            head = f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            async with asyncio.timeout(LONGEST_SECONDS):
                return await _answer(reader)

        try:
            yield ask
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    lengths = [line.split(":")[1] for line in head if line.lower().startswith("content-length:")]
    if not lengths:
        raise ConnectionError(f"an answer without its length: {head[0]}")
    body = await reader.readexactly(int(lengths[0]))
    if head[0].split()[1] != "200":
        raise ConnectionError(f"{head[0]}: {body[:300]!r}")
    return body


async def load(address: Address, body: bytes, connections: int, seconds: float) -> tuple[list[float], float]:
    """How long each call took, of so many callers, and all of them; each caller has been answered once before."""
    async with AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(address.connect()) for _ in range(connections)]
        await asyncio.gather(*(ask(body) for ask in asks))
        began = time.perf_counter()
        end = began + seconds
        took: list[float] = []

        async def caller(ask: Ask) -> None:
            while (started := time.perf_counter()) < end:
                await ask(body)
                took.append(time.perf_counter() - started)

        await asyncio.gather(*map(caller, asks))
        # The last calls of a slow server end long after the time.
        return took, time.perf_counter() - began
