"""Blue/green and canary: who answers how many calls, what gives more and what takes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from easyml_server.domain.deployments import (
    Canary,
    CanaryAnalysis,
    CanaryProgress,
    CanaryStep,
    ConditionType,
    Deployment,
    DeploymentConfig,
    DeploymentState,
    Replica,
    ReplicaFailure,
    ReplicaFailureReason,
    ReplicaState,
    Revision,
    RevisionState,
    RolloutStrategy,
    TrafficChange,
)
from easyml_server.domain.rollout import Step, next_step
from easyml_server.domain.traffic import REMEMBERED, CallCounts, judge, promoted, remember_shares, withdrawn
from tests.builders import TIME, a_project
from tests.unit.services.builders import a_deployment, a_revision, a_version

PROJECT = a_project(uuid4())
VERSION = a_version(PROJECT)
FAILURE = ReplicaFailure(ReplicaFailureReason.EXITED, "It ended with exit code 1.", TIME, 1)
STARTING, READY, BACKING_OFF, _ = ReplicaState
ANALYSIS = CanaryAnalysis(max_error_percent=5, max_latency_ratio=2, min_requests=10)
TIMED = Canary((CanaryStep(10, 60), CanaryStep(50, 60)))
ANALYSED = replace(TIMED, analysis=ANALYSIS)
WELL = CallCounts(requests=100, errors=0, latency_p99=0.010)


def at(seconds: float) -> datetime:
    return TIME + timedelta(seconds=seconds)


def replica(revision: int, state: ReplicaState = READY, failure: ReplicaFailure | None = None) -> Replica:
    return Replica(uuid4(), revision, state, f"127.0.0.1:{revision}" if state is READY else "", last_failure=failure)


BOTH = [replica(1), replica(2)]


def updated(canary: Canary | None) -> tuple[Deployment, Sequence[Revision]]:
    """Revision 1 answers, and revision 2 is on its way."""
    strategy = RolloutStrategy.BLUE_GREEN if canary is None else RolloutStrategy.CANARY
    config = DeploymentConfig(strategy=strategy, canary=canary)
    deployment = a_deployment(
        PROJECT.id, PROJECT.creator_id, config=config, latest_revision=2, active_revision=1, traffic={1: 100}
    )
    old = a_revision(deployment, VERSION, 1, state=RevisionState.ACTIVE, config=DeploymentConfig())
    return deployment, [old, a_revision(deployment, VERSION, 2)]


def standing_by(canary: Canary | None) -> Step:
    """Both run, and the newer one has its first share."""
    return next_step(*updated(canary), BOTH, TIME)


def after(step: Step, seconds: float, newer: CallCounts = WELL, *, replicas: Sequence[Replica] = BOTH) -> Step:
    """The next step, so long after TIME."""
    return next_step(step.deployment, step.revisions, replicas, at(seconds), {1: WELL, 2: newer})


def why(step: Step) -> str:
    return next(each.reason for each in step.deployment.conditions if each.type is ConditionType.PROGRESSING)


@pytest.mark.parametrize("canary", [None, TIMED])
def test_nothing_is_shared_until_the_newer_revision_is_ready(canary: Canary | None) -> None:
    step = next_step(*updated(canary), [replica(1), replica(2, STARTING)], TIME)
    assert step.wanted == {1: 1, 2: 1}
    assert step.deployment.traffic == {1: 100}
    assert step.revisions[1].state is RevisionState.PROGRESSING


@pytest.mark.parametrize("strategy", RolloutStrategy)
def test_the_first_revision_answers_all_with_any_strategy(strategy: RolloutStrategy) -> None:
    canary = TIMED if strategy is RolloutStrategy.CANARY else None
    config = DeploymentConfig(strategy=strategy, canary=canary)
    deployment = a_deployment(PROJECT.id, PROJECT.creator_id, config=config)
    step = next_step(deployment, [a_revision(deployment, VERSION, 1)], [replica(1)], TIME)
    assert (step.deployment.active_revision, step.deployment.traffic) == (1, {1: 100})
    assert step.deployment.state is DeploymentState.READY
    assert step.revisions[0].traffic == (TrafficChange(100, TIME),)


def test_blue_green_waits_with_both_running_until_it_is_promoted() -> None:
    step = standing_by(None)
    assert step.revisions[1].state is RevisionState.STANDBY
    assert step.deployment.traffic == {1: 100, 2: 0}
    assert (step.wanted, step.next_time, why(step)) == ({1: 1, 2: 1}, None, "AwaitingPromotion")
    same = after(step, 3600)
    assert same.deployment.traffic == {1: 100, 2: 0}
    done = after(replace(step, deployment=promoted(step.deployment, at(3600))), 3601)
    assert (done.deployment.active_revision, done.deployment.traffic, done.wanted) == (2, {2: 100}, {2: 1})
    assert [each.state for each in done.revisions] == [RevisionState.RETIRED, RevisionState.ACTIVE]
    assert done.activated == done.revisions[1]


def test_a_promoted_revision_takes_over_once_it_is_ready_again() -> None:
    step = standing_by(None)
    asked = replace(step, deployment=promoted(step.deployment, at(1)))
    waiting = after(asked, 2, replicas=[replica(1), replica(2, BACKING_OFF, FAILURE)])
    assert (waiting.deployment.active_revision, waiting.deployment.state) == (1, DeploymentState.DEGRADED)
    assert after(waiting, 3).deployment.active_revision == 2


def test_a_canary_grows_by_its_steps_and_then_answers_all() -> None:
    step = standing_by(TIMED)
    assert step.deployment.traffic == {1: 90, 2: 10}
    assert step.deployment.canary == CanaryProgress(1, TIME, at(60))
    assert (step.next_time, why(step)) == (at(60), "CanaryStep")
    assert after(step, 59).deployment.traffic == {1: 90, 2: 10}
    second = after(step, 60)
    assert (second.deployment.traffic, second.next_time) == ({1: 50, 2: 50}, at(120))
    done = after(second, 120)
    assert (done.deployment.active_revision, done.deployment.traffic, done.deployment.canary) == (2, {2: 100}, None)
    assert [change.weight for change in done.revisions[1].traffic] == [10, 50, 100]
    assert [change.weight for change in done.revisions[0].traffic] == [90, 50, 0]


def test_a_step_without_a_time_waits_for_somebody() -> None:
    step = standing_by(Canary((CanaryStep(10), CanaryStep(20))))
    assert why(after(step, 10_000)) == "AwaitingPromotion"
    second = after(replace(step, deployment=promoted(step.deployment, at(1))), 2)
    assert second.deployment.traffic == {1: 80, 2: 20}
    full = after(replace(step, deployment=promoted(step.deployment, at(1), full=True)), 2)
    assert full.deployment.active_revision == 2


def test_a_step_does_not_end_while_its_revision_is_not_ready() -> None:
    step = after(standing_by(TIMED), 60, replicas=[replica(1), replica(2, STARTING)])
    assert step.deployment.traffic == {1: 90, 2: 10}
    assert step.revisions[1].state is RevisionState.STANDBY


@pytest.mark.parametrize(
    ("newer", "said"),
    [
        (CallCounts(100, 10, 0.010), "10 of 100 calls failed (10.0 %), 0.0 % of the revision before."),
        (
            CallCounts(100, 0, 0.030),
            "The p99 of its latency is 30.0 ms, 10.0 ms of the revision before.",
        ),
    ],
)
def test_a_canary_that_is_worse_is_withdrawn(newer: CallCounts, said: str) -> None:
    step = after(standing_by(ANALYSED), 5, newer)
    assert step.revisions[1].state is RevisionState.WITHDRAWN
    assert step.revisions[1].message == said
    assert (step.wanted, step.deployment.traffic, step.deployment.canary) == ({1: 1}, {1: 100}, None)
    assert (step.deployment.state, why(step)) == (DeploymentState.READY, "RevisionWithdrawn")
    assert step.deployment.config == DeploymentConfig()
    again = after(step, 3600, replicas=[replica(1)])
    assert (again.wanted, again.deployment.traffic) == ({1: 1}, {1: 100})


def test_a_canary_with_an_analysis_whose_replica_does_not_stay_up_is_withdrawn() -> None:
    failing = [replica(1), replica(2, BACKING_OFF, FAILURE)]
    assert after(standing_by(ANALYSED), 5, replicas=failing).revisions[1].state is RevisionState.WITHDRAWN
    assert after(standing_by(TIMED), 5, replicas=failing).revisions[1].state is RevisionState.STANDBY


def test_a_step_goes_on_until_there_are_calls_to_judge_by() -> None:
    step = after(standing_by(ANALYSED), 60, CallCounts(9, 9, 1.0))
    assert (step.deployment.traffic, step.revisions[1].state) == ({1: 90, 2: 10}, RevisionState.STANDBY)
    assert after(step, 61).deployment.traffic == {1: 50, 2: 50}


def test_a_share_set_by_hand_is_neither_judged_nor_grown() -> None:
    step = standing_by(ANALYSED)
    by_hand = replace(step.deployment, traffic={1: 70, 2: 30}, canary=CanaryProgress(0, at(1)))
    step = after(replace(step, deployment=by_hand), 3600, CallCounts(100, 100, 9.0))
    assert (step.deployment.traffic, why(step)) == ({1: 70, 2: 30}, "AwaitingPromotion")
    done = after(replace(step, deployment=promoted(step.deployment, at(3601))), 3602)
    assert done.deployment.active_revision == 2


def test_another_revision_takes_the_place_of_one_that_stands_by() -> None:
    step = standing_by(TIMED)
    third = replace(step.deployment, latest_revision=3)
    revisions = [*step.revisions, a_revision(third, VERSION, 3)]
    step = next_step(third, revisions, BOTH, at(1))
    assert step.wanted == {1: 1, 3: 1}
    assert [each.state for each in step.revisions] == [
        RevisionState.ACTIVE,
        RevisionState.RETIRED,
        RevisionState.PROGRESSING,
    ]
    assert (step.deployment.traffic, step.deployment.canary) == ({1: 100}, None)


def test_stopping_ends_a_canary() -> None:
    step = standing_by(TIMED)
    step = next_step(replace(step.deployment, stopped=True), step.revisions, BOTH, at(1))
    assert (step.wanted, step.deployment.traffic, step.deployment.canary) == ({}, {}, None)
    assert {each.state for each in step.revisions} == {RevisionState.RETIRED}


def test_what_was_withdrawn_while_it_started_does_not_start() -> None:
    deployment, (old, new) = updated(None)
    step = next_step(deployment, [old, withdrawn(new, "It was rolled back.")], [replica(1), replica(2, STARTING)], TIME)
    assert (step.wanted, step.deployment.state) == ({1: 1}, DeploymentState.READY)


@pytest.mark.parametrize(
    ("newer", "older", "enough", "fails"),
    [
        (CallCounts(), CallCounts(), False, False),
        (CallCounts(9, 9, 9.0), WELL, False, False),
        (CallCounts(100, 5, 0.010), WELL, True, False),
        (CallCounts(100, 6, 0.010), WELL, True, True),
        (CallCounts(100, 15, 0.010), CallCounts(100, 10, 0.010), True, False),
        (CallCounts(100, 0, 0.020), WELL, True, False),
        (CallCounts(100, 0, 0.021), WELL, True, True),
        (CallCounts(100, 0, 9.0), CallCounts(), True, False),
        (CallCounts(100, 0, None), WELL, True, False),
    ],
)
def test_a_verdict_compares_the_two(newer: CallCounts, older: CallCounts, enough: bool, fails: bool) -> None:
    verdict = judge(ANALYSIS, newer, older)
    assert (verdict.enough, bool(verdict.failure)) == (enough, fails)


def test_the_last_changes_of_a_share_are_remembered() -> None:
    deployment, (old, _) = updated(None)
    for number in range(REMEMBERED + 5):
        (old,) = remember_shares({1: number}, {1: number + 1}, [old], at(number))
    assert [change.weight for change in old.traffic] == list(range(6, REMEMBERED + 6))
    assert remember_shares({1: 5}, {1: 5}, [old], TIME) == (old,)
    assert deployment.traffic == {1: 100}
