"""What every deployer promises: replicas as many as wanted, kept so whatever ends them, and found again."""

from __future__ import annotations

import asyncio
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from easyml_server.domain.deployments import Probes, Replica, ReplicaFailureReason, ReplicaState
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.models import ArtifactFormat
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.model_servers import ServedModel
from tests.conformance.deployers import (
    CONTINUE,
    KILL,
    QUICK,
    STOP,
    VERSION,
    LocalMachine,
    Machine,
    a_revision,
    an_open_call,
    ask,
    gone,
    ready,
    source_of,
    until,
)
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed
from tests.unit.serving.stored import with_file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = a_job(tmp_path_factory.mktemp("trained"), a_mixed_table(), target="level", features=FEATURES)
    succeed(job)
    return Path(job.output_path)


@pytest.fixture(params=["local", pytest.param("kubernetes", marks=pytest.mark.slow)])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    if request.param == "local":
        return LocalMachine(tmp_path)
    # The libraries of Kubernetes take a second.
    from tests.conformance.clusters import Namespace

    return Namespace(request.getfixturevalue("cluster"), tmp_path)


async def test_replicas_answer_are_scaled_and_leave_nothing(machine: Machine, model: Path) -> None:
    revision = a_revision(model, replicas=2)
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        assert {each.state for each in deployer.replicas(revision.id)} == {ReplicaState.STARTING}
        assert set(await deployer.changed()) == {revision.deployment_id}
        both = await ready(deployer, revision)
        assert len({replica.endpoint for replica in both}) == 2
        assert [await ask(machine, revision, replica) for replica in both] == [str(VERSION)] * 2
        deployer.apply(revision)
        assert list(deployer.replicas(revision.id)) == both

        one = replace(revision, replicas=1)
        deployer.apply(one)
        (kept,) = await ready(deployer, one)
        assert kept in both
        deployer.remove(revision.id)
        await until(deployer, revision, lambda replicas: not replicas)
        assert not any(machine.runs(replica) for replica in both)
    assert machine.left() == []


async def test_a_replica_takes_tokens_of_its_deployment_alone(machine: Machine, model: Path) -> None:
    revision = a_revision(model)
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (replica,) = await ready(deployer, revision)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(machine, revision, replica, machine.token(uuid4()))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_replica_that_is_killed_or_does_not_answer_is_replaced(machine: Machine, model: Path) -> None:
    probes = QUICK if isinstance(machine, LocalMachine) else replace(QUICK, startup_seconds=120, timeout_seconds=4)
    revision = a_revision(model, probes=probes)
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (replica,) = await ready(deployer, revision)
        machine.send(replica, KILL)
        (replica,) = await until(deployer, revision, lambda all_: all_[0].restarts == 1 and _is_ready(all_))
        assert replica.last_failure is not None
        assert (replica.last_failure.reason, replica.last_failure.exit_code) == (ReplicaFailureReason.EXITED, -KILL)
        assert await ask(machine, revision, replica) == str(VERSION)

        machine.send(replica, STOP)
        (replica,) = await until(deployer, revision, lambda all_: all_[0].restarts == 2 and _is_ready(all_))
        assert replica.last_failure is not None
        assert replica.last_failure.reason is ReplicaFailureReason.UNRESPONSIVE
        assert await ask(machine, revision, replica) == str(VERSION)


async def test_replicas_tell_what_they_counted_from_zero_again_after_their_end_and_on_after_the_deployers(
    machine: Machine, model: Path
) -> None:
    revision = a_revision(model, replicas=2)
    async with machine.deployer() as deployer:
        assert await deployer.counters() == []
        deployer.apply(revision)
        one, other = await ready(deployer, revision)
        for replica in (one, one, other):
            await ask(machine, revision, replica)
        (told,) = await deployer.counters()
        assert (told.revision_id, told.deployment_id, told.number) == (revision.id, revision.deployment_id, 1)
        counted = {each.replica_id: each for each in told.replicas}
        assert {each: counted[each].counters.calls for each in counted} == {one.id: {"OK": 2}, other.id: {"OK": 1}}
        assert counted[one.id].counters.rows == counted[one.id].counters.latency.counts[-1] == 2
        assert counted[one.id].resident_bytes > 1 << 20
        assert counted[one.id].start_time < datetime.now(UTC)

        machine.send(other, KILL)
        await until(deployer, revision, lambda all_: all_[1].restarts == 1)
        told_of = {each.replica_id for (told,) in [await deployer.counters()] for each in told.replicas}
        assert told_of == {one.id}
        await ready(deployer, revision)
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        await ready(deployer, revision)
        (told,) = await deployer.counters()
        again = {each.replica_id: each for each in told.replicas}
        assert again[one.id].counters.calls == {"OK": 2}
        assert again[one.id].start_time == counted[one.id].start_time
        assert again[other.id].counters.calls == {}
        assert again[other.id].start_time > counted[other.id].start_time

        # What ends because it was asked to takes nothing with it.
        await ask(machine, revision, one)
        deployer.remove(revision.id)
        await until(deployer, revision, lambda all_: not all_)
        last = {each.replica_id: each for told in await deployer.counters() for each in told.replicas}
        assert last[one.id].counters.calls == {"OK": 3}
        assert await deployer.counters() == []


async def test_replicas_tell_how_busy_they_are_while_a_call_is_open(machine: Machine, model: Path) -> None:
    revision, other = a_revision(model), a_revision(model)
    async with machine.emptied() as deployer:
        assert await deployer.loads(revision.deployment_id) == []
        deployer.apply(revision)
        deployer.apply(other)
        (replica,) = await ready(deployer, revision)
        await ready(deployer, other)
        (quiet,) = await deployer.loads(revision.deployment_id)
        assert (quiet.replica_id, quiet.call_seconds) == (replica.id, 0)
        await ask(machine, revision, replica)
        (once,) = await deployer.loads(revision.deployment_id)
        async with an_open_call(machine, revision, replica):
            (during,) = await deployer.loads(revision.deployment_id)
            (later,) = await deployer.loads(revision.deployment_id)
        assert 0 < (once.call_seconds or 0) < (during.call_seconds or 0) < (later.call_seconds or 0)
        assert [load.call_seconds for load in await deployer.loads(other.deployment_id)] == [0]

        machine.send(replica, STOP)
        assert [load.call_seconds for load in await deployer.loads(revision.deployment_id)] == [None]
        machine.send(replica, CONTINUE)


async def test_what_runs_outlives_the_deployer_and_is_found_again(machine: Machine, model: Path) -> None:
    kept, unwanted = a_revision(model), a_revision(model)
    async with machine.deployer() as deployer:
        deployer.apply(kept)
        deployer.apply(unwanted)
        before = await ready(deployer, kept)
        (unneeded,) = await ready(deployer, unwanted)
    assert await ask(machine, kept, before[0]) == str(VERSION)

    async with machine.emptied() as deployer:
        assert set(deployer.found(kept.id)) == {replica.id for replica in before}
        assert set(deployer.found(unwanted.id)) == {unneeded.id}
        assert not deployer.found(uuid4())
        deployer.apply(kept)
        assert not deployer.found(kept.id)
        assert list(deployer.replicas(kept.id)) == before
        deployer.retain([kept.id])
        await gone(machine, unneeded)
        # One that this deployer did not start is kept running all the same.
        machine.send(before[0], KILL)
        (replica,) = await until(deployer, kept, lambda all_: all_[0].restarts == 1 and _is_ready(all_))
        assert replica.last_failure is not None
        # Of a process that is no child of anybody there is none.
        assert replica.last_failure.exit_code in (None, -KILL)
        assert await ask(machine, kept, replica) == str(VERSION)


async def test_replicas_of_another_server_are_asked_where_they_are(
    machine: Machine, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "another").mkdir()
    revision = a_revision(model)
    async with machine.emptied() as deployer, replace(machine, folder=tmp_path / "another").emptied() as other:
        deployer.apply(revision)
        (replica,) = await ready(deployer, revision)
        assert other.reaches(replica)
        assert not other.reaches(replace(replica, machine="elsewhere"))
        assert await other.answers(revision.deployment_id, replica.endpoint)
        assert not await other.answers(uuid4(), replica.endpoint), "it may be another's port by now"
        await ask(machine, revision, replica)
        (told,) = await other.counters_at({replica.id: replica.metrics_endpoint, uuid4(): "127.0.0.1:1"})
        assert (told.replica_id, told.counters.calls) == (replica.id, {"OK": 1})
        deployer.remove(revision.id)
        await until(deployer, revision, lambda replicas: not replicas)
        assert not await other.answers(revision.deployment_id, replica.endpoint)
        assert await other.counters_at({replica.id: replica.metrics_endpoint}) == []


async def test_replicas_that_nobody_comes_back_for_end_by_themselves(tmp_path: Path, model: Path) -> None:
    machine = LocalMachine(tmp_path, orphan_seconds=1)
    revision = a_revision(model)
    async with machine.deployer() as deployer:
        deployer.apply(revision)
        (replica,) = await ready(deployer, revision)
        await asyncio.sleep(1.5)
        assert machine.runs(replica)
    await gone(machine, replica)


async def test_a_model_that_cannot_be_served_is_told_and_tried_again(
    machine: Machine, model: Path, tmp_path: Path
) -> None:
    broken = with_file(model, tmp_path / "broken", ArtifactFormat.ONNX, b"no graph")
    revision = a_revision(broken)
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (replica,) = await until(deployer, revision, lambda all_: all_[0].restarts >= 1 and _explains(all_))
        with closing(deployer.logs(revision.deployment_id, 10)) as logs, closing(deployer.logs(uuid4(), 10)) as others:
            written = await logs.read()
            assert await others.read() == []
    assert {(line.replica_id, line.revision) for line in written} == {(replica.id, revision.number)}
    assert "cannot be served" in written[-1].text
    failure = replica.last_failure
    assert failure is not None
    assert (failure.reason, failure.exit_code) == (ReplicaFailureReason.MODEL_REFUSED, 3)
    assert "cannot be served" in failure.log_lines[-1]


async def test_an_artifact_that_is_away_is_told_and_found_when_it_is_back(machine: Machine, model: Path) -> None:
    away = [Unavailable("The bucket does not answer.", retry_after=1.0)]

    def files() -> nullcontext[Path]:
        if away:
            raise away.pop()
        return nullcontext(model)

    async def source() -> StoredSource:
        if away:
            raise away.pop()
        return await source_of(model)

    revision = replace(a_revision(model), model=ServedModel(VERSION, files, source))
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (replica,) = await until(deployer, revision, lambda all_: all_[0].last_failure is not None)
        await until(deployer, revision, _is_ready)
    assert replica.last_failure is not None
    assert replica.last_failure.reason is ReplicaFailureReason.ARTIFACT_UNAVAILABLE
    assert replica.last_failure.message == "The bucket does not answer."


async def test_a_replica_that_is_not_ready_in_time_is_told(tmp_path: Path, model: Path) -> None:
    machine = LocalMachine(tmp_path)
    revision = a_revision(model, probes=Probes(startup_seconds=0.05, period_seconds=QUICK.period_seconds))
    async with machine.emptied() as deployer:
        deployer.apply(revision)
        (replica,) = await until(deployer, revision, _backs_off)
    assert replica.last_failure is not None
    assert replica.last_failure.reason is ReplicaFailureReason.START_TIMEOUT


def _is_ready(replicas: list[Replica]) -> bool:
    return replicas[0].state is ReplicaState.READY


def _backs_off(replicas: list[Replica]) -> bool:
    return replicas[0].state is ReplicaState.BACKING_OFF


def _explains(replicas: list[Replica]) -> bool:
    failure = replicas[0].last_failure
    return _backs_off(replicas) and failure is not None and bool(failure.log_lines)
