"""Deployments on a cluster as callers see them, from the store of files to the last object that is taken away."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from easyml.v1 import deployment_pb2
from easyml.v1 import deployment_service_pb2 as pb
from tests.conformance.clusters import IMAGE, Namespace
from tests.integration.test_rpcs_deployments import Deployer, made_by, under_load
from tests.integration.test_rpcs_traffic import standing_by, weights, with_steps
from tests.kubernetes.cluster import Cluster
from tests.proxy import Proxy
from tests.proxy import proxy as proxy_to
from tests.s3 import S3Server, s3, s3_environment
from tests.servers import Client, ServerProcess, eventually

KUBERNETES = deployment_pb2.DEPLOYMENT_TARGET_KUBERNETES
PROGRAM = "tests.kubernetes.server"


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
    cluster: Cluster,
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
        "KUBECONFIG_FILE": str(cluster.plane.kubeconfig(server=f"https://127.0.0.1:{proxy.port}")),
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
    return deployment_pb2.DeploymentConfig(target=KUBERNETES, **parts)


def test_a_version_is_replaced_on_a_cluster_under_load_and_nothing_of_it_is_left(
    deployer: Deployer, namespace: Namespace
) -> None:
    deployed = deployer.ready(deployer.create(config=on_the_cluster(scaling={"replicas": 2})).id)
    (first,) = namespace.objects("apis/apps/v1", "deployments")
    assert first["spec"]["replicas"] == 2
    assert deployer.ask(deployed.id) == deployer.first
    with under_load(deployer, deployed.id) as load:
        config = on_the_cluster(scaling={"replicas": 1})
        config.MergeFrom(with_steps((50, 0)))
        assert weights(standing_by(deployer, deployed.id, config)) == {1: 50, 2: 50}
        eventually(lambda: {deployer.first, deployer.second} <= set(load.answered[-50:]))
        deployer.client.deployments.PromoteDeployment(pb.PromoteDeploymentRequest(deployment_id=deployed.id))
        deployer.ready(deployed.id)
    assert deployer.ask(deployed.id) == deployer.second
    (service,) = (
        found
        for found in namespace.objects("api/v1", "services")
        if found["metadata"]["name"].endswith(deployed.id[:8])
    )
    assert (
        service["spec"]["selector"]["easyml.io/revision-id"] == service["metadata"]["labels"]["easyml.io/revision-id"]
    )
    deployer.delete(deployed.id)
    eventually(lambda: namespace.left() == [])
