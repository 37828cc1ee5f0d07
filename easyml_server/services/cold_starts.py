"""Calls that wait for the first replica of a deployment that has none while nobody calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from easyml_server.domain.deployments import Deployment, Replica
from easyml_server.domain.errors import LimitReached, OutOfTime, Reason, Unavailable, WrongState
from easyml_server.domain.scaled import woken
from easyml_server.domain.users import Caller
from easyml_server.ports.model_servers import DeploymentCalls, ServedDeployment, StreamCall, UnaryCall
from easyml_server.ports.store import Store
from easyml_server.services.autoscaler import Autoscaler
from easyml_server.services.deployment_watch import DeploymentWatch

RETRY_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 0.3
"""So long before its deadline a call is told why it was in vain; later nobody would hear it."""


class ColdStarts:
    """Calls to deployments (`ports.model_servers.DeploymentCalls`) that start a replica where there is none."""

    def __init__(
        self,
        calls: DeploymentCalls,
        store: Store,
        autoscaler: Autoscaler,
        watch: DeploymentWatch,
        wake: Callable[[UUID], None],
        reaches: Callable[[Replica], bool],
        clock: Callable[[], datetime],
        *,
        max_waiting: int,
        default_seconds: float,
    ) -> None:
        """`wake` has a deployment looked at of which something else is wanted.

        Calls have at most `default_seconds`; streams as long as it takes.
        """
        self._calls = calls
        self._store = store
        self._autoscaler = autoscaler
        self._watch = watch
        self._wake = wake
        self._reaches = reaches
        self._clock = clock
        self._max_waiting = max_waiting
        self._default_seconds = default_seconds
        self._waiting = 0
        self._waking: set[UUID] = set()

    async def ask(
        self, deployment: ServedDeployment, call: UnaryCall, caller: Caller, request: bytes, timeout: float | None
    ) -> bytes:
        """See DeploymentCalls."""
        if deployment.cold:
            began = asyncio.get_running_loop().time()
            deployment = await self._started_within(deployment, self._longest(timeout))
            waited = asyncio.get_running_loop().time() - began
            timeout = None if timeout is None else max(0.0, timeout - waited)
        return await self._calls.ask(deployment, call, caller, request, timeout)

    async def stream(
        self, deployment: ServedDeployment, call: StreamCall, caller: Caller, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """See DeploymentCalls."""
        if deployment.cold:
            deployment = await self._started(deployment)
        async with aclosing(self._calls.stream(deployment, call, caller, requests)) as answers:  # type: ignore[type-var]  # a generator
            async for answer in answers:
                yield answer

    def _longest(self, timeout: float | None) -> float:
        given = self._default_seconds if timeout is None else min(timeout, self._default_seconds)
        return max(given - ANSWER_SECONDS, given / 2)

    async def _started_within(self, deployment: ServedDeployment, seconds: float) -> ServedDeployment:
        try:
            async with asyncio.timeout(seconds):
                return await self._started(deployment)
        except TimeoutError as error:
            raise OutOfTime(
                "The deployment has no replica while nobody calls, and the one that is being started was not ready in"
                " time; call again, or give more time."
            ) from error

    async def _started(self, deployment: ServedDeployment) -> ServedDeployment:
        """The deployment once a replica is ready.

        Raises LimitReached, Unavailable with what keeps a replica from becoming ready, and WrongState.
        """
        if self._waiting >= self._max_waiting:
            raise _too_many(self._max_waiting)
        self._waiting += 1
        try:
            with self._watch.watching(deployment.id) as changed, self._autoscaler.waiting(deployment.id):
                while deployment.cold:
                    if deployment.failure:
                        raise _failing(deployment.failure)
                    if deployment.idle:
                        await self._want_one(deployment.id)
                    await changed.wait()
                    changed.clear()
                    self._watch.check()
                    async with self._store.read() as work:
                        deployment = served_deployment(await work.deployments.load(deployment.id), self._reaches)
        finally:
            self._waiting -= 1
        return deployment

    async def _want_one(self, deployment_id: UUID) -> None:
        """Store that a replica is wanted, for whichever server looks after it; once for all calls that wait."""
        if deployment_id in self._waking:
            return
        self._waking.add(deployment_id)
        try:
            async with self._store.begin() as work:
                deployment = await work.deployments.load(deployment_id)
                wanted = woken(deployment, self._clock())
                if wanted is not deployment:
                    await work.deployments.save(replace(wanted, sequence=deployment.sequence + 1), "")
                    await work.commit()
        finally:
            self._waking.discard(deployment_id)
            # Whatever came of it: the others look again, and one of them tries if need be.
            self._watch.tell(deployment_id)
        self._wake(deployment_id)


def served_deployment(deployment: Deployment, reaches: Callable[[Replica], bool]) -> ServedDeployment:
    """Where calls to a deployment go.

    `reaches` tells whether the endpoint of a replica means the same here as where it was started. Raises WrongState if
    the deployment was stopped, and Unavailable if all its replicas are out of reach.
    """
    if deployment.stopped:
        raise WrongState(
            f"Deployment {deployment.name!r} was stopped; to start it again update it, or roll it back to one of its"
            f" revisions (the newest is {deployment.latest_revision}).",
            metadata={"state": deployment.state.value},
        )
    reached = replace(deployment, replicas=tuple(filter(reaches, deployment.replicas)))
    if deployment.endpoints and not reached.endpoints:
        raise Unavailable(
            f"The replicas of deployment {deployment.name!r} listen on a loopback address of another machine; ask a"
            " server there.",
            retry_after=RETRY_SECONDS,
            metadata={"part": "model_server"},
        )
    shares = reached.shares
    if not deployment.waits_for_calls or any(share.endpoints for share in shares):
        return ServedDeployment(deployment.id, shares)
    failure = deployment.failure_of(deployment.traffic or [deployment.latest_revision])
    return ServedDeployment(
        deployment.id, shares, cold=True, idle=deployment.idle, failure="" if failure is None else failure.message
    )


def _failing(message: str) -> Unavailable:
    return Unavailable(
        f"No replica of the deployment becomes ready, and it is tried again. {message}",
        retry_after=RETRY_SECONDS,
        metadata={"part": "model_server"},
    )


def _too_many(maximum: int) -> LimitReached:
    return LimitReached(
        f"{maximum} calls wait for the first replica of a deployment (EASYML_MAX_WAITING_PREDICTIONS); try again in a"
        " moment.",
        Reason.OVERLOADED,
        retry_after=RETRY_SECONDS,
        metadata={"limit": "EASYML_MAX_WAITING_PREDICTIONS", "maximum": str(maximum)},
    )
