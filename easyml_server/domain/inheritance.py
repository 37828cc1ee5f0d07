"""Replicas that another server left: they answer on until whoever took their deployment has replicas of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from easyml_server.domain.deployments import Deployment, Replica, ReplicaState


def left_by_others(deployment: Deployment, own: Collection[UUID]) -> Sequence[Replica]:
    """Replicas that were ready, as another server stored them, of revisions that still matter."""
    if deployment.stopped:
        return ()
    numbers = {deployment.active_revision, deployment.latest_revision}
    return [
        replica
        for replica in deployment.replicas
        if replica.id not in own and replica.state is ReplicaState.READY and replica.revision in numbers
    ]


def still_wanted(deployment: Deployment, own: Sequence[Replica], answering: Collection[UUID]) -> Sequence[Replica]:
    """Of replicas that others left, those that answer, and of whose revision there are not enough others yet."""
    ready = Counter(replica.revision for replica in own if replica.state is ReplicaState.READY)
    return [
        replica
        for replica in left_by_others(deployment, {replica.id for replica in own})
        if replica.id in answering and ready[replica.revision] < deployment.config.replicas
    ]
