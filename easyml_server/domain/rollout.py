"""What is to run of a deployment, given what is wanted and what runs: one pure step, taken again after every change.

A revision answers once all its replicas have been ready; until then the one before goes on with all of its own. One
that does not become ready is tried on, so that the deployment gets well by itself when the cause is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from easyml_server.domain.deployments import (
    Condition,
    ConditionType,
    Deployment,
    DeploymentState,
    Replica,
    ReplicaState,
    Revision,
    RevisionState,
    RolloutStrategy,
)

_NOT_YET_READY = (ReplicaState.STARTING, ReplicaState.BACKING_OFF)


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: the deployment and revisions as they are now, and how many replicas of which revision are to run.

    `activated` is the revision that answers from now on.
    """

    deployment: Deployment
    revisions: tuple[Revision, ...]
    wanted: Mapping[int, int]
    activated: Revision | None = None


def next_step(
    deployment: Deployment, revisions: Sequence[Revision], replicas: Sequence[Replica], now: datetime
) -> Step:
    """The step from here. `revisions` are the newest, the active one, and whichever have replicas."""
    known = {revision.number: revision for revision in revisions}
    step = _Rollout(replace(deployment, replicas=tuple(replicas)), known, now)
    return step.take()


class _Rollout:
    def __init__(self, deployment: Deployment, revisions: dict[int, Revision], now: datetime) -> None:
        self._before = deployment
        self._revisions = revisions
        self._now = now
        self._active = deployment.active_revision
        self._activated: Revision | None = None
        self._count = deployment.config.replicas

    def take(self) -> Step:
        wanted = {} if self._before.stopped else self._serve()
        if self._before.stopped:
            self._retire(self._active)
        state = self._state()
        deployment = replace(self._before, active_revision=self._active, state=state)
        deployment = replace(deployment, conditions=self._conditions(deployment))
        return Step(deployment, tuple(self._revisions.values()), wanted, self._activated)

    def _serve(self) -> Mapping[int, int]:
        newest = self._before.latest_revision
        if newest == self._active:
            return {newest: self._count}
        if self._ready(newest) >= self._count:
            self._activate(newest)
            return {newest: self._count}
        self._mark(newest, RevisionState.FAILED if self._failing(newest) else RevisionState.PROGRESSING)
        if self._revisions[newest].config.strategy is RolloutStrategy.RECREATE:
            self._retire(self._active)
            others = any(replica.revision != newest for replica in self._before.replicas)
            return {} if others else {newest: self._count}
        return {newest: self._count} | ({self._active: self._count} if self._active else {})

    def _activate(self, number: int) -> None:
        self._retire(self._active)
        self._active = number
        self._mark(number, RevisionState.ACTIVE)
        self._revisions[number] = replace(self._revisions[number], activate_time=self._now, retire_time=None)
        self._activated = self._revisions[number]

    def _retire(self, number: int) -> None:
        if number:
            self._revisions[number] = replace(
                self._revisions[number], state=RevisionState.RETIRED, retire_time=self._now
            )
            self._active = 0

    def _mark(self, number: int, state: RevisionState) -> None:
        self._revisions[number] = replace(self._revisions[number], state=state)

    def _of(self, number: int) -> Iterable[Replica]:
        return (replica for replica in self._before.replicas if replica.revision == number)

    def _ready(self, number: int) -> int:
        return sum(replica.state is ReplicaState.READY for replica in self._of(number))

    def _failing(self, number: int) -> bool:
        return any(replica.last_failure and replica.state in _NOT_YET_READY for replica in self._of(number))

    def _state(self) -> DeploymentState:
        if self._before.stopped:
            return DeploymentState.STOPPING if self._before.replicas else DeploymentState.STOPPED
        newest = self._before.latest_revision
        ready = self._ready(self._active) if self._active else 0
        if self._active == newest and ready >= self._count:
            return DeploymentState.READY
        failing = self._failing(newest) or self._failing(self._active)
        if ready:
            return DeploymentState.DEGRADED if failing else DeploymentState.PROGRESSING
        return DeploymentState.FAILED if failing else DeploymentState.PROGRESSING

    def _conditions(self, deployment: Deployment) -> tuple[Condition, ...]:
        before = {condition.type: condition for condition in self._before.conditions}
        found = (self._available(deployment), self._progressing(deployment), self._replica_failure(deployment))
        return tuple(self._since(before.get(condition.type), condition) for condition in found)

    def _since(self, before: Condition | None, now: Condition) -> Condition:
        """A time tells when the answer changed, not when its reason did."""
        if before is not None and before.status == now.status:
            return replace(now, transition_time=before.transition_time)
        return now

    def _available(self, deployment: Deployment) -> Condition:
        ready = len(deployment.endpoints)
        if ready:
            reason, message = "ReplicasReady", f"{ready} of {self._count} replicas of revision {self._active} answer."
        elif deployment.stopped:
            reason, message = "Stopped", "It was stopped; update it or roll it back to start it again."
        else:
            reason, message = "NoReplicaReady", "No replica is ready; calls are UNAVAILABLE until one is."
        return Condition(ConditionType.AVAILABLE, bool(ready), reason, message, self._now)

    def _progressing(self, deployment: Deployment) -> Condition:
        newest = deployment.latest_revision
        status = True
        if deployment.stopped:
            status, reason, message = False, "Stopped", "Nothing is on its way."
        elif self._active == newest:
            reason, message = "RevisionActive", f"Revision {newest} answers."
        elif self._failing(newest):
            status, reason = False, "RevisionFailing"
            kept = f"; revision {self._active} answers meanwhile" if self._active else ""
            message = f"Revision {newest} does not become ready and is tried again{kept}."
        else:
            reason, message = "RevisionStarting", f"Revision {newest} is being brought up."
        return Condition(ConditionType.PROGRESSING, status, reason, message, self._now)

    def _replica_failure(self, deployment: Deployment) -> Condition:
        failures = [
            replica.last_failure
            for replica in deployment.replicas
            if replica.last_failure is not None and replica.state in _NOT_YET_READY
        ]
        if not failures:
            return Condition(ConditionType.REPLICA_FAILURE, False, "None", "No replica is failing.", self._now)
        latest = max(failures, key=lambda failure: failure.time)
        reason = "".join(word.capitalize() for word in latest.reason.value.split("_"))
        return Condition(ConditionType.REPLICA_FAILURE, True, reason, latest.message, self._now)
