"""What the status of a pod, and the events around it, mean for a replica."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from easyml_server.deployers.kubernetes.replicas import (
    Warned,
    fault_of,
    fault_of_deployment,
    fault_of_refusal,
    is_ours,
    metrics_of,
    replica_of,
)
from easyml_server.domain.deployments import ReplicaFailureReason as Reason
from easyml_server.domain.deployments import ReplicaState

UID = "dddddddd-0000-4000-8000-000000000004"
LATER = datetime(2026, 1, 2, tzinfo=UTC)


def a_pod(state: dict[str, Any] | None = None, *, ready: bool = False, **more: Any) -> dict[str, Any]:
    container = {"name": "model-server", "restartCount": 0, "state": state or {"running": {}}, "lastState": {}}
    labels = {"app.kubernetes.io/version": "3", "easyml.io/revision-id": UID}
    return {
        "metadata": {"uid": UID, "name": "pod", "labels": labels},
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [container | more],
        },
    }


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": "2026-01-01T00:00:00Z"}}


def test_a_ready_pod_answers_at_its_address_and_no_other_does() -> None:
    replica = replica_of(a_pod(ready=True, restartCount=2), None, lambda address: address.replace("10.", "127."))
    assert (replica.id, replica.revision, replica.state) == (UUID(UID), 3, ReplicaState.READY)
    assert (replica.endpoint, replica.metrics_endpoint) == ("127.1.2.3:50051", "127.1.2.3:9090")
    assert (replica.restarts, replica.machine) == (2, "")
    six = a_pod(ready=True)
    six["status"]["podIP"] = "fd00::3"
    assert replica_of(six, None, str).endpoint == "[fd00::3]:50051"
    starting = replica_of(a_pod(), None, str)
    assert (starting.state, starting.endpoint) == (ReplicaState.STARTING, "")
    leaving = a_pod(ready=True)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert (replica_of(leaving, None, str).state, replica_of(leaving, None, str).endpoint) == (
        ReplicaState.STOPPING,
        "",
    )
    assert metrics_of(leaving, str) == "10.1.2.3:9090"
    assert metrics_of(a_pod(ended(1)), str) == ""


def test_pods_of_others_and_those_that_have_ended_are_no_replicas() -> None:
    assert is_ours(a_pod())
    for labels in (
        {},
        {"easyml.io/revision-id": "x"},
        {"easyml.io/revision-id": UID, "app.kubernetes.io/version": "v"},
    ):
        pod = a_pod()
        pod["metadata"]["labels"] = labels
        assert not is_ours(pod)
    evicted = a_pod()
    evicted["status"]["phase"] = "Failed"
    assert not is_ours(evicted)


@pytest.mark.parametrize(
    ("code", "reason", "meant", "exit_code"),
    [
        (1, "Error", Reason.EXITED, 1),
        (0, "Completed", Reason.EXITED, 0),
        (137, "Error", Reason.EXITED, -9),
        (255, "Error", Reason.EXITED, 255),
        (2, "Error", Reason.CANNOT_START, 2),
        (3, "Error", Reason.MODEL_REFUSED, 3),
        (4, "Error", Reason.ARTIFACT_UNAVAILABLE, 4),
        (137, "OOMKilled", Reason.OUT_OF_MEMORY, -9),
        (128, "StartError", Reason.CANNOT_START, 128),
    ],
)
def test_the_end_of_a_container_has_a_meaning(code: int, reason: str, meant: Reason, exit_code: int) -> None:
    back_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    pod = a_pod(back_off, restartCount=1, lastState=ended(code, reason))
    fault = fault_of(pod, None)
    assert fault is not None
    assert (fault.reason, fault.exit_code, fault.ended) == (meant, exit_code, 1)
    assert replica_of(pod, None, str).state is ReplicaState.BACKING_OFF
    just_now = fault_of(a_pod(ended(code, reason)), None)
    assert just_now == fault
    again = fault_of(a_pod({"running": {}}, restartCount=2, lastState=ended(code, reason)), None)
    assert again != fault, "it is another end"


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        ("ImagePullBackOff", Reason.IMAGE_UNAVAILABLE),
        ("InvalidImageName", Reason.IMAGE_UNAVAILABLE),
        ("CreateContainerConfigError", Reason.CONFIGURATION_UNAVAILABLE),
        ("CreateContainerError", Reason.CANNOT_START),
    ],
)
def test_what_a_container_waits_for_is_told_in_the_clusters_words(reason: str, meant: Reason) -> None:
    pod = a_pod({"waiting": {"reason": reason, "message": 'secret "x"\n not found.'}})
    fault = fault_of(pod, None)
    assert fault is not None
    assert (fault.reason, fault.message) == (meant, f'{reason}: secret "x" not found.')
    assert replica_of(pod, None, str).state is ReplicaState.BACKING_OFF
    assert fault_of(a_pod({"waiting": {"reason": "ContainerCreating"}}), None) is None


def test_events_say_whom_a_kubelet_killed_and_why() -> None:
    killed = a_pod({"running": {}}, restartCount=1, lastState=ended(143))
    for message, meant in (
        ("Container model-server failed startup probe, will be restarted", Reason.START_TIMEOUT),
        ("Container model-server failed liveness probe, will be restarted", Reason.UNRESPONSIVE),
        ("Stopping container model-server", Reason.EXITED),
    ):
        fault = fault_of(killed, Warned("Killing", message, LATER))
        assert fault is not None
        assert fault.reason is meant
    of_one_before = fault_of(killed, Warned("Killing", "failed liveness probe", datetime(2025, 1, 1, tzinfo=UTC)))
    assert of_one_before is not None
    assert of_one_before.reason is Reason.EXITED
    mount = fault_of(a_pod({"waiting": {"reason": "ContainerCreating"}}), Warned("FailedMount", "no map", LATER))
    assert mount is not None
    assert mount.reason is Reason.CONFIGURATION_UNAVAILABLE


def test_a_pod_without_a_node_says_why() -> None:
    pod = a_pod()
    pod["status"] = {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]
    }
    fault = fault_of(pod, None)
    assert fault is not None
    assert (fault.reason, fault.message) == (Reason.UNSCHEDULABLE, "No node takes it: 0/3.")


def test_what_a_cluster_refuses_has_a_reason() -> None:
    assert fault_of_refusal('pods "x" is forbidden: exceeded quota: small').reason is Reason.QUOTA_EXCEEDED
    assert fault_of_refusal('pods "x" is forbidden: violates PodSecurity').reason is Reason.FORBIDDEN
    assert fault_of_refusal('namespaces "x" not found', forbidden=True).reason is Reason.FORBIDDEN
    assert fault_of_refusal("field not declared in schema").reason is Reason.CANNOT_START
    failed = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
    for condition, meant in ((failed, Reason.QUOTA_EXCEEDED), (late, Reason.START_TIMEOUT)):
        fault = fault_of_deployment({"status": {"conditions": [condition]}})
        assert fault is not None
        assert fault.reason is meant
    assert fault_of_deployment({"status": {"conditions": [failed | {"status": "False"}]}}) is None
    assert fault_of_deployment({}) is None
