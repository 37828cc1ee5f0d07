"""Calls to the replicas of deployments: bytes pass through, shared as wanted, over connections that are kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from math import inf
from typing import Final

import grpc

from easyml_server.deployers.forwarding import (
    LOST,
    RETRY_SECONDS,
    Connection,
    is_answer,
    raise_meaning,
    unavailable,
)
from easyml_server.deployers.identities import Identities
from easyml_server.domain.deployments import TrafficShare
from easyml_server.domain.users import Caller
from easyml_server.ports.model_servers import ServedDeployment, StreamCall, UnaryCall

EJECTED_SECONDS: Final = 2.0
"""For how long an endpoint that was lost, or let a call run out of time, is asked last."""
LEAST_PATIENCE_SECONDS: Final = 0.1
"""Whoever waits for less says nothing of an endpoint that did not answer in time."""
KEPT: Final = 1_000
"""Connections, also to endpoints that are gone; more than replicas there may be."""


class Endpoints:
    """Fulfils `ports.model_servers.DeploymentCalls`."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._kept: dict[str, _Endpoint] = {}
        self._turn = 0
        self._draw = random.Random()  # noqa: S311 (it shares calls, and keeps no secret)
        self._closing: set[asyncio.Task[None]] = set()

    async def ask(
        self, deployment: ServedDeployment, call: UnaryCall, caller: Caller, request: bytes, timeout: float | None
    ) -> bytes:
        """See DeploymentCalls. No call changes anything, so that one that was lost is asked for elsewhere."""
        loop = asyncio.get_running_loop()
        deadline = inf if timeout is None else loop.time() + timeout
        metadata = self._identities.metadata(caller, deployment.id)
        lost: grpc.aio.AioRpcError | None = None
        for endpoint in self._asked(deployment.shares):
            remaining = None if timeout is None else max(0.0, deadline - loop.time())
            try:
                answer: bytes = await endpoint.unary[call](request, timeout=remaining, metadata=metadata)
            except asyncio.CancelledError:
                # That is also how a call ends whose caller's time is over.
                if remaining is not None and deadline - loop.time() < LEAST_PATIENCE_SECONDS < remaining:
                    endpoint.eject()
                raise
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and (remaining or 0) > LEAST_PATIENCE_SECONDS:
                    endpoint.eject()
                if error.code() not in LOST or is_answer(error):
                    raise_meaning(error)
                endpoint.eject()
                lost = error
            else:
                return answer
        raise unavailable("No replica of this deployment answers", RETRY_SECONDS) from lost

    async def stream(
        self, deployment: ServedDeployment, call: StreamCall, caller: Caller, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """See DeploymentCalls."""
        endpoint = next(iter(self._asked(deployment.shares)), None)
        if endpoint is None:
            raise unavailable("No replica of this deployment answers", RETRY_SECONDS)
        metadata = self._identities.metadata(caller, deployment.id)
        async with aclosing(endpoint.stream(call, requests, metadata)) as answers:
            async for answer in answers:
                yield answer

    async def close(self) -> None:
        """End all connections."""
        await asyncio.gather(*(endpoint.close() for endpoint in self._kept.values()))

    def _close(self, endpoint: _Endpoint) -> None:
        closing = asyncio.create_task(endpoint.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _asked(self, shares: Sequence[TrafficShare]) -> Sequence[_Endpoint]:
        """Whom to ask, one after the other: a revision by its share first, and the others if it is lost."""
        if len(shares) > 1:
            first = self._draw.choices(shares, [share.weight for share in shares])[0]
            shares = sorted(shares, key=lambda share: share is not first)
        return [endpoint for share in shares for endpoint in self._in_turn(share.endpoints)]

    def _in_turn(self, addresses: Sequence[str]) -> Sequence[_Endpoint]:
        """Each once: another first each time, those that were lost just now last."""
        if not addresses:
            return ()
        self._turn += 1
        first = self._turn % len(addresses)
        found = [self._endpoint(address) for address in (*addresses[first:], *addresses[:first])]
        now = asyncio.get_running_loop().time()
        return sorted(found, key=lambda endpoint: endpoint.ejected_until > now)

    def _endpoint(self, address: str) -> _Endpoint:
        endpoint = self._kept.pop(address, None) or _Endpoint(address)
        # Most recently used last.
        self._kept[address] = endpoint
        if len(self._kept) > KEPT:
            self._close(self._kept.pop(next(iter(self._kept))))
        return endpoint


class _Endpoint(Connection):
    """A connection to a replica, which was perhaps lost just now."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.ejected_until = 0.0

    def eject(self) -> None:
        """Ask it last for a while."""
        self.ejected_until = asyncio.get_running_loop().time() + EJECTED_SECONDS
