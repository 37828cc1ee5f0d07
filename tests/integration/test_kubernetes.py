"""Deployments on a cluster as callers see them, from the store of files to the last object that is taken away."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import yaml

from easyml.v1 import deployment_logs_pb2, deployment_pb2
from easyml.v1 import deployment_manifests_pb2 as manifests_pb2
from easyml.v1 import deployment_service_pb2 as pb
from tests.conformance.clusters import IMAGE, Namespace
from tests.integration.test_rpcs_deployments import Deployer, made_by, under_load
from tests.integration.test_rpcs_traffic import standing_by, weights, with_steps
from tests.kubernetes.cluster import Cluster
from tests.marks import answers, refuses
from tests.proxy import Proxy
from tests.proxy import proxy as proxy_to
from tests.s3 import S3Server, s3, s3_environment
from tests.servers import Client, ServerProcess, environment, eventually, refusal

KUBERNETES = deployment_pb2.DEPLOYMENT_TARGET_KUBERNETES
PROGRAM = "tests.kubernetes.server"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with s3() as store, s3_environment(store):
        yield store


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    """One where the credentials of the store lie."""
    namespace = Namespace(cluster, tmp_path_factory.mktemp("namespace"))
    secret = {name: base64.b64encode(value.encode()).decode() for name, value in store.environment().items()}
    namespace.make("api/v1", "secrets", {"metadata": {"name": "store"}, "data": secret})
    return namespace


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """Between the server and the API."""
    with proxy_to("127.0.0.1", cluster.plane.place.api_port) as found:
        yield found


@pytest.fixture(scope="module")
def server(
    namespace: Namespace,
    store: S3Server,
    proxy: Proxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    settings = {
        "ARTIFACT_URL": f"s3://{store.new_bucket()}/easyml",
        "KUBERNETES_NAMESPACE": namespace.name,
        "KUBERNETES_IMAGE": IMAGE,
        "KUBERNETES_STORE_SECRET": "store",
        "KUBECONFIG_FILE": str(namespace.servers_rights(f"https://127.0.0.1:{proxy.port}")),
    }
    server = ServerProcess(tmp_path_factory.mktemp("cluster") / "data", settings, program=PROGRAM).start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.interrupt()


@pytest.fixture(scope="module")
def deployer(server: ServerProcess) -> Iterator[Deployer]:
    with Client(server.address, server.key) as client:
        yield made_by(client)


def on_the_cluster(**parts: Any) -> deployment_pb2.DeploymentConfig:
    """Whose pods are slow now and then without being taken for dead."""
    probes = deployment_pb2.Probes(startup_seconds=120, timeout_seconds=20)
    return deployment_pb2.DeploymentConfig(target=KUBERNETES, probes=probes, **parts)


def test_what_a_cluster_would_refuse_is_told_before_anything_is_made(deployer: Deployer, namespace: Namespace) -> None:
    config = on_the_cluster()
    deployer.create(config=config, validate_only=True)
    namespace.make(
        "api/v1", "resourcequotas", {"metadata": {"name": "none"}, "spec": {"hard": {"count/services": "0"}}}
    )
    eventually(lambda: "used" in namespace.objects("api/v1", "resourcequotas")[0].get("status", {}))
    request = deployer.request(config=config, validate_only=True)
    refused = refusal(deployer.client.deployments.CreateDeployment, request)
    assert (refused.code, refused.metadata["cluster"]) == (grpc.StatusCode.FAILED_PRECONDITION, "quota_exceeded")
    namespace.delete("api/v1", "resourcequotas", "none")
    assert namespace.left() == []


@answers("DeploymentService/RenderManifests")
@refuses("DeploymentService/RenderManifests")
def test_a_deployment_moves_from_the_server_to_a_cluster_under_load_and_nothing_of_it_is_left(
    server: ServerProcess, deployer: Deployer, namespace: Namespace
) -> None:
    deployed = deployer.ready(deployer.create().id)
    with under_load(deployer, deployed.id) as load:
        config = on_the_cluster()
        config.MergeFrom(with_steps((50, 0)))
        assert weights(standing_by(deployer, deployed.id, config)) == {1: 50, 2: 50}
        eventually(lambda: {deployer.first, deployer.second} <= set(load.answered[-50:]))
        deployer.client.deployments.PromoteDeployment(pb.PromoteDeploymentRequest(deployment_id=deployed.id))
        (replica,) = deployer.ready(deployed.id).replicas
        assert not replica.endpoint.startswith("127.0.0.1:")
        assert deployer.ask(deployed.id) == deployer.second

        deployer.update(deployed.id, deployer.first, config=on_the_cluster(scaling={"replicas": 2}))
        assert deployer.ready(deployed.id).ready_replicas == 2
    assert deployer.ask(deployed.id) == deployer.first
    # Those of a revision go once its pods have gone.
    eventually(lambda: len(namespace.objects("apis/apps/v1", "deployments")) == 1)
    (found,) = namespace.objects("apis/apps/v1", "deployments")
    revision = found["metadata"]["labels"]["easyml.io/revision-id"]
    stable = [
        each for each in namespace.objects("api/v1", "services") if each["metadata"]["name"].endswith(deployed.id[:8])
    ]
    assert [each["spec"]["selector"]["easyml.io/revision-id"] for each in stable] == [revision]
    assert {line.revision for line in logged(deployer, deployed.id)} == {3}
    manifests = rendered(deployer, deployed.id)
    assert [each["kind"] for each in manifests].count("Service") == 2
    applied(namespace, manifests)
    assert list(yaml.safe_load_all(typed(server, "deployments", "render", deployed.id))) == manifests
    as_json = json.loads(typed(server, "deployments", "render", deployed.id, "--json"))
    assert (as_json["revision"], list(yaml.safe_load_all(as_json["manifests"]))) == (3, manifests)
    refused = refusal(deployer.client.deployments.RenderManifests, a_render(deployed.id, revision=1))
    assert (refused.code, refused.metadata["target"]) == (grpc.StatusCode.FAILED_PRECONDITION, "local")
    deployer.delete(deployed.id)
    eventually(lambda: namespace.left() == [])


def test_an_api_server_that_is_away_in_the_middle_of_a_rollout_fails_no_call(
    deployer: Deployer, namespace: Namespace, proxy: Proxy
) -> None:
    deployed = deployer.ready(deployer.create(config=on_the_cluster()).id)
    with under_load(deployer, deployed.id):
        proxy.down()
        deployer.update(deployed.id, deployer.second)
        away = deployer.until(deployed.id, lambda now: "ClusterUnavailable" in {each.reason for each in now.conditions})
        assert (away.active_revision, away.latest_revision) == (1, 2)
        proxy.up()
        deployer.ready(deployed.id)
    assert deployer.ask(deployed.id) == deployer.second
    deployer.delete(deployed.id)
    eventually(lambda: namespace.left() == [])


def typed(server: ServerProcess, *words: str) -> str:
    """What `easyml` prints for the owner of a server."""
    variables = environment({"DATA_DIR": str(server.data)}) | {"XDG_CONFIG_HOME": str(server.data.parent)}
    command = [sys.executable, "-m", "easyml_client.cli", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout


def a_render(deployment_id: str, revision: int = 0) -> manifests_pb2.RenderManifestsRequest:
    return manifests_pb2.RenderManifestsRequest(deployment_id=deployment_id, revision=revision)


def rendered(deployer: Deployer, deployment_id: str) -> list[dict[str, Any]]:
    """The objects of its newest revision."""
    said = deployer.client.deployments.RenderManifests(a_render(deployment_id))
    return list(yaml.safe_load_all(said.manifests))


def applied(namespace: Namespace, manifests: list[dict[str, Any]]) -> None:
    """What was rendered is what is there: to apply it again changes nothing."""
    for each in manifests:
        version, plural = each["apiVersion"], f"{each['kind'].lower()}s".replace("policys", "policies")
        root = "api/v1" if version == "v1" else f"apis/{version}"
        there = {found["metadata"]["name"]: found for found in namespace.objects(root, plural)}[
            each["metadata"]["name"]
        ]
        path = f"/{root}/namespaces/{namespace.name}/{plural}/{each['metadata']['name']}"
        query = "?fieldManager=easyml-server&fieldValidation=Strict&dryRun=All"
        again = namespace.cluster.plane.call("PATCH", path + query, each, "application/apply-patch+yaml")
        # What has a status changes whenever that does; its generation does not.
        mark = "generation" if "generation" in there["metadata"] else "resourceVersion"
        assert again["metadata"][mark] == there["metadata"][mark]


def logged(deployer: Deployer, deployment_id: str) -> list[deployment_logs_pb2.DeploymentLogLine]:
    """The last lines of its replicas."""
    request = deployment_logs_pb2.WatchDeploymentLogsRequest(deployment_id=deployment_id, tail_lines=5)
    watch = deployer.client.deployments.WatchDeploymentLogs(request)
    return [line for said in watch for line in said.lines.lines]
