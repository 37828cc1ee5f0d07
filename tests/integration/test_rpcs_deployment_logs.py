"""WatchDeploymentLogs as callers see it: what replicas wrote, what they write, and the ends of a stream."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import auth_service_pb2, deployment_pb2
from easyml.v1 import deployment_logs_pb2 as pb
from easyml_server.domain.replica_records import find_living
from tests.integration.test_rpcs_deployments import QUICK, Deployer, made_by
from tests.marks import answers, refuses
from tests.servers import Client, ServerProcess, deploying, refusal, refusal_of

pytestmark = pytest.mark.slow

CONFIG = deployment_pb2.DeploymentConfig(probes=QUICK)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with deploying(tmp_path_factory.mktemp("logs") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def deployer(server: ServerProcess) -> Iterator[Deployer]:
    with Client(server.address, server.key) as client:
        yield made_by(client)


@pytest.fixture
def deployed(deployer: Deployer) -> deployment_pb2.Deployment:
    return deployer.ready(deployer.create(config=CONFIG).id)


def watch(client: Client, deployment_id: str, **which: Any) -> Any:
    return client.deployments.WatchDeploymentLogs(pb.WatchDeploymentLogsRequest(deployment_id=deployment_id, **which))


def write(server: ServerProcess, replica_id: str, text: str) -> None:
    """As the replica itself does."""
    (log,) = (server.data / "deployments").glob(f"*/{replica_id}.log")
    with log.open("a") as file:
        file.write(text)


def until(stream: Any, holds: Callable[[pb.DeploymentLogLine], bool]) -> pb.DeploymentLogLine:
    return next(line for said in stream for line in said.lines.lines if holds(line))


@answers("DeploymentService/WatchDeploymentLogs")
def test_lines_of_replicas_that_were_there_and_of_those_that_come(
    server: ServerProcess, deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    (replica,) = deployed.replicas
    write(server, replica.id, "one\ntwo\nthree\n")
    (said,) = watch(deployer.client, deployed.id, tail_lines=2)
    assert [(line.text, line.replica_id, line.revision) for line in said.lines.lines] == [
        ("two", replica.id, 1),
        ("three", replica.id, 1),
    ]
    assert list(watch(deployer.client, deployed.id)) == []

    stream = watch(deployer.client, deployed.id, tail_lines=1, follow=True)
    assert [line.text for line in next(stream).lines.lines] == ["three"]
    write(server, replica.id, "four\n")
    assert [line.text for line in next(stream).lines.lines] == ["four"]
    deployer.update(deployed.id, deployer.second)
    came = until(stream, lambda line: line.revision == 2)
    assert came.replica_id != replica.id
    assert came.HasField("line_time")

    deployer.ready(deployed.id)
    (record,) = (server.data / "deployments").glob(f"*/{came.replica_id}.json")
    found = find_living(record)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    again = until(stream, lambda line: line.line_time.ToNanoseconds() > came.line_time.ToNanoseconds())
    assert again.replica_id == came.replica_id
    deployer.delete(deployed.id)
    *_, last = stream
    assert last.HasField("deleted")


@refuses("DeploymentService/WatchDeploymentLogs")
def test_what_is_not_there_or_too_much_is_refused(deployer: Deployer) -> None:
    call = deployer.client.deployments.WatchDeploymentLogs
    for follow in (False, True):
        unknown = refusal(call, pb.WatchDeploymentLogsRequest(deployment_id=str(uuid4()), follow=follow))
        assert unknown.short == ("NOT_FOUND", "NOT_FOUND")
    for tail in (-1, 10_001):
        said = refusal(call, pb.WatchDeploymentLogsRequest(deployment_id=str(uuid4()), tail_lines=tail))
        assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["tail_lines"])


def test_a_token_in_a_log_is_not_passed_on(
    server: ServerProcess, deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    exchanged = deployer.client.auth.ExchangeToken(auth_service_pb2.ExchangeTokenRequest(deployment_id=deployed.id))
    write(server, deployed.replicas[0].id, f"{exchanged.token} and {server.key}\n")
    (said,) = watch(deployer.client, deployed.id, tail_lines=1)
    assert [line.text for line in said.lines.lines] == ["[redacted] and [redacted]"]
    deployer.delete(deployed.id)


def test_a_stream_ends_with_the_session_of_its_user_and_with_the_server(
    server: ServerProcess, deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    stays = watch(deployer.client, deployed.id, tail_lines=1, follow=True)
    next(stays)
    made = deployer.client.auth.CreateApiKey(auth_service_pb2.CreateApiKeyRequest(name="short"))
    with Client(server.address, made.secret) as caller:
        stream = watch(caller, deployed.id, tail_lines=1, follow=True)
        next(stream)
        deployer.client.auth.RevokeApiKey(auth_service_pb2.RevokeApiKeyRequest(api_key_id=made.api_key.id))
        assert refusal(lambda read: read, stream).short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    assert next(stays).HasField("heartbeat")
    server.interrupt()
    with pytest.raises(grpc.RpcError) as caught:
        list(stays)
    assert refusal_of(caught.value).short == ("UNAVAILABLE", "SERVER_DRAINING")
