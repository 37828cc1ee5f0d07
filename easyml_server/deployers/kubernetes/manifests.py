"""The objects of a revision on a cluster, exactly as they are applied: pure functions of what is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from easyml_server.deployers.kubernetes.names import (
    DEPLOYMENT,
    REVISION,
    deployment_name,
    labels_of,
    revision_name,
)
from easyml_server.deployers.kubernetes.pods import CALLS_PORT, KEYS_FILE, METRICS_PORT, pod_of
from easyml_server.deployers.kubernetes.target import Target
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.deployer import ServedRevision

Object = dict[str, Any]

PULL_SECONDS: Final = 120
"""What an image may take beyond the start of a replica before a rollout counts as stuck."""
KEPT_HISTORIES: Final = 1


def manifests(revision: ServedRevision, source: StoredSource, target: Target) -> Sequence[Object]:
    """In the order in which they are to be made: what pods need is there before them."""
    labels = labels_of(revision, target.owner)
    name = revision_name(revision)

    def made(version: str, kind: str, named: str = name, **parts: Any) -> Object:
        metadata = {"name": named, "namespace": target.namespace, "labels": labels}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}

    objects = [
        made("v1", "ConfigMap", data={KEYS_FILE: target.keys}),
        made("networking.k8s.io/v1", "NetworkPolicy", spec=_network_policy(revision)),
        made("v1", "Service", spec=_service(revision)),
        made("apps/v1", "Deployment", spec=_deployment(revision, source, target, labels)),
    ]
    if revision.replicas > 1:
        objects.append(made("policy/v1", "PodDisruptionBudget", spec=_disruption_budget(revision)))
    if revision.active:
        objects.append(made("v1", "Service", deployment_name(revision), spec=_service(revision)))
    return objects


def selected(revision: ServedRevision) -> dict[str, str]:
    """The labels by which the pods of a revision are told from all others; they can never change."""
    return {DEPLOYMENT: str(revision.deployment_id), REVISION: str(revision.id)}


def _deployment(revision: ServedRevision, source: StoredSource, target: Target, labels: dict[str, str]) -> Object:
    return {
        "replicas": revision.replicas,
        "revisionHistoryLimit": KEPT_HISTORIES,
        "progressDeadlineSeconds": PULL_SECONDS + math.ceil(revision.probes.startup_seconds),
        "selector": {"matchLabels": selected(revision)},
        # The pods of a revision change with what the operator set only, such as the image: one after the other then.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": labels},
            "spec": pod_of(revision, source, target, keys=revision_name(revision)),
        },
    }


def _service(revision: ServedRevision) -> Object:
    """Without an address of its own: its name stands for the pods, so that gRPC can share calls among them."""
    return {
        "type": "ClusterIP",
        "clusterIP": "None",
        "selector": selected(revision),
        "ports": [
            {
                "name": "grpc",
                "port": CALLS_PORT,
                "targetPort": "grpc",
                "protocol": "TCP",
                "appProtocol": "kubernetes.io/h2c",
            },
            {"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"},
        ],
    }


def _network_policy(revision: ServedRevision) -> Object:
    """Nobody reaches more of a pod than its two ports."""
    ports = [{"protocol": "TCP", "port": port} for port in (CALLS_PORT, METRICS_PORT)]
    return {
        "podSelector": {"matchLabels": selected(revision)},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": ports}],
    }


def _disruption_budget(revision: ServedRevision) -> Object:
    return {
        "maxUnavailable": 1,
        # Else a pod that does not become ready keeps its node from being emptied.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selected(revision)},
    }
