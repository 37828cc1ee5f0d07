"""Calls of the service against the same statements by asyncpg and motor, and a bare echo. Bound: 5 times both.

The statements are those that the use cases make, recorded; their JSON is read on both sides. Each caller has a
connection of its own to the databases, and all of them share one to the server. Both take turns for a few rounds, once
with one caller, whose median counts, and once with several, whose calls a second do. A bare echo by gRPC is what a call
costs before anything is asked; why it counts as well, and why 5, is in docs/decisions/0030.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import grpc

from benchmarks.full.experiments import multiply, trained
from benchmarks.full.places import places
from benchmarks.full.statements import Direct, Step, UseCases, direct, use_cases
from benchmarks.predict import METHOD as ECHO
from benchmarks.predict import process
from benchmarks.report import Figure, Measured, Say
from easyml.v1 import project_service_pb2, training_service_pb2
from easyml_client import EasyML
from easyml_server.domain.pages import PageRequest
from easyml_server.domain.users import Caller, Permission
from easyml_server.ports.store import ExperimentFilter
from easyml_server.services.projects import ProjectChange
from tests.servers import ServerProcess, serving

EXPERIMENTS = 1_000
ROUNDS, ROUND_SECONDS = 5, 0.6
CALLERS = 8
AT_MOST, BESIDE = 5, "to an echo and its statements"
PROJECTS, TRAININGS = "/easyml.v1.ProjectService", "/easyml.v1.TrainingService"

Ask = Callable[[int], Awaitable[object]]
"""Made by the caller of this number."""


@dataclass
class Turns:
    """One way to ask, and what was measured."""

    ask: Ask
    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Method:
    """A call, by caller: what is sent, and what the use case is asked."""

    path: str
    answer: Any
    requests: Sequence[bytes]
    steps: Sequence[Sequence[Step]]

    @property
    def name(self) -> str:
        """Of the method."""
        return self.path.rpartition("/")[2]


def measure(say: Say) -> Measured:
    with places() as found:
        url, documents = found.database(), found.documents()
        with serving(found.data(), DATABASE_URL=url, MONGODB_URL=documents, MIGRATE_AT_START="true") as server:
            project, experiment = trained(server)
            multiply(url, experiment, EXPERIMENTS - 1)
            with EasyML(server.address, token=server.key) as client:
                projects = [client.projects.create(f"bench {number}").id for number in range(CALLERS)]
            say(f"{EXPERIMENTS:,} experiments are there")
            measured = asyncio.run(ask_all(server, (url, documents), [project, experiment, *projects], say))
        with process("benchmarks.echo") as address:
            echo = asyncio.run(ask_echo(address))
    figures = []
    details = {
        "echo_ms": statistics.median(echo.alone) * 1000,
        "echo_per_second": statistics.median(echo.together),
        "callers": CALLERS,
        "experiments": EXPERIMENTS,
    }
    for name, (service, bare) in measured.items():
        medians = statistics.median(service.alone), statistics.median(bare.alone)
        rates = statistics.median(service.together), statistics.median(bare.together)
        alone = medians[0] / (medians[1] + details["echo_ms"] / 1000)
        together = (1 / rates[0]) / (1 / rates[1] + 1 / details["echo_per_second"])
        figures.append(Figure(f"{name}, a caller alone, {BESIDE}", alone, "x", at_most=AT_MOST))
        figures.append(Figure(f"{name}, {CALLERS} callers, {BESIDE}", together, "x", at_most=AT_MOST))
        details |= {f"{name}_ms": medians[0] * 1000, f"{name}_statements_ms": medians[1] * 1000}
        details |= {f"{name}_per_second": rates[0], f"{name}_statements_per_second": rates[1]}
    return Measured(figures, details)


async def ask_all(
    server: ServerProcess, urls: tuple[str, str], ids: Sequence[str], say: Say
) -> Mapping[str, tuple[Turns, Turns]]:
    """Method by method, both ways."""
    measured = {}
    async with AsyncExitStack() as stack:
        cases = await stack.enter_async_context(use_cases(*urls))
        methods = await all_methods(cases, await owner(urls[0]), *ids)
        connections = await stack.enter_async_context(direct(*urls, CALLERS))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        for method in methods:
            pair = Turns(through_service(channel, server.key, method)), Turns(by_statements(connections, method))
            await take_turns(pair)
            measured[method.name] = pair
            rates = " and ".join(f"{statistics.median(each.together):,.0f}" for each in pair)
            say(f"{method.name}: {rates} a second (service, {len(method.steps[0])} statements)")
    return measured


async def ask_echo(address: str) -> Turns:
    """What a call through gRPC costs by itself, on both sides."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(ECHO)
        turns = Turns(lambda _: call(b"echo"))
        await take_turns([turns])
    return turns


async def owner(url: str) -> UUID:
    """The local owner's id."""
    connection = await asyncpg.connect(url)
    try:
        return UUID(str(await connection.fetchval("SELECT id FROM users")))
    finally:
        await connection.close()


async def all_methods(
    cases: UseCases, user_id: UUID, project: str, experiment: str, *projects: str
) -> Sequence[Method]:
    """Those that are measured; a write is made by each caller in a project of its own."""
    caller = Caller(user_id, needs=Permission.VIEWER)
    project_id = UUID(project)

    async def same(path: str, answer: Any, request: Any, use_case: Awaitable[object]) -> Method:
        steps = await cases.steps(use_case)
        return Method(path, answer, [request.SerializeToString()] * CALLERS, [steps] * CALLERS)

    changes = [ProjectChange(UUID(each), "", "changed", {}, "") for each in projects]
    return [
        await same(
            f"{PROJECTS}/GetProject",
            project_service_pb2.GetProjectResponse,
            project_service_pb2.GetProjectRequest(project_id=project),
            cases.projects.get(caller, project_id),
        ),
        await same(
            f"{TRAININGS}/GetExperiment",
            training_service_pb2.GetExperimentResponse,
            training_service_pb2.GetExperimentRequest(experiment_id=experiment),
            cases.trainings.get(caller, UUID(experiment)),
        ),
        await same(
            f"{TRAININGS}/ListExperiments",
            training_service_pb2.ListExperimentsResponse,
            training_service_pb2.ListExperimentsRequest(project_id=project),
            cases.trainings.list(caller, project_id, PageRequest(), ExperimentFilter()),
        ),
        await same(
            f"{PROJECTS}/GetProjectConfig",
            project_service_pb2.GetProjectConfigResponse,
            project_service_pb2.GetProjectConfigRequest(project_id=project),
            cases.projects.get_config(caller, project_id),
        ),
        Method(
            f"{PROJECTS}/UpdateProject",
            project_service_pb2.UpdateProjectResponse,
            [
                project_service_pb2.UpdateProjectRequest(
                    project_id=each, description="changed", update_mask={"paths": ["description"]}
                ).SerializeToString()
                for each in projects
            ],
            [await cases.steps(cases.projects.update(caller, change, ["description"])) for change in changes],
        ),
    ]


def through_service(channel: grpc.aio.Channel, key: str, method: Method) -> Ask:
    call = channel.unary_unary(method.path, response_deserializer=method.answer.FromString)
    metadata = (("authorization", f"Bearer {key}"),)
    return lambda number: call(method.requests[number], metadata=metadata)


def by_statements(connections: Sequence[Direct], method: Method) -> Ask:
    return lambda number: connections[number].ask(method.steps[number])


async def take_turns(ways: Sequence[Turns]) -> None:
    for way in ways:
        await asked(way.ask, CALLERS)
    for _ in range(ROUNDS):
        for way in ways:
            way.alone += await asked(way.ask, 1)
        for way in ways:
            way.together.append(len(await asked(way.ask, CALLERS)) / ROUND_SECONDS)


async def asked(ask: Ask, callers: int) -> list[float]:
    """How long each call took, of callers who ask again as soon as they are answered."""
    took: list[float] = []
    end = time.perf_counter() + ROUND_SECONDS

    async def caller(number: int) -> None:
        while (started := time.perf_counter()) < end:
            await ask(number)
            took.append(time.perf_counter() - started)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return took
