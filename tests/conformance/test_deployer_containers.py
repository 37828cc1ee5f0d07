"""What every deployer promises of what replicas have around them, as far as its target can do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from easyml_server.domain.containers import Container
from easyml_server.domain.deployments import Replica, ReplicaFailureReason, ReplicaState
from tests.conformance.deployers import VERSION, LocalMachine, a_revision, ask, gone, ready, until
from tests.conformance.test_deployer import model

__all__ = ["model"]


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    return LocalMachine(tmp_path)


SMALL = Container(memory_limit="20Mi")


def failed_of_memory(replicas: list[Replica]) -> bool:
    (replica,) = replicas
    failure = replica.last_failure
    return failure is not None and failure.reason is ReplicaFailureReason.OUT_OF_MEMORY


async def test_a_replica_has_its_variables_and_no_others_of_ours(machine: LocalMachine, model: Path) -> None:
    variables = (("GREETING", "hallo, wörld = ja"), ("OMP_NUM_THREADS", "2"))
    revision = replace(a_revision(model), container=Container(environment=variables, memory_limit="8Gi"))
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (replica,) = await ready(deployer, revision)
        environment = machine.environment(replica)
        assert await ask(machine, revision, replica) == str(VERSION)
    assert {name: environment[name] for name, _ in variables} == dict(variables)
    assert not any(name.startswith("EASYML_") for name in environment)


async def test_a_replica_that_takes_too_much_memory_at_its_start_never_answers(
    machine: LocalMachine, model: Path
) -> None:
    revision = replace(a_revision(model), container=SMALL)
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (replica,) = await until(deployer, revision, failed_of_memory)
        assert replica.state is not ReplicaState.READY
        assert not machine.runs(replica)
    assert replica.last_failure is not None
    assert "above its limit of 20Mi" in replica.last_failure.message


async def test_a_replica_that_takes_too_much_memory_is_ended_and_gets_well_when_it_no_longer_does(
    machine: LocalMachine, model: Path
) -> None:
    revision = a_revision(model)
    async with machine.deployer() as deployer:
        deployer.apply(revision)
        (before,) = await ready(deployer, revision)
    limited = replace(revision, container=SMALL)
    async with machine.deployer() as deployer:
        # It runs already, with more than that.
        deployer.apply(limited)
        assert [each.state for each in deployer.replicas(revision.id)] == [ReplicaState.READY]
        (ended,) = await until(deployer, limited, failed_of_memory)
        assert ended.id == before.id
        await gone(machine, before)
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (after,) = await ready(deployer, revision)
        assert await ask(machine, revision, after) == str(VERSION)
