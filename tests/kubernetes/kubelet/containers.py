"""One container of a pod: started, probed, started again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kubernetes.aio.client import V1Container, V1Pod

from tests.kubernetes.kubelet.causes import NotYet
from tests.kubernetes.kubelet.logs import Log
from tests.kubernetes.kubelet.probes import Target, http_fault
from tests.kubernetes.kubelet.processes import CannotStart, Process
from tests.kubernetes.kubelet.statuses import ContainerStatus, now
from tests.kubernetes.kubelet.watching import watch

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5.0
RETRY_SECONDS = 0.5
START_ERROR = 128
MESSAGE_LINES, MESSAGE_CHARACTERS = 80, 2048


@dataclass(frozen=True)
class Launch:
    """All that a process is started with."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path


class Surroundings(Protocol):
    """What a container has from its pod."""

    async def launch(self, container: V1Container) -> Launch:
        """With what it is started now; raises NotYet."""
        ...

    async def report(self) -> None:
        """Tell the API how the containers are."""
        ...

    async def say(self, kind: str, reason: str, message: str) -> None:
        """An event of the pod."""
        ...


class ContainerRun:
    """A container from its pod's start to its end."""

    def __init__(self, pod: V1Pod, container: V1Container, address: str, around: Surroundings) -> None:
        self.status = ContainerStatus(container)
        self.logs: list[Log] = []
        self.process: Process | None = None
        self._pod = pod
        self._container = container
        self._address = address
        self._around = around
        self._launch: Launch | None = None

    async def run(self) -> None:
        """Returns when it ended and is not started again."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._launch = await self._launched()
            ended = await self._one_start(self._launch)
            if not self._is_restarted(ended["exitCode"]):
                self.status.state = {"terminated": ended}
                await self._around.report()
                return
            await self._say_crashed(ended, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def stop(self, seconds: float) -> None:
        """End it within its grace time; `run` was cancelled before."""
        process, end = self.process, asyncio.get_running_loop().time() + seconds
        if process is None:
            return
        try:
            async with asyncio.timeout_at(end):
                await self._before_stop()
        except TimeoutError:
            pass
        await process.stop(max(0, end - asyncio.get_running_loop().time()))

    async def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            await self.process.kill()

    async def set_started(self) -> None:
        self.status.started = True
        await self._around.report()

    async def set_ready(self, ready: bool) -> None:
        self.status.ready = ready
        await self._around.report()

    async def say_unhealthy(self, message: str) -> None:
        await self._around.say("Warning", "Unhealthy", message)

    async def _launched(self) -> Launch:
        told = None
        while True:
            try:
                return await self._around.launch(self._container)
            except NotYet as cause:
                if told != (cause.reason, cause.message):
                    told = (cause.reason, cause.message)
                    self.status.state = {"waiting": {"reason": cause.reason, "message": cause.message}}
                    await self._around.report()
                    await self._around.say("Warning", cause.event, cause.message)
            await asyncio.sleep(RETRY_SECONDS)

    async def _one_start(self, launch: Launch) -> dict[str, Any]:
        """How it ended."""
        begun, log = now(), Log()
        try:
            self.process = await Process.start(launch.command, launch.environment, launch.folder)
        except CannotStart as error:
            self.logs.append(log)
            log.end()
            return self._ended(START_ERROR, begun, "StartError", str(error))
        self.logs.append(self.process.log)
        self.status.state = {"running": {"startedAt": begun}}
        await self._around.report()
        code = await self._watched(self.process)
        self.process = None
        message = self.logs[-1].tail(MESSAGE_LINES, MESSAGE_CHARACTERS)
        wanted = self._container.termination_message_policy == "FallbackToLogsOnError" and code
        return self._ended(code, begun, "Error" if code else "Completed", message if wanted else "")

    async def _watched(self, process: Process) -> int:
        """Until it ended, by itself or because a probe failed."""
        target = Target(self._container, self._address, self._exec)
        ending, watching = asyncio.create_task(process.wait()), asyncio.create_task(watch(target, self))
        try:
            await asyncio.wait({ending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                message = f"Container {self._container.name} {watching.result()}, will be restarted"
                await self._around.say("Normal", "Killing", message)
                return await process.stop(self._grace_seconds(watching.result()))
            return ending.result()
        finally:
            for task in (ending, watching):
                task.cancel()
            await asyncio.gather(ending, watching, return_exceptions=True)

    def _grace_seconds(self, why: str) -> float:
        """That of the probe that failed, where it has one of its own."""
        probe = self._container.startup_probe if "startup" in why else self._container.liveness_probe
        own = probe.termination_grace_period_seconds if probe else None
        return float(own if own is not None else self._pod.spec.termination_grace_period_seconds or 0)

    def _ended(self, code: int, begun: str, reason: str, message: str) -> dict[str, Any]:
        self.status.ready = self.status.started = False
        details = {"message": message} if message else {}
        return {"exitCode": code, "reason": reason, "startedAt": begun, "finishedAt": now(), **details}

    def _is_restarted(self, code: int) -> bool:
        policy = self._pod.spec.restart_policy
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _say_crashed(self, ended: Mapping[str, Any], pause: float) -> None:
        name, metadata = self._container.name, self._pod.metadata
        pod = f"{metadata.name}_{metadata.namespace}({metadata.uid})"
        message = f"back-off {pause:g}s restarting failed container={name} pod={pod}"
        self.status.restarts += 1
        self.status.last = {"terminated": ended}
        self.status.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        await self._around.report()
        await self._around.say("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {pod}")

    async def _before_stop(self) -> None:
        hook = self._container.lifecycle and self._container.lifecycle.pre_stop
        if not hook:
            return
        if hook.sleep:
            await asyncio.sleep(hook.sleep.seconds)
        elif hook.var_exec:
            await self._exec(hook.var_exec.command)
        elif hook.http_get:
            await http_fault(hook.http_get, Target(self._container, self._address, self._exec))

    async def _exec(self, command: Sequence[str]) -> int:
        """Run a command as if in the container; its exit code."""
        assert self._launch is not None
        process = await Process.start(command, self._launch.environment, self._launch.folder)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await process.kill()
            raise
