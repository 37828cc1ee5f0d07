"""Deployments of several servers: one looks after each, all answer for it, and another takes it when that one dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from easyml.v1 import deployment_logs_pb2, deployment_metrics_pb2, deployment_pb2
from easyml.v1 import deployment_service_pb2 as pb
from tests.integration.replicas import Replicas, client_of, replicas, said
from tests.integration.test_faults_deployments import failure, processes
from tests.integration.test_rpcs_deployments import QUICK, Deployer, made_by, under_load
from tests.postgresql import PostgresServer, postgresql
from tests.servers import ServerProcess, eventually, refusal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ONE = deployment_pb2.DeploymentConfig(probes=QUICK)
OWNER = "SELECT owner_address FROM model_deployments WHERE id::text = '{}'"

TAKEN = "SELECT fencing FROM model_deployments WHERE id::text = '{}'"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def pair(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two servers, whose replicas end with them."""
    url = postgres.database_url(asyncio.run(postgres.create_database()))
    with replicas(tmp_path_factory.mktemp("pair"), url) as pair:
        try:
            yield pair
        finally:
            for server in pair.servers:
                if server.process is None:
                    server.start()
                psutil.Process(server.running.pid).resume()
                server.interrupt()


@pytest.fixture(scope="module")
def versions(pair: Replicas) -> Deployer:
    """Two versions, made once."""
    with client_of(pair.servers[0]) as client:
        return made_by(client)


@pytest.fixture
def deployed(pair: Replicas, versions: Deployer) -> Iterator[deployment_pb2.Deployment]:
    """One that answers, whoever looks after it."""
    with client_of(pair.servers[0]) as client:
        deployer = replace(versions, client=client)
        deployment = deployer.ready(deployer.create(config=ONE).id)
    yield deployment
    for server in pair.servers:
        if server.process is None:
            server.start()
    with client_of(pair.servers[0]) as client:
        replace(versions, client=client).delete(deployment.id)
    assert eventually(lambda: not any(processes(server) for server in pair.servers))


def holder(pair: Replicas, deployment_id: str) -> tuple[ServerProcess, ServerProcess]:
    """The one that looks after it, and the other."""
    ((address,),) = pair.execute(OWNER.format(deployment_id))
    first = next(server for server in pair.servers if server.address == address)
    return first, pair.other(first)


def here_alone(deployment: deployment_pb2.Deployment, server: ServerProcess) -> bool:
    """Whether it answers, by replicas of this server and no others."""
    listed = {replica.id for replica in deployment.replicas if replica.endpoint}
    return deployment.state == deployment_pb2.DEPLOYMENT_STATE_READY and listed == set(processes(server))


def test_all_servers_answer_for_a_deployment_that_one_looks_after(
    pair: Replicas, versions: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    first, second = holder(pair, deployed.id)
    assert (len(processes(first)), len(processes(second))) == (1, 0)
    with client_of(first) as holding, client_of(second) as client:
        near, far = replace(versions, client=holding), replace(versions, client=client)
        assert near.ask(deployed.id) == far.ask(deployed.id) == versions.first

        with under_load(near, deployed.id), under_load(far, deployed.id) as load:
            # Wanted at the one, carried out by the other, and watched from both.
            far.update(deployed.id, versions.second)
            assert near.ready(deployed.id).active_revision == far.ready(deployed.id).active_revision == 2
            eventually(lambda: load.answered[-1] == versions.second)
        assert (len(processes(first)), len(processes(second))) == (1, 0)

        request = deployment_metrics_pb2.GetDeploymentMetricsRequest(deployment_id=deployed.id)
        for caller in (holding, client):
            assert eventually(lambda caller=caller: caller.deployments.GetDeploymentMetrics(request).revisions)

        logs = deployment_logs_pb2.WatchDeploymentLogsRequest(deployment_id=deployed.id, tail_lines=100)
        assert list(holding.deployments.WatchDeploymentLogs(logs))
        elsewhere = refusal(lambda asked: list(client.deployments.WatchDeploymentLogs(asked)), logs)
        assert elsewhere.short == ("FAILED_PRECONDITION", "WRONG_STATE")
        assert elsewhere.metadata == {"server": first.address}

        stopped = far.stop(deployed.id)
        assert not stopped.replicas
        far.client.deployments.RollbackDeployment(pb.RollbackDeploymentRequest(deployment_id=deployed.id, revision=1))
        assert near.ready(deployed.id).active_revision == 3
        assert near.ask(deployed.id) == far.ask(deployed.id) == versions.first


def test_a_call_at_any_server_wakes_a_deployment_that_is_idle(pair: Replicas, versions: Deployer) -> None:
    scaling = deployment_pb2.Scaling(min_replicas=0, max_replicas=1, cooldown_seconds=1)
    config = deployment_pb2.DeploymentConfig(probes=QUICK, scaling=scaling)
    with client_of(pair.servers[0]) as one, client_of(pair.servers[1]) as other:
        near, far = replace(versions, client=one), replace(versions, client=other)
        made = near.create(config=config)
        for caller in (near, far):
            caller.until(made.id, lambda now: now.active_revision == 1 and not (now.wanted_replicas or now.replicas))
            assert caller.ask(made.id) == versions.first
        far.delete(made.id)
    assert eventually(lambda: not any(processes(server) for server in pair.servers))


def test_no_call_fails_when_the_one_that_looks_after_it_is_killed(
    pair: Replicas, versions: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    first, second = holder(pair, deployed.id)
    (left,) = processes(first)
    with client_of(second) as client:
        other = replace(versions, client=client)
        with under_load(other, deployed.id) as load:
            first.leave(signal.SIGKILL)
            taken = other.until(deployed.id, lambda now: here_alone(now, second))
            last = len(load.answered)
            eventually(lambda: len(load.answered) > last + 10)
            assert left not in {replica.id for replica in taken.replicas}
            # Its replica is nobody's any more; the next start of that server ends it.
            assert set(processes(first)) == {left}
            first.start()
            assert eventually(lambda: not processes(first))
        assert set(load.answered) == {versions.first}
        assert here_alone(other.get(deployed.id), second)
    assert holder(pair, deployed.id) == (second, first)


def test_a_server_that_was_paused_past_its_lease_changes_nothing_when_it_wakes(
    pair: Replicas, versions: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    first, second = holder(pair, deployed.id)
    with client_of(second) as client:
        other = replace(versions, client=client)
        with under_load(other, deployed.id) as load:
            first.running.send_signal(signal.SIGSTOP)
            other.until(deployed.id, lambda now: here_alone(now, second))
            other.update(deployed.id, versions.second)
            after = other.ready(deployed.id)
            first.running.send_signal(signal.SIGCONT)
            said(first, "deployment_lost")
            # What it had started answers nobody any more, and ends.
            assert eventually(lambda: not processes(first))
            eventually(lambda: load.answered[-1] == versions.second)
        assert other.get(deployed.id) == after
        with client_of(first) as woken:
            again = replace(versions, client=woken)
            assert again.get(deployed.id) == after
            assert again.ask(deployed.id) == versions.second


def test_a_server_that_comes_back_finds_its_replicas_and_looks_after_them_again(
    pair: Replicas, versions: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    first, second = holder(pair, deployed.id)
    before, ((taken,),) = processes(first), pair.execute(TAKEN.format(deployed.id))
    second.running.send_signal(signal.SIGSTOP)
    first.leave(signal.SIGKILL)
    first.start()
    with client_of(first) as client:
        again = replace(versions, client=client)
        with under_load(again, deployed.id):
            assert eventually(lambda: pair.execute(TAKEN.format(deployed.id))[0][0] > taken)
            assert processes(first) == before
            assert here_alone(again.get(deployed.id), first)
        ((left, process),) = before.items()
        os.kill(process.pid, signal.SIGKILL)
        again.until(deployed.id, lambda now: failure(now).status)
        assert [each.id for each in again.ready(deployed.id).replicas] == [left]
    second.running.send_signal(signal.SIGCONT)


def test_a_server_that_stops_leaves_its_deployments_to_the_others_at_once(
    pair: Replicas, versions: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    first, second = holder(pair, deployed.id)
    with client_of(second) as client:
        other = replace(versions, client=client)
        with under_load(other, deployed.id):
            first.leave(signal.SIGTERM)
            other.until(deployed.id, lambda now: here_alone(now, second))
            first.start()
            assert eventually(lambda: not processes(first))
