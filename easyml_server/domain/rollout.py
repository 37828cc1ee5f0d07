"""What is to run of a deployment, given what is wanted and what runs: one pure step, taken again after every change.

A revision answers once all its replicas have been ready; until then the one before goes on with all of its own. One
that does not become ready is tried on, so that the deployment gets well by itself when the cause is gone. With
blue/green and canary both run on, and share the calls, until the newer one has them all or is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from easyml_server.domain.conditions import conditions_of
from easyml_server.domain.deployments import (
    Deployment,
    DeploymentConfig,
    DeploymentState,
    Replica,
    ReplicaState,
    Revision,
    RevisionState,
    RolloutStrategy,
)
from easyml_server.domain.scaled import scaled
from easyml_server.domain.scaling import Recommendation
from easyml_server.domain.slowness import SlowReplica
from easyml_server.domain.traffic import (
    ALL,
    SIDE_BY_SIDE,
    CallCounts,
    Verdict,
    going_back,
    judge,
    promoted,
    remember_shares,
    shares,
    step_begins,
    withdrawn,
)

_SETTLED = (RevisionState.STANDBY, RevisionState.WITHDRAWN)
"""A revision that is not the active one and is not being brought up any more."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: the deployment and revisions as they are now, and how many replicas of which revision are to run.

    `activated` is the revision that answers from now on; `next_time` is when there is another step to take, whatever
    happens until then.
    """

    deployment: Deployment
    revisions: tuple[Revision, ...]
    wanted: Mapping[int, int]
    activated: Revision | None = None
    next_time: datetime | None = None


def next_step(
    deployment: Deployment,
    revisions: Sequence[Revision],
    replicas: Sequence[Replica],
    now: datetime,
    counted: Mapping[int, CallCounts] | None = None,
    recommended: Recommendation | None = None,
    slow: Sequence[SlowReplica] = (),
) -> Step:
    """The step from here.

    `revisions` are the newest, the active one, and whichever have replicas; `counted` are calls that each answered in
    the current step of a canary; `recommended` are the replicas of a deployment that follow its calls; `slow` are
    told of and change nothing.
    """
    known = {revision.number: revision for revision in revisions}
    newest = deployment.latest_revision
    settled = newest == deployment.active_revision or known[newest].state in _SETTLED
    sized = scaled(deployment, recommended, now, settled=settled)
    return _Rollout(replace(sized, replicas=tuple(replicas)), known, now, counted or {}, slow).take()


class _Rollout:
    def __init__(
        self,
        deployment: Deployment,
        revisions: dict[int, Revision],
        now: datetime,
        counted: Mapping[int, CallCounts],
        slow: Sequence[SlowReplica],
    ) -> None:
        self._before = deployment
        self._counted = counted
        self._slow = slow
        self._shared = deployment
        self._revisions = revisions
        self._now = now
        self._active = deployment.active_revision
        self._activated = 0
        self._count = deployment.config.replicas

    def take(self) -> Step:
        self._retire_superseded()
        wanted = {} if self._before.stopped else self._serve()
        if self._before.stopped:
            self._retire(self._active)
        deployment = replace(self._shared, active_revision=self._active, traffic=self._traffic())
        if not self._is(RevisionState.STANDBY):
            deployment = replace(deployment, canary=None)
        deployment = replace(deployment, state=self._state())
        conditions = conditions_of(deployment, self._revisions[self._newest], self._slow, self._now)
        deployment = replace(deployment, conditions=conditions)
        revisions = remember_shares(self._before.traffic, deployment.traffic, self._revisions.values(), self._now)
        activated = next((each for each in revisions if self._activated == each.number), None)
        next_time = None if deployment.canary is None else deployment.canary.end_time
        return Step(deployment, revisions, wanted, activated, next_time)

    def _retire_superseded(self) -> None:
        """Those that were on their way when another was asked for, or everything was stopped."""
        kept = {self._active} if self._before.stopped else {self._active, self._newest}
        for number in self._revisions.keys() - kept:
            if self._revisions[number].state is not RevisionState.WITHDRAWN:
                self._mark(number, RevisionState.RETIRED)

    def _serve(self) -> Mapping[int, int]:
        """Bring the newest revision further; how many replicas of which are to run."""
        if self._newest != self._active and not self._is(RevisionState.WITHDRAWN):
            self._bring_up()
        if self._is(RevisionState.WITHDRAWN):
            return {self._active: self._count}
        if self._newest != self._active and self._config.strategy is RolloutStrategy.RECREATE:
            self._retire(self._active)
            others = any(replica.revision != self._newest for replica in self._before.replicas)
            return {} if others else {self._newest: self._count}
        return {self._newest: self._count} | ({self._active: self._count} if self._active else {})

    def _bring_up(self) -> None:
        ready = self._ready(self._newest) >= self._count
        if self._is(RevisionState.STANDBY):
            self._share_calls(ready=ready)
        elif not ready:
            failing = self._failing(self._newest)
            self._mark(self._newest, RevisionState.FAILED if failing else RevisionState.PROGRESSING)
        elif self._active and self._config.strategy in SIDE_BY_SIDE:
            self._stand_by()
        else:
            self._activate(self._newest)

    def _stand_by(self) -> None:
        """Ready beside the active one, with the first share that a canary has."""
        self._mark(self._newest, RevisionState.STANDBY)
        canary = self._config.canary
        progress = None if canary is None else step_begins(canary, 1, self._now)
        weight = 0 if canary is None else canary.steps[0].weight
        self._shared = replace(self._shared, traffic=shares(self._shared, weight), canary=progress)

    def _share_calls(self, *, ready: bool) -> None:
        """Take it back, leave it as it is, or give it more."""
        verdict = self._verdict()
        progress = self._shared.canary
        if verdict.failure:
            self._withdraw(verdict.failure)
        elif ready and verdict.enough and progress and progress.end_time and self._now >= progress.end_time:
            self._shared = promoted(self._shared, self._now)
        if ready and self._shared.traffic.get(self._newest) == ALL:
            self._activate(self._newest)

    def _verdict(self) -> Verdict:
        """What is known of a canary in one of its steps; a share that was set by hand is judged by hand."""
        progress, canary = self._shared.canary, self._config.canary
        if progress is None or not progress.step or canary is None:
            return Verdict(enough=True)
        if canary.analysis is not None and self._failing(self._newest):
            return Verdict(True, "A replica of it does not stay up.")
        none = CallCounts()
        return judge(canary.analysis, self._counted.get(self._newest, none), self._counted.get(self._active, none))

    def _withdraw(self, message: str) -> None:
        self._revisions[self._newest] = withdrawn(self._revisions[self._newest], message)
        self._shared = replace(self._shared, config=going_back(self._shared, self._revisions[self._active]))

    def _traffic(self) -> Mapping[int, int]:
        """Shares of revisions that run side by side, or all calls to the one that answers."""
        if not self._active:
            return {}
        return self._shared.traffic if self._is(RevisionState.STANDBY) else {self._active: ALL}

    def _is(self, state: RevisionState) -> bool:
        """Whether the newest revision, which is not the one that answers, is in this state."""
        return self._newest != self._active and self._revisions[self._newest].state is state

    @property
    def _newest(self) -> int:
        return self._before.latest_revision

    @property
    def _config(self) -> DeploymentConfig:
        return self._revisions[self._newest].config

    def _activate(self, number: int) -> None:
        self._retire(self._active)
        self._active = number
        self._mark(number, RevisionState.ACTIVE)
        self._revisions[number] = replace(self._revisions[number], activate_time=self._now, retire_time=None)
        self._activated = number

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
        return self._before.failure_of([number]) is not None

    def _state(self) -> DeploymentState:
        if self._before.stopped:
            return DeploymentState.STOPPING if self._before.replicas else DeploymentState.STOPPED
        newest = self._active if self._is(RevisionState.WITHDRAWN) else self._newest
        ready = self._ready(self._active) if self._active else 0
        if self._active == newest and ready >= self._count:
            return DeploymentState.READY
        failing = self._failing(newest) or self._failing(self._active)
        if ready:
            return DeploymentState.DEGRADED if failing else DeploymentState.PROGRESSING
        return DeploymentState.FAILED if failing else DeploymentState.PROGRESSING
