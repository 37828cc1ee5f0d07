"""The probes of a running container, by the rules of the API: started, ready, alive."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from kubernetes.aio.client import V1Probe

from tests.kubernetes.kubelet.probes import Target, fault_of

EAGER_SECONDS = 0.2
"""Between looks at what is not ready yet, whatever its period."""


class Container(Protocol):
    """Whom a watch tells."""

    async def set_started(self) -> None: ...

    async def set_ready(self, ready: bool) -> None: ...

    async def say_unhealthy(self, message: str) -> None: ...


async def watch(target: Target, told: Container) -> str:
    """Until it has to be started again; why. A container whose probes pass is watched until this is cancelled."""
    container = target.container
    if container.startup_probe and (why := await _until_started(container.startup_probe, target, told)):
        return why
    await told.set_started()
    readiness = asyncio.create_task(_follow_readiness(container.readiness_probe, target, told))
    try:
        return await _until_dead(container.liveness_probe, target, told)
    finally:
        readiness.cancel()
        await asyncio.gather(readiness, return_exceptions=True)


async def _until_started(probe: V1Probe, target: Target, told: Container) -> str:
    await asyncio.sleep(probe.initial_delay_seconds or 0)
    end = time.monotonic() + _period(probe) * (probe.failure_threshold or 3)
    first = True
    while fault := await fault_of(probe, target):
        if first:
            await told.say_unhealthy(f"Startup probe failed: {fault}")
        first = False
        if time.monotonic() > end:
            return "failed startup probe"
        await asyncio.sleep(min(EAGER_SECONDS, _period(probe)))
    return ""


async def _follow_readiness(probe: V1Probe | None, target: Target, told: Container) -> None:
    if probe is None:
        await told.set_ready(True)
        return
    await asyncio.sleep(probe.initial_delay_seconds or 0)
    ready, in_a_row = False, 0
    while True:
        fault = await fault_of(probe, target)
        in_a_row = in_a_row + 1 if bool(fault) == ready else 0
        if fault and in_a_row == 1:
            await told.say_unhealthy(f"Readiness probe failed: {fault}")
        if in_a_row >= ((probe.failure_threshold or 3) if ready else (probe.success_threshold or 1)):
            ready, in_a_row = not ready, 0
            await told.set_ready(ready)
        await asyncio.sleep(_period(probe) if ready else min(EAGER_SECONDS, _period(probe)))


async def _until_dead(probe: V1Probe | None, target: Target, told: Container) -> str:
    if probe is None:
        await asyncio.Event().wait()
    assert probe is not None
    await asyncio.sleep(probe.initial_delay_seconds or 0)
    failures = 0
    while failures < (probe.failure_threshold or 3):
        await asyncio.sleep(_period(probe))
        fault = await fault_of(probe, target)
        failures = failures + 1 if fault else 0
        if failures == 1:
            await told.say_unhealthy(f"Liveness probe failed: {fault}")
    return "failed liveness probe"


def _period(probe: V1Probe) -> float:
    return float(probe.period_seconds or 10)
