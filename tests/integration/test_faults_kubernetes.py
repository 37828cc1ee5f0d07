"""Deployments on a cluster that does not do as it is told, as the deployer meets it: pods in which nothing runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from easyml_server.deployers.kubernetes.deployer import KubernetesDeployer
from easyml_server.domain.containers import Container, SecretReference
from easyml_server.domain.deployments import Replica, ReplicaFailure
from easyml_server.domain.deployments import ReplicaFailureReason as Reason
from easyml_server.domain.errors import Unavailable
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.deployer import ServedRevision
from tests.conformance.clusters import Namespace
from tests.conformance.deployers import LONG_SECONDS, a_revision, ready, until
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.parts import FAKE
from tests.proxy import Proxy, proxy

pytestmark = pytest.mark.slow


def ids(found: list[dict[str, Any]]) -> dict[str, str]:
    """Of objects of ours, by name."""
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in found if "easyml" in each["metadata"]["name"]}


@pytest.fixture
def fake(cluster: Cluster, tmp_path: Path) -> Namespace:
    """A namespace in whose pods nothing runs: they are ready, or fail as their image is called."""
    return Namespace(cluster, tmp_path, cluster.plane.namespace(FAKE))


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Proxy]:
    """Between a deployer and the API."""
    with proxy("127.0.0.1", cluster.plane.place.api_port) as api:
        yield api


def of_nothing(**parts: Any) -> ServedRevision:
    """A revision whose model is nowhere; pods in which nothing runs do not miss it."""

    async def source() -> StoredSource:
        return StoredSource("file:///nowhere", "0" * 64)

    revision = a_revision(Path("nowhere"))
    return replace(revision, model=replace(revision.model, source=source), **parts)


async def known(deployer: KubernetesDeployer, revision: ServedRevision) -> list[Replica]:
    """Its replicas, once the cluster has told of them."""
    async with asyncio.timeout(LONG_SECONDS):
        while True:
            try:
                return list(deployer.replicas(revision.id))
            except Unavailable:
                await deployer.changed()


def made_again(before: dict[str, str], found: list[dict[str, Any]]) -> bool:
    """Whether there are others of the same names."""
    return ids(found).keys() == before.keys() and not set(ids(found).values()) & set(before.values())


async def failing(deployer: KubernetesDeployer, revision: ServedRevision) -> ReplicaFailure:
    """Why a replica of it is not ready."""
    (replica, *_) = await until(deployer, revision, lambda all_: any(each.last_failure for each in all_))
    assert replica.state.awaited
    assert replica.last_failure is not None
    return replica.last_failure


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        (Container("registry.example/missing:1"), Reason.IMAGE_UNAVAILABLE),
        (Container("registry.example/crash:1"), Reason.EXITED),
        (Container(cpu_request="1000"), Reason.UNSCHEDULABLE),
    ],
)
async def test_what_keeps_a_pod_from_running_is_told(fake: Namespace, container: Container, reason: Reason) -> None:
    revision = of_nothing(container=container)
    async with fake.emptied() as deployer:
        deployer.apply(revision)
        assert (await failing(deployer, revision)).reason is reason


async def test_what_somebody_deletes_by_hand_is_made_again(fake: Namespace) -> None:
    revision = of_nothing(active=True)
    async with fake.emptied() as deployer:
        deployer.apply(revision)
        await ready(deployer, revision)
        # Pods are ready before the last of them is there.
        await fake.until("api/v1", "services", lambda found: len(ids(found)) == 2)
        for version, kind in (("api/v1", "services"), ("api/v1", "configmaps"), ("apis/apps/v1", "deployments")):
            before = ids(fake.objects(version, kind))
            for name in before:
                fake.delete(version, kind, name)
            await fake.until(version, kind, partial(made_again, before))
        await ready(deployer, revision)


async def test_a_quota_that_is_used_up_is_told_and_its_revision_gets_well_with_more(fake: Namespace) -> None:
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"count/deployments.apps": "0"}}}
    fake.make("api/v1", "resourcequotas", quota)
    await fake.until("api/v1", "resourcequotas", lambda found: "used" in found[0].get("status", {}))
    revision = of_nothing()
    async with fake.emptied() as deployer:
        deployer.apply(revision)
        failure = await failing(deployer, revision)
        assert failure.reason is Reason.QUOTA_EXCEEDED
        assert "small" in failure.message
        fake.delete("api/v1", "resourcequotas", "small")
        await ready(deployer, revision)


async def test_a_namespace_that_is_not_there_is_told(cluster: Cluster, tmp_path: Path) -> None:
    revision = of_nothing()
    async with Namespace(cluster, tmp_path, "not-there").emptied() as deployer:
        deployer.apply(revision)
        failure = await failing(deployer, revision)
    assert failure.reason is Reason.FORBIDDEN
    assert '"not-there" not found' in failure.message


async def test_a_secret_that_is_missing_is_told_and_once_it_is_there_so_is_a_model_that_is_not(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace = Namespace(cluster, tmp_path)
    revision = of_nothing(container=Container(secrets=(SecretReference("PASSWORD", "database", "password"),)))
    async with namespace.emptied() as deployer:
        deployer.apply(revision)
        failure = await failing(deployer, revision)
        assert failure.reason is Reason.CONFIGURATION_UNAVAILABLE
        assert 'secret "database" not found' in failure.message
        namespace.make("api/v1", "secrets", {"metadata": {"name": "database"}, "stringData": {"password": "x"}})
        (replica,) = await until(deployer, revision, has_lines)
    assert replica.last_failure is not None
    assert (replica.last_failure.reason, replica.last_failure.exit_code) == (Reason.ARTIFACT_UNAVAILABLE, 4)
    assert "it cannot be fetched" in replica.last_failure.log_lines[-1]


def has_lines(replicas: list[Replica]) -> bool:
    failure = replicas[0].last_failure
    return failure is not None and bool(failure.log_lines)


async def test_rights_that_are_missing_are_told(fake: Namespace) -> None:
    revision = of_nothing()
    async with fake.deployer("nobody") as deployer:
        deployer.retain(())
        deployer.apply(revision)
        failure = await failing(deployer, revision)
    assert failure.reason is Reason.FORBIDDEN
    assert 'User "nobody" cannot list' in failure.message


async def test_an_api_server_that_is_away_harms_nobody_and_what_was_asked_for_meanwhile_is_done_when_it_is_back(
    fake: Namespace, api: Proxy
) -> None:
    api.up()
    running, wanted = of_nothing(replicas=2), of_nothing()
    async with fake.emptied(server=f"https://127.0.0.1:{api.port}") as deployer:
        deployer.retain(())
        deployer.apply(running)
        before = await ready(deployer, running)
        api.down()
        deployer.apply(wanted)
        failure = await failing(deployer, wanted)
        assert failure.reason is Reason.CLUSTER_UNAVAILABLE
        assert list(deployer.replicas(running.id)) == before
        api.up()
        await ready(deployer, wanted)
        assert list(deployer.replicas(running.id)) == before


async def test_a_server_that_starts_while_the_cluster_is_away_does_not_take_what_runs_for_gone(
    fake: Namespace, api: Proxy
) -> None:
    api.up()
    revision = of_nothing()
    async with fake.deployer(server=f"https://127.0.0.1:{api.port}") as deployer:
        deployer.apply(revision)
        before = await ready(deployer, revision)
    api.down()
    async with fake.emptied(server=f"https://127.0.0.1:{api.port}") as deployer:
        deployer.apply(revision)
        with pytest.raises(Unavailable, match="does not answer"):
            deployer.replicas(revision.id)
        api.up()
        assert await known(deployer, revision) == before
