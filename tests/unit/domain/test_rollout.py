"""Each step of a deployment, from what is wanted and what runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from easyml_server.domain.deployments import (
    Condition,
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
)
from easyml_server.domain.rollout import Step, next_step
from easyml_server.domain.slowness import Slowness, SlowReplica
from tests.builders import TIME, a_project
from tests.unit.services.builders import a_deployment, a_revision, a_version

LATER = TIME + timedelta(minutes=1)
FAILURE = ReplicaFailure(ReplicaFailureReason.EXITED, "It ended with exit code 1.", TIME, 1)
PROJECT = a_project(uuid4())
VERSION = a_version(PROJECT)


def deployed(
    latest: int = 1, active: int = 0, strategy: RolloutStrategy = RolloutStrategy.ROLLING, wanted: int = 1
) -> tuple[Deployment, list[Revision]]:
    """A deployment with so many revisions, one of which may be active."""
    config = DeploymentConfig(strategy=strategy, replicas=wanted)
    deployment = a_deployment(
        PROJECT.id, PROJECT.creator_id, config=config, latest_revision=latest, active_revision=active
    )
    states = {active: RevisionState.ACTIVE, latest: RevisionState.PROGRESSING} | {active: RevisionState.ACTIVE}
    return deployment, [
        a_revision(deployment, VERSION, number, state=states.get(number, RevisionState.RETIRED))
        for number in range(1, latest + 1)
    ]


def running(revision: int, *states: ReplicaState, failure: ReplicaFailure | None = None) -> list[Replica]:
    return [
        Replica(uuid4(), revision, state, "127.0.0.1:1" if state is ReplicaState.READY else "", last_failure=failure)
        for state in states
    ]


STARTING, READY, BACKING_OFF, STOPPING = ReplicaState


def condition(step: Step, type: ConditionType) -> Condition:
    return next(each for each in step.deployment.conditions if each.type is type)


def states_of(step: Step) -> list[RevisionState]:
    return [revision.state for revision in step.revisions]


def test_a_new_deployment_wants_its_replicas_and_answers_nobody() -> None:
    step = next_step(*deployed(wanted=3), [], LATER)
    assert step.wanted == {1: 3}
    assert step.deployment.state is DeploymentState.PROGRESSING
    assert (step.deployment.active_revision, step.activated) == (0, None)
    assert not condition(step, ConditionType.AVAILABLE).status


@pytest.mark.parametrize("ready", [1, 2])
def test_a_revision_answers_once_all_its_replicas_are_ready(ready: int) -> None:
    replicas = running(1, *[READY] * ready, *[STARTING] * (2 - ready))
    step = next_step(*deployed(wanted=2), replicas, LATER)
    assert step.deployment.active_revision == (1 if ready == 2 else 0)
    if ready == 2:
        assert step.activated is not None
        assert step.activated.activate_time == LATER
        assert step.deployment.state is DeploymentState.READY
        assert step.deployment.endpoints == ("127.0.0.1:1", "127.0.0.1:1")


def test_a_rolling_update_keeps_all_of_the_old_until_all_of_the_new_are_ready() -> None:
    old = running(1, READY, READY)
    step = next_step(*deployed(2, 1, wanted=2), [*old, *running(2, READY, STARTING)], LATER)
    assert step.wanted == {2: 2, 1: 2}
    assert step.deployment.active_revision == 1
    assert step.deployment.state is DeploymentState.PROGRESSING

    step = next_step(*deployed(2, 1, wanted=2), [*old, *running(2, READY, READY)], LATER)
    assert step.wanted == {2: 2}
    assert step.deployment.active_revision == 2
    assert states_of(step) == [RevisionState.RETIRED, RevisionState.ACTIVE]
    assert step.revisions[0].retire_time == LATER
    assert step.deployment.state is DeploymentState.READY


def test_a_revision_that_fails_leaves_the_old_one_answering_and_is_tried_on() -> None:
    replicas = [*running(1, READY), *running(2, BACKING_OFF, failure=FAILURE)]
    step = next_step(*deployed(2, 1), replicas, LATER)
    assert step.wanted == {2: 1, 1: 1}
    assert step.deployment.state is DeploymentState.DEGRADED
    assert states_of(step) == [RevisionState.ACTIVE, RevisionState.FAILED]
    progressing = condition(step, ConditionType.PROGRESSING)
    assert (progressing.status, progressing.reason) == (False, "RevisionFailing")
    assert "revision 1 answers meanwhile" in progressing.message
    failing = condition(step, ConditionType.REPLICA_FAILURE)
    assert (failing.status, failing.reason, failing.message) == (True, "Exited", FAILURE.message)

    well = next_step(step.deployment, step.revisions, [*running(1, READY), *running(2, READY, failure=FAILURE)], LATER)
    assert well.deployment.state is DeploymentState.READY
    assert well.deployment.active_revision == 2
    assert not condition(well, ConditionType.REPLICA_FAILURE).status


def test_a_slow_replica_is_named_and_nothing_is_done_to_it() -> None:
    deployment, revisions = deployed(1, 1, wanted=2)
    replicas = running(1, READY, READY)
    fine = next_step(deployment, revisions, replicas, TIME)
    assert not condition(fine, ConditionType.REPLICA_SLOW).status
    slow = [SlowReplica(replicas[1].id, 1, Slowness.SLOWER_THAN_OTHERS)]
    step = next_step(fine.deployment, fine.revisions, replicas, LATER, slow=slow)
    named = condition(step, ConditionType.REPLICA_SLOW)
    assert (named.status, named.reason, named.transition_time) == (True, "SlowerThanOthers", LATER)
    assert f"Replica {replicas[1].id} of revision 1 takes several times as long" in named.message
    assert (step.deployment.state, step.wanted) == (DeploymentState.READY, fine.wanted)
    assert next_step(step.deployment, step.revisions, replicas, LATER, slow=slow).deployment == step.deployment
    well = next_step(step.deployment, step.revisions, replicas, LATER)
    assert not condition(well, ConditionType.REPLICA_SLOW).status


def test_recreate_ends_the_old_before_the_new_starts() -> None:
    deployment, revisions = deployed(2, 1, RolloutStrategy.RECREATE)
    step = next_step(deployment, revisions, running(1, READY), LATER)
    assert step.wanted == {}
    assert step.deployment.active_revision == 0
    step = next_step(step.deployment, step.revisions, running(1, STOPPING), LATER)
    assert step.wanted == {}
    step = next_step(step.deployment, step.revisions, [], LATER)
    assert step.wanted == {2: 1}
    step = next_step(step.deployment, step.revisions, running(2, READY), LATER)
    assert step.deployment.active_revision == 2


@pytest.mark.parametrize(
    ("states", "failure", "expected"),
    [
        ([READY, READY], FAILURE, DeploymentState.READY),
        ([READY, STARTING], None, DeploymentState.PROGRESSING),
        ([READY, STARTING], FAILURE, DeploymentState.DEGRADED),
        ([READY, READY, STOPPING], FAILURE, DeploymentState.READY),
        ([BACKING_OFF, BACKING_OFF], FAILURE, DeploymentState.FAILED),
        ([STARTING], None, DeploymentState.PROGRESSING),
    ],
)
def test_the_state_says_what_answers_and_whether_anything_fails(
    states: Sequence[ReplicaState], failure: ReplicaFailure | None, expected: DeploymentState
) -> None:
    step = next_step(*deployed(1, 1, wanted=2), running(1, *states, failure=failure), LATER)
    assert step.wanted == {1: 2}
    assert step.deployment.state is expected


def test_a_stopped_deployment_wants_nothing_and_rests_once_all_are_gone() -> None:
    deployment, revisions = deployed(1, 1)
    deployment = replace(deployment, stopped=True)
    step = next_step(deployment, revisions, running(1, STOPPING), LATER)
    assert step.wanted == {}
    assert (step.deployment.state, step.deployment.active_revision) == (DeploymentState.STOPPING, 0)
    assert states_of(step) == [RevisionState.RETIRED]
    step = next_step(step.deployment, step.revisions, [], LATER + timedelta(minutes=1))
    assert step.deployment.state is DeploymentState.STOPPED
    assert step.revisions[0].retire_time == LATER
    assert condition(step, ConditionType.AVAILABLE).reason == "Stopped"


def test_a_condition_keeps_its_time_until_its_answer_changes() -> None:
    deployment, revisions = deployed(1, 1)
    first = next_step(deployment, revisions, running(1, READY), TIME)
    same = next_step(first.deployment, first.revisions, first.deployment.replicas, LATER)
    assert same.deployment == first.deployment
    gone = next_step(first.deployment, first.revisions, running(1, STARTING), LATER)
    assert condition(gone, ConditionType.AVAILABLE).transition_time == LATER
    assert condition(gone, ConditionType.PROGRESSING).transition_time == TIME
