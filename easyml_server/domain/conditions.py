"""Answers to what people ask about a deployment, as Kubernetes has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from easyml_server.domain.deployments import Condition, ConditionType, Deployment, Revision, RevisionState
from easyml_server.domain.scaled import SCALING
from easyml_server.domain.slowness import Slowness, SlowReplica

_SLOW: Final[Mapping[Slowness, str]] = {
    Slowness.ANSWERS_LATE: "runs, and does not say in time what it counts; it is ended if its probes fail as well.",
    Slowness.SLOWER_THAN_OTHERS: "takes several times as long for a call as the others.",
}


def conditions_of(
    deployment: Deployment, newest: Revision, slow: Sequence[SlowReplica], now: datetime
) -> tuple[Condition, ...]:
    """The answers once a step was taken; the deployment still has those from before."""
    before = {condition.type: condition for condition in deployment.conditions}
    found = (
        _available(deployment, now),
        _progressing(deployment, newest, now),
        _replica_failure(deployment, now),
        _replica_slow(slow, now),
    )
    scaling = (before[type] for type in SCALING if type in before)
    return (*(condition.following(before.get(condition.type)) for condition in found), *scaling)


def requested(conditions: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
    """The conditions once somebody asked for a change: what was said of the one before is no longer true."""
    asked = Condition(ConditionType.PROGRESSING, True, "Requested", "The change is being carried out.", now)
    return tuple(
        asked.following(condition) if condition.type is ConditionType.PROGRESSING else condition
        for condition in conditions
    )


def _available(deployment: Deployment, now: datetime) -> Condition:
    ready = len(deployment.endpoints)
    if deployment.idle:
        reason, message = "ScaledToZero", "No replica runs while nobody calls; the next call starts one, and waits."
    elif ready:
        reason, message = (
            "ReplicasReady",
            f"{ready} of {deployment.config.replicas} replicas of revision {deployment.active_revision} answer.",
        )
    elif deployment.stopped:
        reason, message = "Stopped", "It was stopped; update it or roll it back to start it again."
    elif deployment.waits_for_calls:
        reason, message = "NoReplicaReady", "No replica is ready yet; calls to the deployment wait for one."
    else:
        reason, message = "NoReplicaReady", "No replica is ready; calls are UNAVAILABLE until one is."
    return Condition(ConditionType.AVAILABLE, ready > 0 or deployment.idle, reason, message, now)


def _progressing(deployment: Deployment, newest: Revision, now: datetime) -> Condition:
    number, status = newest.number, True
    if deployment.stopped:
        status, reason, message = False, "Stopped", "Nothing is on its way."
    elif deployment.active_revision == number:
        reason, message = "RevisionActive", f"Revision {number} answers."
    elif newest.state is RevisionState.WITHDRAWN:
        status, (reason, message) = False, _taken_back(deployment, newest)
    elif newest.state is RevisionState.STANDBY:
        reason, message = _standing_by(deployment, number, now)
    elif deployment.failure_of([number]):
        status, reason = False, "RevisionFailing"
        kept = f"; revision {deployment.active_revision} answers meanwhile" if deployment.active_revision else ""
        message = f"Revision {number} does not become ready and is tried again{kept}."
    else:
        reason, message = "RevisionStarting", f"Revision {number} is being brought up."
    return Condition(ConditionType.PROGRESSING, status, reason, message, now)


def _taken_back(deployment: Deployment, newest: Revision) -> tuple[str, str]:
    answers = f"revision {deployment.active_revision} answers."
    why = newest.message
    if not why:
        return "RolledBack", f"Revision {newest.number} was rolled back; {answers}"
    return "RevisionWithdrawn", f"Revision {newest.number} was withdrawn; {answers} {why}"


def _standing_by(deployment: Deployment, number: int, now: datetime) -> tuple[str, str]:
    weight = deployment.traffic.get(number, 0)
    has = f"Revision {number} answers {weight} of 100 calls"
    progress, canary = deployment.canary, deployment.config.canary
    if progress is None or progress.end_time is None or canary is None:
        return "AwaitingPromotion", f"{has}; promote it, or roll it back."
    if now >= progress.end_time and canary.analysis is not None:
        until = f"{canary.analysis.min_requests} calls of this step were answered"
    else:
        until = progress.end_time.isoformat(timespec="seconds")
    return "CanaryStep", f"{has} until {until}: step {progress.step} of {len(canary.steps)}."


def _replica_failure(deployment: Deployment, now: datetime) -> Condition:
    latest = deployment.failure_of({replica.revision for replica in deployment.replicas})
    if latest is None:
        return Condition(ConditionType.REPLICA_FAILURE, False, "None", "No replica is failing.", now)
    reason = "".join(word.capitalize() for word in latest.reason.value.split("_"))
    return Condition(ConditionType.REPLICA_FAILURE, True, reason, latest.message, now)


def _replica_slow(slow: Sequence[SlowReplica], now: datetime) -> Condition:
    """Without figures, which change all the time; GetDeploymentMetrics has them."""
    if not slow:
        return Condition(ConditionType.REPLICA_SLOW, False, "None", "No replica is known to be slow.", now)
    message = " ".join(f"Replica {each.replica_id} of revision {each.revision} {_SLOW[each.slowness]}" for each in slow)
    return Condition(ConditionType.REPLICA_SLOW, True, slow[0].slowness.value, message, now)
