"""A cluster to test deployers on, and hands on what they run there: processes that stand for pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from easyml_server.deployers.kubernetes.connection import connecting
from easyml_server.deployers.kubernetes.deployer import KubernetesDeployer, start_deployer
from easyml_server.deployers.kubernetes.names import OWNER
from easyml_server.deployers.kubernetes.target import Target, read_keys
from easyml_server.domain.deployments import Replica
from easyml_server.security.tokens import Ed25519Signer
from tests.conformance.deployers import LIMITS, LONG_SECONDS
from tests.kubernetes.addresses import here
from tests.kubernetes.cluster import Cluster
from tests.servers import ROOT

IMAGE = "registry.example/easyml:test"
RIGHTS = ROOT / "deploy" / "kubernetes" / "rbac.yaml"


def _resolve(address: str) -> str:
    """Pods in which nothing runs are reached by nobody."""
    return here(address) if address.startswith("10.") else address


@dataclass
class Namespace:
    """Where a deployer on a cluster works; what runs there outlives the deployer."""

    cluster: Cluster
    folder: Path
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.cluster.plane.namespace()
        self._signer = Ed25519Signer(self.folder / "keys")

    @asynccontextmanager
    async def deployer(self, user: str = "admin", server: str = "") -> AsyncIterator[KubernetesDeployer]:
        """A deployer, as after a start of the server; what it started is left running."""
        keys, owner = read_keys(self._signer.jwks_path)
        target = Target(self.name, IMAGE, keys, owner, LIMITS.arguments(), leaving_seconds=0)
        connect = connecting(self.cluster.plane.kubeconfig(user, server=server), "")
        async with start_deployer(connect, target, lambda: datetime.now(UTC), _resolve) as deployer:
            yield deployer

    @asynccontextmanager
    async def emptied(self, user: str = "admin", server: str = "") -> AsyncIterator[KubernetesDeployer]:
        """The same, and nothing is left."""
        async with self.deployer(user, server) as deployer:
            yield deployer
            deployer.retain(())
            await deployer.settled()
        assert self.left(owner=read_keys(self._signer.jwks_path)[1]) == []

    def send(self, replica: Replica, number: int) -> None:
        """A signal to what runs a replica."""
        self.cluster.send(self.name, self._pod(replica)["metadata"]["name"], number)

    def runs(self, replica: Replica) -> bool:
        """Whether anything is left of a replica that ran."""
        return any(pod["metadata"]["uid"] == str(replica.id) for pod in self.objects("api/v1", "pods"))

    def environment(self, replica: Replica) -> dict[str, str]:
        """The variables of what runs a replica, those that it gets from a secret left out."""
        (container,) = self._pod(replica)["spec"]["containers"]
        return {each["name"]: each["value"] for each in container["env"] if "value" in each}

    def token(self, deployment_id: UUID) -> str:
        return self._signer.sign_identity(uuid4(), str(deployment_id), datetime.now(UTC))

    def objects(self, version: str, kind: str) -> list[dict[str, Any]]:
        """All of a kind in the namespace."""
        found: list[dict[str, Any]] = self.cluster.plane.call("GET", f"/{version}/namespaces/{self.name}/{kind}")[
            "items"
        ]
        return found

    async def until(self, version: str, kind: str, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Returns once the objects of a kind are as they should be."""
        async with asyncio.timeout(LONG_SECONDS):
            while not holds(self.objects(version, kind)):  # noqa: ASYNC110 (asked as whoever watches by eye)
                await asyncio.sleep(0.1)

    def servers_rights(self, server: str) -> Path:
        """The kubeconfig of a service account that may do here what deploy/kubernetes lets servers do, and no more."""
        text = RIGHTS.read_text()
        for theirs in ("easyml-models", "easyml"):
            text = text.replace(f"namespace: {theirs}\n", f"namespace: {self.name}\n")
        applied = self.cluster.plane.kubectl("apply", "--server-side", "-f", "-", given=text)
        assert applied.returncode == 0, applied.stderr
        return self.cluster.plane.kubeconfig_of(self.name, "easyml-server", server=server)

    def delete(self, version: str, kind: str, name: str) -> None:
        """As somebody may by hand."""
        self.cluster.plane.call("DELETE", f"/{version}/namespaces/{self.name}/{kind}/{name}")

    def make(self, version: str, kind: str, content: dict[str, Any]) -> None:
        """An object of somebody else's."""
        self.cluster.plane.call("POST", f"/{version}/namespaces/{self.name}/{kind}", json.loads(json.dumps(content)))

    def left(self, owner: str = "") -> list[str]:
        """What there is of anybody's, or of those with a signing key."""
        kinds = {
            "api/v1": ("configmaps", "services", "pods"),
            "apis/apps/v1": ("deployments", "replicasets"),
            "apis/policy/v1": ("poddisruptionbudgets",),
            "apis/networking.k8s.io/v1": ("networkpolicies",),
        }
        return [
            f"{kind}/{found['metadata']['name']}"
            for version, names in kinds.items()
            for kind in names
            for found in self.objects(version, kind)
            if found["metadata"]["name"] != "kube-root-ca.crt"
            if owner in ("", found["metadata"].get("labels", {}).get(OWNER))
        ]

    def _pod(self, replica: Replica) -> dict[str, Any]:
        (pod,) = (pod for pod in self.objects("api/v1", "pods") if pod["metadata"]["uid"] == str(replica.id))
        return pod
