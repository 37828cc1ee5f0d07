"""The pods of a revision, which a namespace of the level 'restricted' admits."""

from __future__ import annotations

import math
from typing import Any, Final

from easyml_server.deployers.child import ENVIRONMENT
from easyml_server.deployers.kubernetes.target import Target
from easyml_server.domain.containers import Container
from easyml_server.domain.deployments import Probes
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.deployer import ServedRevision

CONTAINER: Final = "model-server"
COMMAND: Final = "easyml-model-server"
CALLS_PORT: Final = 50051
METRICS_PORT: Final = 9090
KEYS_FOLDER: Final = "/etc/easyml"
KEYS_FILE: Final = "jwks.json"
SCRATCH: Final = "/tmp"  # noqa: S108 (the pod's own, empty volume)

DRAIN_SECONDS: Final = 20
ENDING_SECONDS: Final = 2
SCRATCH_SIZE: Final = "2Gi"
STARTUP_PERIOD_SECONDS: Final = 1
UNRESPONSIVE_SECONDS: Final = 2
"""One that does not answer any more answers no calls either, and is not waited for."""
USER: Final = 10001

_RESTRICTED: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_of(revision: ServedRevision, source: StoredSource, target: Target, keys: str) -> dict[str, Any]:
    """The specification of a pod; `keys` is the ConfigMap of the public keys."""
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": target.leaving_seconds + DRAIN_SECONDS + ENDING_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(revision, source, target)],
        "volumes": [
            {"name": "keys", "configMap": {"name": keys}},
            {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_SIZE}},
        ],
    }
    if target.service_account:
        pod["serviceAccountName"] = target.service_account
    if target.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": target.image_pull_secret}]
    return pod


def _container(revision: ServedRevision, source: StoredSource, target: Target) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": revision.container.base_image or target.image,
        "imagePullPolicy": target.image_pull_policy,
        "command": [COMMAND],
        "args": arguments_of(revision, source, target),
        "ports": [
            {"name": "grpc", "containerPort": CALLS_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "env": _variables(revision.container),
        "securityContext": _RESTRICTED,
        "lifecycle": {"preStop": {"sleep": {"seconds": target.leaving_seconds}}},
        "volumeMounts": [
            {"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
        ],
        **_probes(revision.probes),
    }
    if target.store_secret:
        container["envFrom"] = [{"secretRef": {"name": target.store_secret}}]
    if resources := _resources(revision.container):
        container["resources"] = resources
    return container


def arguments_of(revision: ServedRevision, source: StoredSource, target: Target) -> list[str]:
    """What the model server is told."""
    version = str(revision.model.version_id)
    names = [f"--name={name}={version}" for name in revision.names if name.lower() != version]
    return [
        f"--model={version}={source.url}@sha256:{source.manifest_sha256}",
        *names,
        f"--audience={revision.deployment_id}",
        f"--jwks={KEYS_FOLDER}/{KEYS_FILE}",
        "--host=0.0.0.0",
        f"--port={CALLS_PORT}",
        f"--metrics-port={METRICS_PORT}",
        f"--drain-grace-seconds={DRAIN_SECONDS}",
        "--log-format=json",
        *target.arguments,
    ]


def _variables(container: Container) -> list[dict[str, Any]]:
    """Ours first: what is asked for may say otherwise, but for what decides how the model server runs."""
    plain = {**ENVIRONMENT, "TMPDIR": SCRATCH, "HOME": SCRATCH, **dict(container.environment)}
    given = {secret.variable for secret in container.secrets}
    return [
        *({"name": name, "value": value} for name, value in plain.items() if name not in given),
        *(
            {"name": each.variable, "valueFrom": {"secretKeyRef": {"name": each.secret, "key": each.key}}}
            for each in container.secrets
        ),
    ]


def _resources(container: Container) -> dict[str, Any]:
    asked = {
        "requests": {"cpu": container.cpu_request, "memory": container.memory_request},
        "limits": {"cpu": container.cpu_limit, "memory": container.memory_limit},
    }
    kept = {kind: {name: value for name, value in values.items() if value} for kind, values in asked.items()}
    return {kind: values for kind, values in kept.items() if values}


def _probes(probes: Probes) -> dict[str, Any]:
    """A model server listens once its model has predicted, so that to be asked and to be ready are the same."""
    timeout = max(1, math.ceil(probes.timeout_seconds))
    period = max(1, math.ceil(probes.period_seconds))
    attempts = max(1, math.ceil(probes.startup_seconds / STARTUP_PERIOD_SECONDS))
    asked = {"timeoutSeconds": timeout, "failureThreshold": probes.failure_threshold, "periodSeconds": period}
    alive = {
        "grpc": {"port": CALLS_PORT, "service": "liveness"},
        "terminationGracePeriodSeconds": UNRESPONSIVE_SECONDS,
    }
    return {
        "startupProbe": {
            **alive,
            "timeoutSeconds": timeout,
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "failureThreshold": attempts,
        },
        "livenessProbe": {**alive, **asked},
        "readinessProbe": {"grpc": {"port": CALLS_PORT}, **asked},
    }
