"""Calls go to replicas that can be reached from here, and to no address that means something else here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from easyml_server.domain.deployments import Replica, ReplicaState
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.users import Caller
from easyml_server.ports.model_servers import ServedDeployment
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.predictions import DeploymentId, PredictionService
from tests.conformance.test_store import with_deployment, with_project

HERE, THERE = (
    Replica(uuid4(), 1, ReplicaState.READY, f"127.0.0.1:{number}", machine=machine)
    for number, machine in enumerate(("here", "there"), 1)
)


async def found(store: SqlStore, reaches: Callable[[Replica], bool]) -> ServedDeployment:
    project = await with_project(store)
    deployment, _ = await with_deployment(store, project, replicas=(HERE, THERE), active_revision=1, traffic={1: 100})
    unused: Any = None
    service = PredictionService(store, unused, unused, unused, unused, reaches)
    return await service.find(Caller(project.creator_id), DeploymentId(deployment.id))


async def test_calls_go_to_replicas_of_this_machine(store: SqlStore) -> None:
    (share,) = (await found(store, lambda replica: replica.machine == "here")).shares
    assert share.endpoints == (HERE.endpoint,)


async def test_a_server_of_another_machine_says_where_to_ask(store: SqlStore) -> None:
    with pytest.raises(Unavailable, match="of another machine") as caught:
        await found(store, lambda replica: replica.machine == "nowhere")
    assert caught.value.metadata == {"part": "model_server"}
    assert "ask a server there" in caught.value.message
