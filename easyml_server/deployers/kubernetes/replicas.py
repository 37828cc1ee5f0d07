"""What a pod says of a replica: its state, where it answers, and why it does not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from easyml_server.deployers.kubernetes.api import NOT_FOUND, UNAUTHORIZED, Away, Object, Refused
from easyml_server.deployers.kubernetes.names import NUMBER, REVISION, id_in
from easyml_server.deployers.kubernetes.pods import CALLS_PORT, CONTAINER, METRICS_PORT
from easyml_server.domain.deployments import Replica, ReplicaFailure, ReplicaFailureReason, ReplicaState
from easyml_server.domain.errors import EasyMLError

Resolve = Callable[[str], str]
"""From the address of a pod to one at which this server reaches it."""

CANNOT_START: Final = 2
CANNOT_LOAD: Final = 3
CANNOT_FETCH: Final = 4
FORBIDDING: Final = (UNAUTHORIZED, 403, NOT_FOUND)
"""A namespace that is not there, or not ours to see, is answered with the last."""
SIGNALLED: Final = 128
"""A container that a signal ended has its number more than this as its exit code."""

_IMAGE: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
KILLING: Final = "Killing"
FAILED_MOUNT: Final = "FailedMount"
"""Events that say more than a pod's status does: whom the kubelet ended and why, and what a pod waits for."""

_CONFIGURATION: Final = frozenset({"CreateContainerConfigError"})
_START: Final = frozenset({"CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError"})
_NEVER_BEGUN: Final = frozenset({"StartError", "ContainerCannotRun"})
_ENDED: Final = ("Failed", "Succeeded")

_TOLD: Final = {
    CANNOT_START: (ReplicaFailureReason.CANNOT_START, "The model server could not start; its log says why."),
    CANNOT_LOAD: (ReplicaFailureReason.MODEL_REFUSED, "The stored model cannot be served; its log says why."),
    CANNOT_FETCH: (
        ReplicaFailureReason.ARTIFACT_UNAVAILABLE,
        "The files of the model cannot be fetched from the store; its log says why.",
    ),
}


@dataclass(frozen=True, slots=True)
class Warned:
    """What an event last warned of a pod."""

    reason: str
    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a pod is not ready; `ended` is how often its container ended so far, so that each end is one of its own."""

    reason: ReplicaFailureReason
    message: str
    exit_code: int | None = None
    ended: int = 0


def replica_of(pod: Object, failure: ReplicaFailure | None, resolve: Resolve) -> Replica:
    """As it is now."""
    state = state_of(pod)
    address = resolve(pod["status"]["podIP"]) if state is ReplicaState.READY else ""
    return Replica(
        id=UUID(pod["metadata"]["uid"]),
        revision=int(pod["metadata"]["labels"][NUMBER]),
        state=state,
        endpoint=_at(address, CALLS_PORT),
        restarts=_container(pod).get("restartCount", 0),
        last_failure=failure,
        metrics_endpoint=_at(address, METRICS_PORT),
    )


def is_ours(pod: Object) -> bool:
    """Whether it is a pod of a revision, as its labels say, and not one that has ended for good."""
    labels = pod["metadata"].get("labels", {})
    return (
        id_in(labels, REVISION) is not None
        and labels.get(NUMBER, "").isdecimal()
        and pod.get("status", {}).get("phase") not in _ENDED
    )


def metrics_of(pod: Object, resolve: Resolve) -> str:
    """Where a pod tells what it counts, also while it is ending; empty if it never began."""
    if "running" not in _container(pod).get("state", {}):
        return ""
    address = pod["status"].get("podIP", "")
    return _at(resolve(address), METRICS_PORT) if address else ""


def state_of(pod: Object) -> ReplicaState:
    """What it does."""
    if pod["metadata"].get("deletionTimestamp"):
        return ReplicaState.STOPPING
    if _condition(pod, "Ready").get("status") == "True":
        return ReplicaState.READY
    state = _container(pod).get("state", {})
    waits = state.get("waiting", {}).get("reason", "")
    if "terminated" in state or waits == "CrashLoopBackOff" or waits in _IMAGE | _CONFIGURATION | _START:
        return ReplicaState.BACKING_OFF
    return ReplicaState.STARTING


def fault_of(pod: Object, warned: Warned | None) -> Fault | None:
    """Why it is not ready, or was not before; None if nothing was ever in its way."""
    status = _container(pod)
    state = status.get("state", {})
    waiting = state.get("waiting", {})
    for reasons, meaning in (
        (_IMAGE, ReplicaFailureReason.IMAGE_UNAVAILABLE),
        (_CONFIGURATION, ReplicaFailureReason.CONFIGURATION_UNAVAILABLE),
        (_START, ReplicaFailureReason.CANNOT_START),
    ):
        if waiting.get("reason") in reasons:
            return Fault(meaning, _sentence(waiting["reason"], waiting.get("message", "")))
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
    if ended is not None:
        times = status.get("restartCount", 0) + ("terminated" in state)
        return _fault_of_end(ended, times, warned)
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return Fault(ReplicaFailureReason.UNSCHEDULABLE, _sentence("No node takes it", scheduled.get("message", "")))
    if warned is not None and warned.reason == FAILED_MOUNT and not status.get("started"):
        return Fault(ReplicaFailureReason.CONFIGURATION_UNAVAILABLE, _sentence(warned.reason, warned.message))
    return None


def ended_before(pod: Object) -> bool:
    """Whether what its container said before its end is to be asked for as that of a previous one."""
    return "terminated" not in _container(pod).get("state", {})


def fault_of_deployment(deployment: Object) -> Fault | None:
    """Why a Deployment has no more pods, or does not get on."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return fault_of_refusal(condition.get("message", ""))
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            message = _sentence("It was not ready in time", condition.get("message", ""))
            return Fault(ReplicaFailureReason.START_TIMEOUT, message)
    return None


def fault_of_refusal(message: str, *, forbidden: bool = False) -> Fault:
    """What it means that the cluster refused to have an object."""
    if "exceeded quota" in message or "must specify limits" in message:
        return Fault(ReplicaFailureReason.QUOTA_EXCEEDED, _sentence("The quota of the namespace refuses it", message))
    if forbidden or "forbidden" in message:
        return Fault(ReplicaFailureReason.FORBIDDEN, _sentence("The cluster does not allow it", message))
    return Fault(ReplicaFailureReason.CANNOT_START, _sentence("The cluster refuses it", message))


def fault_of_error(error: Exception) -> Fault:
    """What it means that something could not be brought about."""
    match error:
        case Away():
            return Fault(ReplicaFailureReason.CLUSTER_UNAVAILABLE, str(error))
        case Refused():
            return fault_of_refusal(error.message, forbidden=error.status in FORBIDDING)
        case EasyMLError():
            return Fault(ReplicaFailureReason.ARTIFACT_UNAVAILABLE, error.message)
        case _:
            return Fault(ReplicaFailureReason.CANNOT_START, f"It could not be applied: {type(error).__name__}.")


def _fault_of_end(ended: dict[str, Any], times: int, warned: Warned | None) -> Fault:
    code = _exit_code(ended.get("exitCode", 0))
    if ended.get("reason") == "OOMKilled":
        message = "It had more memory than its limit, and was killed."
        return Fault(ReplicaFailureReason.OUT_OF_MEMORY, message, code, times)
    if ended.get("reason") in _NEVER_BEGUN:
        message = _sentence("Its container could not start", ended.get("message", ""))
        return Fault(ReplicaFailureReason.CANNOT_START, message, code, times)
    if code in _TOLD:
        return Fault(*_TOLD[code], code, times)
    if warned is not None and warned.reason == KILLING and warned.time >= time_of(ended.get("startedAt")):
        if "startup probe" in warned.message:
            message = "It was not ready within the time of its start, and was killed."
            return Fault(ReplicaFailureReason.START_TIMEOUT, message, code, times)
        if "liveness probe" in warned.message:
            message = "It did not answer whether it is alive, and was killed."
            return Fault(ReplicaFailureReason.UNRESPONSIVE, message, code, times)
    return Fault(ReplicaFailureReason.EXITED, _ended_with(code), code, times)


def time_of(text: str | None) -> datetime:
    """A time of the API; the very first if there is none."""
    return datetime.fromisoformat(text or "0001-01-01T00:00:00Z")


def _ended_with(code: int) -> str:
    if code >= 0:
        return f"It ended with exit code {code}."
    try:
        return f"It was ended by {signal.Signals(-code).name}."
    except ValueError:
        return f"It was ended by signal {-code}."


def _exit_code(code: int) -> int:
    """Negative for a signal."""
    return SIGNALLED - code if SIGNALLED < code < SIGNALLED + signal.NSIG else code


def _sentence(what: str, message: str) -> str:
    said = " ".join(message.split()).rstrip(".")
    return f"{what}: {said}." if said else f"{what}."


def _at(address: str, port: int) -> str:
    if not address:
        return ""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _container(pod: Object) -> dict[str, Any]:
    found: Iterable[dict[str, Any]] = pod.get("status", {}).get("containerStatuses") or ()
    return next((each for each in found if each["name"] == CONTAINER), {})


def _condition(pod: Object, type: str) -> dict[str, Any]:
    found: Sequence[dict[str, Any]] = pod.get("status", {}).get("conditions") or ()
    return next((each for each in found if each["type"] == type), {})
