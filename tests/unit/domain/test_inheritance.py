"""Replicas that another server left are wanted until there are enough others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from easyml_server.domain.deployments import Deployment, DeploymentConfig, Replica, ReplicaState
from easyml_server.domain.inheritance import left_by_others, still_wanted
from tests.unit.services.builders import a_deployment


def a_replica(revision: int = 1, state: ReplicaState = ReplicaState.READY) -> Replica:
    return Replica(uuid4(), revision, state, "127.0.0.1:1" if state is ReplicaState.READY else "")


def a_deployment_of(*replicas: Replica, **changes: Any) -> Deployment:
    config = DeploymentConfig(replicas=2)
    values = {"replicas": replicas, "config": config, "active_revision": 1, **changes}
    return replace(a_deployment(uuid4(), uuid4()), **values)


def test_what_is_one_s_own_was_left_by_nobody() -> None:
    own, left = a_replica(), a_replica()
    assert left_by_others(a_deployment_of(own, left), {own.id}) == [left]


def test_what_was_not_ready_cannot_be_asked() -> None:
    assert left_by_others(a_deployment_of(a_replica(state=ReplicaState.STARTING)), ()) == []


@pytest.mark.parametrize("changes", [{"stopped": True}, {"active_revision": 0, "latest_revision": 2}])
def test_nobody_wants_what_was_stopped_or_replaced(changes: dict[str, Any]) -> None:
    assert list(left_by_others(a_deployment_of(a_replica(), **changes), ())) == []


def test_those_that_answer_are_wanted_until_enough_others_of_their_revision_are_ready() -> None:
    left, silent, newer = a_replica(), a_replica(), a_replica(revision=2)
    deployment = a_deployment_of(left, silent, newer, latest_revision=2)
    answering = {left.id, newer.id}
    one = a_replica()
    assert still_wanted(deployment, [], answering) == [left, newer]
    assert still_wanted(deployment, [one], answering) == [left, newer]
    assert still_wanted(deployment, [one, a_replica(state=ReplicaState.STARTING)], answering) == [left, newer]
    assert still_wanted(deployment, [one, a_replica()], answering) == [newer]
