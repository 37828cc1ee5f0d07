"""One probe of a container: gRPC's health service, HTTP, TCP, or a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kubernetes.aio.client import V1Container, V1GRPCAction, V1HTTPGetAction, V1Probe

GOOD = range(200, 400)
Run = Callable[[Sequence[str]], Awaitable[int]]


@dataclass(frozen=True)
class Target:
    """What is asked: a container at its address, and how a command is run in it."""

    container: V1Container
    address: str
    run: Run


async def fault_of(probe: V1Probe, target: Target) -> str:
    """What is wrong; empty if it passes."""
    seconds = probe.timeout_seconds or 1
    try:
        async with asyncio.timeout(seconds):
            if probe.grpc:
                return await asyncio.to_thread(_grpc_fault, probe.grpc, target.address, seconds)
            if probe.http_get:
                return await http_fault(probe.http_get, target)
            if probe.tcp_socket:
                return await _tcp_fault(target.address, port_of(probe.tcp_socket.port, target.container))
            code = await target.run(probe.var_exec.command)
            return f"command ended with {code}" if code else ""
    except TimeoutError:
        return f"timeout: no answer within {seconds}s"


def port_of(wanted: int | str, container: V1Container) -> int:
    """A port, by its number or its name."""
    if isinstance(wanted, int):
        return wanted
    return next(port.container_port for port in container.ports or [] if port.name == wanted)


async def http_fault(action: V1HTTPGetAction, target: Target) -> str:
    """What is wrong with the answer to a GET."""
    url = f"http://{target.address}:{port_of(action.port, target.container)}{action.path or '/'}"
    headers = {header.name: header.value for header in action.http_headers or []}
    try:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            return "" if response.status in GOOD else f"HTTP probe failed with statuscode: {response.status}"
    except (OSError, aiohttp.ClientError) as error:
        return str(error)


async def _tcp_fault(address: str, port: int) -> str:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return str(error)
    writer.close()
    await writer.wait_closed()
    return ""


def _grpc_fault(action: V1GRPCAction, address: str, seconds: float) -> str:
    """In a thread: grpc.aio would share what it polls with the loop of the test."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"{address}:{action.port}", options=options) as channel:
        request = health_pb2.HealthCheckRequest(service=action.service or "")
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            return f"service unhealthy: {error.code().name} {error.details()}"
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if state == "SERVING" else f"service unhealthy (responded with {state!r})"
