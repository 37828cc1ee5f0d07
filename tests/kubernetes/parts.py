"""The arguments of each part of the control plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes.addresses import FAKE_PODS, network

STAGES = Path(__file__).parent / "stages.yaml"
FAKE = "easyml.test/pods=fake"
PROCESSES = "easyml.test/pods=processes"
USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", "system:masters"),
    "scheduler": ("system:kube-scheduler", ""),
    "kwok": ("kwok", "system:masters"),
    "nobody": ("nobody", ""),
}
"""Whose tokens the API server knows: user and groups by the name of their kubeconfig."""

CONTROLLERS = (
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "horizontal-pod-autoscaler-controller",
    "disruption-controller",
    "job-controller",
    "ttl-after-finished-controller",
    "resourcequota-controller",
    "pod-garbage-collector-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "clusterrole-aggregation-controller",
)
# What throttles clients is of no use here.
UNTHROTTLED = ("--kube-api-qps=200", "--kube-api-burst=400")


@dataclass(frozen=True)
class Place:
    """Where a control plane is: its folder and its ports."""

    folder: Path
    etcd_port: int
    peer_port: int
    api_port: int

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"

    @property
    def url(self) -> str:
        """Of the API server."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def certificate(self) -> tuple[Path, Path]:
        """The API server's own and its key; it is its own authority."""
        return self.folder / "certs" / "apiserver.crt", self.folder / "certs" / "apiserver.key"

    @property
    def signing_key(self) -> Path:
        """Of the tokens of service accounts."""
        return self.folder / "service-account.key"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.csv"

    def kubeconfig(self, user: str) -> Path:
        return self.folder / f"{user}.kubeconfig"


def etcd(place: Place) -> Sequence[str]:
    """Storage."""
    return [str(place.folder / "etcd"), place.etcd_url, f"http://127.0.0.1:{place.peer_port}"]


def api_server(place: Place) -> Sequence[str]:
    """Whoever makes a namespace says by an annotation which nodes its pods are for (PodNodeSelector)."""
    return [
        f"--etcd-servers={place.etcd_url}",
        f"--cert-dir={place.folder / 'certs'}",
        "--bind-address=127.0.0.1",
        # There may be no default route to find an address by.
        "--advertise-address=127.0.0.1",
        f"--secure-port={place.api_port}",
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={network(place.etcd_port)}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={place.tokens}",
        f"--service-account-issuer={place.url}",
        f"--service-account-key-file={place.signing_key}",
        f"--service-account-signing-key-file={place.signing_key}",
        # Pods of a node that is lost would stay for five minutes.
        "--disable-admission-plugins=DefaultTolerationSeconds",
        "--enable-admission-plugins=PodNodeSelector",
        "--allow-privileged=false",
        "--profiling=false",
        "--enable-priority-and-fairness=false",
    ]


def controller_manager(place: Place) -> Sequence[str]:
    """The controllers that EasyML meets; the autoscaler looks every second."""
    return [
        f"--kubeconfig={place.kubeconfig('controllers')}",
        f"--service-account-private-key-file={place.signing_key}",
        f"--root-ca-file={place.certificate[0]}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--secure-port=0",
        "--horizontal-pod-autoscaler-sync-period=1s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        # Nodes say themselves when they are lost, and have no heartbeat.
        "--node-monitor-grace-period=24h",
        "--node-monitor-period=1s",
        "--node-eviction-rate=10",
        "--min-resync-period=10m",
        *UNTHROTTLED,
    ]


def scheduler(place: Place) -> Sequence[str]:
    """Which node a pod runs on."""
    return [f"--kubeconfig={place.kubeconfig('scheduler')}", "--leader-elect=false", "--secure-port=0", *UNTHROTTLED]


def kwok(place: Place) -> Sequence[str]:
    """Nodes on which nothing runs, and the fates of their pods."""
    return [
        f"--kubeconfig={place.kubeconfig('kwok')}",
        f"--config={STAGES}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={FAKE}",
        "--node-lease-duration-seconds=0",
        f"--cidr={FAKE_PODS}",
        "--node-ip=192.168.255.254",
    ]
