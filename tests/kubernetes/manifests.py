"""Objects for tests of the bed itself, as the level 'restricted' wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SECURE_POD = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
SECURE_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def a_deployment(name: str, *, replicas: int = 1, image: str = "python", **container: Any) -> dict[str, Any]:
    """Of pods with one container, whose volumes are emptyDirs unless `volumes` says otherwise."""
    labels = {"app.kubernetes.io/instance": name}
    volumes = container.pop("volumes", [])
    grace = container.pop("grace_seconds", 5)
    pod = {
        "securityContext": SECURE_POD,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace,
        "volumes": volumes,
        "containers": [{"name": "main", "image": image, "securityContext": SECURE_CONTAINER, **container}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def a_service(name: str, port: int) -> dict[str, Any]:
    """Of the pods of the deployment of that name."""
    spec = {"selector": {"app.kubernetes.io/instance": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def a_config_map(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """With these keys."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}


def a_secret(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """With these keys."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(data)}
