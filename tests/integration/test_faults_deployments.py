"""What may happen to a deployment: its replicas, its files and its server, and the answers that come all the same."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from easyml.v1 import auth_service_pb2, container_pb2, deployment_pb2, model_pb2
from easyml.v1 import deployment_service_pb2 as pb
from easyml.v1 import prediction_service_pb2 as predictions
from easyml.v1 import project_service_pb2 as projects
from easyml_server.domain.replica_records import ReplicaRecord, find_living
from tests.builders import a_project_of, upload
from tests.integration.test_rpcs_deployments import QUICK, Deployer, at, made_by, under_load
from tests.integration.test_rpcs_models import a_version
from tests.integration.test_rpcs_predictions import as_rows
from tests.servers import Client, ServerProcess, deploying, eventually

pytestmark = pytest.mark.slow

TWO = deployment_pb2.DeploymentConfig(probes=QUICK, scaling=deployment_pb2.Scaling(replicas=2))
ONE = deployment_pb2.DeploymentConfig(probes=QUICK)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with deploying(tmp_path_factory.mktemp("faults") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def versions(server: ServerProcess) -> Deployer:
    """Two versions, made once."""
    with Client(server.address, server.key) as client:
        return made_by(client)


@pytest.fixture
def deployer(server: ServerProcess, versions: Deployer) -> Iterator[Deployer]:
    """Nothing runs before and after."""
    with Client(server.address, server.key) as client:
        yield replace(versions, client=client)
    with Client(server.address, server.key) as client:
        listed = pb.ListDeploymentsRequest(project_id=versions.project_id)
        for deployment in client.deployments.ListDeployments(listed).deployments:
            replace(versions, client=client).delete(deployment.id)
    assert eventually(lambda: not processes(server))


def processes(server: ServerProcess) -> dict[str, ReplicaRecord]:
    """What runs, by the id of its replica."""
    records = (server.data / "deployments").glob("*/*.json")
    return {record.stem: found for record in records if (found := find_living(record))}


def failure(deployment: deployment_pb2.Deployment) -> deployment_pb2.Condition:
    return condition(deployment, deployment_pb2.CONDITION_TYPE_REPLICA_FAILURE)


def slowness(deployment: deployment_pb2.Deployment) -> deployment_pb2.Condition:
    return condition(deployment, deployment_pb2.CONDITION_TYPE_REPLICA_SLOW)


def condition(deployment: deployment_pb2.Deployment, kind: int) -> deployment_pb2.Condition:
    return next(each for each in deployment.conditions if each.type == kind)


def test_no_call_fails_when_one_of_two_replicas_is_killed_and_when_one_stops_answering(
    server: ServerProcess, deployer: Deployer
) -> None:
    deployment = deployer.ready(deployer.create(config=TWO).id)
    with under_load(deployer, deployment.id) as load:
        for number in (signal.SIGKILL, signal.SIGSTOP):
            victim = deployer.get(deployment.id).replicas[0].id
            os.kill(processes(server)[victim].pid, number)
            hurt = deployer.until(deployment.id, lambda now: failure(now).status)
            assert hurt.state == deployment_pb2.DEPLOYMENT_STATE_DEGRADED
            well = deployer.ready(deployment.id)
            assert well.ready_replicas == 2
            assert not failure(well).status
    assert set(load.answered) == {deployer.first}
    reasons = {each.last_failure.reason for each in well.replicas if each.HasField("last_failure")}
    assert deployment_pb2.REPLICA_FAILURE_REASON_UNRESPONSIVE in reasons


def test_calls_go_elsewhere_when_a_replica_lets_them_run_out_of_time(server: ServerProcess, deployer: Deployer) -> None:
    patient = deployment_pb2.Probes(period_seconds=2, timeout_seconds=2, failure_threshold=2)
    config = deployment_pb2.DeploymentConfig(probes=patient, scaling=deployment_pb2.Scaling(replicas=2))
    deployment = deployer.ready(deployer.create(config=config).id)
    request = predictions.PredictRequest(deployment_id=deployment.id, **as_rows())
    late = []
    os.kill(processes(server)[deployment.replicas[0].id].pid, signal.SIGSTOP)
    for _ in range(40):
        try:
            deployer.client.predictions.Predict(request, timeout=1)
        except grpc.RpcError as error:
            late.append(error.code())
    # Of calls that are shared evenly half would be; those that are not take far less time than it is asked last.
    assert set(late) <= {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert 1 <= len(late) <= 10
    hurt = deployer.until(deployment.id, lambda now: failure(now).status)
    assert (failure(hurt).reason, hurt.state) == ("Unresponsive", deployment_pb2.DEPLOYMENT_STATE_DEGRADED)
    assert not failure(deployer.ready(deployment.id)).status


def test_a_replica_that_is_slow_and_alive_is_named_until_it_is_not(server: ServerProcess, deployer: Deployer) -> None:
    patient = deployment_pb2.Probes(period_seconds=60, timeout_seconds=60, failure_threshold=10)
    config = deployment_pb2.DeploymentConfig(probes=patient, scaling=deployment_pb2.Scaling(replicas=2))
    deployment = deployer.ready(deployer.create(config=config).id)
    victim = deployment.replicas[0].id
    process = processes(server)[victim].pid
    os.kill(process, signal.SIGSTOP)
    try:
        slow = deployer.until(deployment.id, lambda now: victim in slowness(now).message)
    finally:
        os.kill(process, signal.SIGCONT)
    assert (slowness(slow).status, slowness(slow).reason) == (True, "AnswersLate")
    assert f"Replica {victim} of revision 1" in slowness(slow).message
    assert not failure(slow).status
    assert (slow.state, slow.ready_replicas) == (deployment_pb2.DEPLOYMENT_STATE_READY, 2)
    well = deployer.until(deployment.id, lambda now: not slowness(now).status)
    assert {each.id: each.restarts for each in well.replicas} == {each.id: 0 for each in deployment.replicas}


def test_no_call_fails_when_another_program_has_the_port_of_a_replica_that_ended(
    server: ServerProcess, deployer: Deployer
) -> None:
    deployment = deployer.ready(deployer.create(config=TWO).id)
    victim = deployment.replicas[0]
    host, _, port = victim.endpoint.rpartition(":")
    with under_load(deployer, deployment.id) as load:
        os.kill(processes(server)[victim.id].pid, signal.SIGKILL)
        # It takes connections and says nothing.
        with eventually(lambda: taken(host, int(port))):
            deployer.until(deployment.id, lambda now: failure(now).status)
            well = deployer.ready(deployment.id)
            assert well.ready_replicas == 2
            assert victim.endpoint not in {each.endpoint for each in well.replicas}
            last = len(load.answered)
            eventually(lambda: len(load.answered) > last + 10)
    assert set(load.answered) == {deployer.first}


def taken(host: str, port: int) -> socket.socket | None:
    with suppress(OSError):
        return socket.create_server((host, port))
    return None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_an_endpoint_answers_on_without_its_server_which_finds_it_again(
    server: ServerProcess, deployer: Deployer, number: int
) -> None:
    deployment = deployer.ready(deployer.create(config=ONE).id)
    exchanged = deployer.client.auth.ExchangeToken(auth_service_pb2.ExchangeTokenRequest(deployment_id=deployment.id))
    (replica,) = deployment.replicas
    before = processes(server)
    server.leave(number)
    assert at(replica.endpoint, deployment.id, exchanged.token) == deployer.first
    server.start()
    with Client(server.address, server.key) as client:
        again = replace(deployer, client=client)
        assert again.ask(deployment.id) == deployer.first
        found = again.ready(deployment.id)
    assert list(found.replicas) == [replica]
    assert processes(server) == before


def test_a_revision_whose_files_were_changed_leaves_the_old_one_answering_and_gets_well_by_itself(
    server: ServerProcess, deployer: Deployer
) -> None:
    deployment = deployer.ready(deployer.create(config=ONE).id)
    (folder,) = server.data.glob(f"files/*/models/{deployer.second}")
    graph = next(folder.glob("*.onnx"))
    whole = graph.read_bytes()
    graph.chmod(0o600)
    graph.write_bytes(whole[:-1] + b"!")
    with under_load(deployer, deployment.id) as load:
        deployer.update(deployment.id, deployer.second)
        hurt = deployer.until(deployment.id, lambda now: failure(now).status)
        assert (hurt.active_revision, hurt.state) == (1, deployment_pb2.DEPLOYMENT_STATE_DEGRADED)
        said = next(each.last_failure for each in hurt.replicas if each.HasField("last_failure"))
        assert said.reason == deployment_pb2.REPLICA_FAILURE_REASON_MODEL_REFUSED
        assert "cannot be served" in said.log_lines[-1]
        assert set(load.answered) == {deployer.first}
        graph.write_bytes(whole)
        assert deployer.ready(deployment.id).active_revision == 2
        last = len(load.answered)
        eventually(lambda: len(load.answered) > last + 3)
    assert load.answered[-1] == deployer.second


def a_noisy_table(rows: int = 4_000) -> bytes:
    """Nothing tells the target, so that trees of it are large."""
    numbers = random.Random(1)
    lines = ["x,z,y"]
    lines += [f"{numbers.random():.6f},{numbers.randrange(11)},{numbers.choice('ab')}" for _ in range(rows)]
    return ("\n".join(lines) + "\n").encode()


def test_a_revision_without_the_memory_it_needs_leaves_the_old_one_answering(
    server: ServerProcess, deployer: Deployer
) -> None:
    dataset_id = upload(deployer.client, deployer.project_id, a_noisy_table()).id
    large = a_version(deployer.client, deployer.project_id, dataset_id, algorithm="random_forest", model_name="trees")
    size = next(each.size_bytes for each in large.artifacts if each.format == model_pb2.ARTIFACT_FORMAT_ONNX)

    def limited(memory_limit: str) -> deployment_pb2.DeploymentConfig:
        container = container_pb2.ContainerConfig(memory_limit=memory_limit, environment={"TZ": "Asia/Tokyo"})
        return deployment_pb2.DeploymentConfig(probes=QUICK, container=container)

    deployment = deployer.ready(deployer.create(config=ONE).id)
    with under_load(deployer, deployment.id) as load:
        deployer.update(deployment.id, large.id, config=limited(str((97 << 20) + size)))
        hurt = deployer.until(deployment.id, lambda now: failure(now).status)
        assert (hurt.active_revision, hurt.state) == (1, deployment_pb2.DEPLOYMENT_STATE_DEGRADED)
        said = next(each.last_failure for each in hurt.replicas if each.HasField("last_failure"))
        assert said.reason == deployment_pb2.REPLICA_FAILURE_REASON_OUT_OF_MEMORY
        assert "above its limit of" in said.message
        assert said.message in failure(hurt).message
        assert set(load.answered) == {deployer.first}
        deployer.update(deployment.id, config=limited("2Gi"))
        well = deployer.ready(deployment.id)
        assert well.config.container == limited("2Gi").container
        eventually(lambda: load.answered[-1] == large.id)
    (process,) = processes(server).values()
    assert b"TZ=Asia/Tokyo" in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")


def test_what_was_deleted_while_nobody_looked_is_gone_after_the_next_start(
    server: ServerProcess, deployer: Deployer
) -> None:
    deployment = deployer.ready(deployer.create(config=ONE).id)
    assert processes(server)
    deployer.delete(deployment.id)
    server.leave()
    server.start()
    assert eventually(lambda: not processes(server))


def test_a_server_that_is_interrupted_takes_its_deployments_with_it(server: ServerProcess, deployer: Deployer) -> None:
    deployment = deployer.ready(deployer.create(config=TWO).id)
    assert len(deployment.replicas) == 2
    assert server.interrupt() == 0
    assert not processes(server)
    server.start()
    with Client(server.address, server.key) as client:
        again = replace(deployer, client=client)
        assert again.ready(deployment.id).ready_replicas == 2


def test_what_runs_ends_with_its_project(server: ServerProcess, deployer: Deployer) -> None:
    project_id = a_project_of(deployer.client)
    version = a_version(deployer.client, project_id, upload(deployer.client, project_id).id)
    elsewhere = replace(deployer, project_id=project_id, first=version.id)
    elsewhere.ready(elsewhere.create(config=ONE).id)
    assert processes(server)
    deployer.client.projects.DeleteProject(projects.DeleteProjectRequest(project_id=project_id, force=True))
    assert eventually(lambda: not processes(server))
