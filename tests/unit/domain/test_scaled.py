"""Deployments whose replicas follow their calls: their steps, and what people are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from easyml_server.domain.deployments import (
    Condition,
    ConditionType,
    DeploymentState,
    ReplicaState,
    RevisionState,
    RolloutStrategy,
)
from easyml_server.domain.rollout import Step, next_step
from easyml_server.domain.scaling import Autoscaling, Recommendation
from easyml_server.domain.traffic import going_back
from tests.builders import TIME
from tests.unit.domain.test_rollout import FAILURE, LATER, condition, deployed, running

READY, STARTING, BACKING_OFF, STOPPING = (
    ReplicaState.READY,
    ReplicaState.STARTING,
    ReplicaState.BACKING_OFF,
    ReplicaState.STOPPING,
)
SCALING = Autoscaling(min_replicas=0, max_replicas=3, cooldown_seconds=30)
ACTIVE, LIMITED = ConditionType.SCALING_ACTIVE, ConditionType.SCALING_LIMITED


def step_of(
    recommended: Recommendation | None,
    *states: ReplicaState,
    wanted: int = 1,
    latest: int = 1,
    stopped: bool = False,
    conditions: tuple[Condition, ...] = (),
    scaling: Autoscaling = SCALING,
) -> Step:
    """From where revision 1 is active and its replicas are in these states."""
    deployment, revisions = deployed(latest, 1, wanted=wanted)
    config = replace(deployment.config, autoscaling=scaling)
    deployment = replace(deployment, config=config, stopped=stopped, conditions=conditions)
    return next_step(deployment, revisions, running(1, *states), LATER, recommended=recommended)


def test_as_many_run_as_are_recommended_and_the_condition_says_why() -> None:
    begun = step_of(Recommendation(1, 0.0), READY)
    assert condition(begun, ACTIVE).reason == "Begun"
    step = step_of(Recommendation(3, 20.5), READY, conditions=begun.deployment.conditions)
    assert step.wanted == {1: 3}
    assert step.deployment.config.replicas == 3
    assert step.deployment.state is DeploymentState.PROGRESSING
    said = condition(step, ACTIVE)
    assert (said.status, said.reason) == (True, "FollowsCalls")
    assert said.message.startswith("3 replicas: on average up to 20.5 calls were in flight in the last 30 s")
    assert not condition(step, LIMITED).status


def test_what_was_said_stays_while_the_number_does() -> None:
    grown = step_of(Recommendation(3, 20.5), READY)
    later = step_of(Recommendation(3, 23.9), READY, READY, READY, wanted=3, conditions=grown.deployment.conditions)
    assert condition(later, ACTIVE) == condition(grown, ACTIVE)


def test_the_bound_is_named_while_calls_need_more() -> None:
    limited = step_of(Recommendation(3, 99.0, limited=True), READY)
    said = condition(limited, LIMITED)
    assert (said.status, said.reason) == (True, "TooManyCalls")
    assert "more than 3 replicas, which max_replicas allows" in said.message
    again = step_of(Recommendation(3, 20.0), READY, wanted=3, conditions=limited.deployment.conditions)
    assert not condition(again, LIMITED).status


def test_without_calls_none_runs_and_it_is_ready_all_the_same() -> None:
    step = step_of(Recommendation(0, 0.0), READY)
    assert step.wanted == {1: 0}
    assert step.deployment.state is DeploymentState.READY
    assert step.deployment.active_revision == 1
    available = condition(step, ConditionType.AVAILABLE)
    assert (available.status, available.reason) == (True, "ScaledToZero")
    active = condition(step, ACTIVE)
    assert (active.status, active.reason) == (False, "NoCalls")
    # What runs is ending: nobody is sent there any more.
    assert [share.endpoints for share in step.deployment.shares] == [()]


def test_a_call_wakes_it() -> None:
    step = step_of(Recommendation(1, 1.0), STOPPING, wanted=0)
    assert step.wanted == {1: 1}
    assert step.deployment.state is DeploymentState.PROGRESSING
    assert "wait for one" in condition(step, ConditionType.AVAILABLE).message


@pytest.mark.parametrize("strategy", [RolloutStrategy.ROLLING, RolloutStrategy.CANARY])
def test_nothing_is_taken_away_while_a_revision_is_brought_up_but_more_may_come(strategy: RolloutStrategy) -> None:
    deployment, revisions = deployed(2, 1, strategy, wanted=2)
    deployment = replace(deployment, config=replace(deployment.config, autoscaling=SCALING))
    replicas = [*running(1, READY, READY), *running(2, STARTING, STARTING)]
    step = next_step(deployment, revisions, replicas, LATER, recommended=Recommendation(0, 0.0))
    assert step.wanted == {2: 2, 1: 2}
    step = next_step(deployment, revisions, replicas, LATER, recommended=Recommendation(3, 20.0))
    assert step.wanted == {2: 3, 1: 3}


def test_a_first_revision_has_to_be_ready_before_none_runs() -> None:
    deployment, revisions = deployed(wanted=1)
    deployment = replace(deployment, config=replace(deployment.config, autoscaling=SCALING))
    failing = running(1, BACKING_OFF, failure=FAILURE)
    step = next_step(deployment, revisions, failing, LATER, recommended=Recommendation(0, 0.0))
    assert (step.wanted, step.deployment.state) == ({1: 1}, DeploymentState.FAILED)


def test_two_that_share_the_calls_have_as_many_as_all_calls_need() -> None:
    deployment, revisions = deployed(2, 1, RolloutStrategy.BLUE_GREEN, wanted=2)
    deployment = replace(deployment, config=replace(deployment.config, autoscaling=SCALING), traffic={1: 100, 2: 0})
    revisions[1] = replace(revisions[1], state=RevisionState.STANDBY)
    replicas = [*running(1, READY, READY), *running(2, READY, READY)]
    for number, in_flight in ((3, 20.0), (1, 1.0), (0, 0.0)):
        step = next_step(deployment, revisions, replicas, LATER, recommended=Recommendation(number, in_flight))
        assert step.wanted == {2: number, 1: number}
        assert step.deployment.active_revision == 1


def test_one_that_was_taken_back_leaves_the_other_to_follow_the_calls() -> None:
    deployment, revisions = deployed(2, 1, wanted=2)
    deployment = replace(deployment, config=replace(deployment.config, autoscaling=SCALING))
    revisions[1] = replace(revisions[1], state=RevisionState.WITHDRAWN)
    step = next_step(deployment, revisions, running(1, READY, READY), LATER, recommended=Recommendation(0, 0.0))
    assert step.wanted == {1: 0}
    assert step.deployment.state is DeploymentState.READY


def test_a_stopped_one_follows_nothing() -> None:
    step = step_of(None, stopped=True, conditions=step_of(Recommendation(3, 20.0), READY).deployment.conditions)
    assert step.wanted == {}
    assert {each.type for each in step.deployment.conditions}.isdisjoint({ACTIVE, LIMITED})


def test_a_condition_keeps_the_time_since_when_its_answer_is_the_same() -> None:
    before = step_of(Recommendation(2, 10.0), READY)
    deployment, revisions = before.deployment, before.revisions
    after = next_step(
        deployment, revisions, running(1, READY), LATER + timedelta(hours=1), recommended=Recommendation(3, 20.0)
    )
    assert condition(after, ACTIVE).transition_time == LATER
    assert condition(after, ACTIVE).message != condition(before, ACTIVE).message


def test_going_back_keeps_the_scaling() -> None:
    deployment, (revision, _) = deployed(2, 2)
    deployment = replace(deployment, config=replace(deployment.config, replicas=2, autoscaling=SCALING))
    config = going_back(deployment, revision)
    assert (config.replicas, config.autoscaling) == (2, SCALING)


def test_the_latest_failure_of_what_is_to_become_ready_counts() -> None:
    deployment, _ = deployed()
    older = replace(FAILURE, message="It ended before.", time=TIME - timedelta(minutes=1))
    replicas = (
        *running(1, BACKING_OFF, failure=older),
        *running(1, BACKING_OFF, failure=FAILURE),
        *running(1, READY, failure=replace(FAILURE, time=LATER)),
        *running(2, BACKING_OFF, failure=replace(FAILURE, time=LATER)),
    )
    deployment = replace(deployment, replicas=replicas)
    assert deployment.failure_of([1]) == FAILURE
    assert deployment.failure_of([3]) is None
