"""Follows which replicas are slow and alive, from what they count and whether they tell it in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from easyml_server.domain.deployments import ReplicaState
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.slowness import MISSED, WINDOW, Slowness, SlowReplica, slower_than_others
from easyml_server.ports.deployer import Deployer
from easyml_server.services.deployment_metrics import DeploymentMetrics

NONE: Final[tuple[SlowReplica, ...]] = ()


class SlowReplicas:
    """Looks each time that counters were read."""

    def __init__(self, deployer: Deployer, metrics: DeploymentMetrics) -> None:
        self._deployer = deployer
        self._metrics = metrics
        self._found: dict[UUID, tuple[SlowReplica, ...]] = {}
        # Questions in a row that were not answered, of replicas that were ready at the last look.
        self._missed: dict[UUID, int] = {}

    def of(self, deployment_id: UUID) -> tuple[SlowReplica, ...]:
        """Those of a deployment, as they were found last."""
        return self._found.get(deployment_id, NONE)

    def look(self, applied: Mapping[UUID, Mapping[int, UUID]]) -> set[UUID]:
        """Look at all revisions by deployment and number; the deployments of which something else is to be said."""
        before, missed = self._found, self._missed
        self._found, self._missed = {}, {}
        for deployment_id, revisions in applied.items():
            found = [
                slow
                for number, revision_id in sorted(revisions.items())
                for slow in self._slow(number, revision_id, before.get(deployment_id, NONE), missed)
            ]
            if found:
                self._found[deployment_id] = tuple(found)
        return {each for each in applied if before.get(each, NONE) != self.of(each)}

    def _slow(
        self, number: int, revision_id: UUID, before: tuple[SlowReplica, ...], missed: Mapping[UUID, int]
    ) -> list[SlowReplica]:
        try:
            replicas = self._deployer.replicas(revision_id)
        except Unavailable:
            # Nothing is known of it just now, so what was known is said on.
            return [slow for slow in before if slow.revision == number]
        # One that tells nowhere what it counts cannot be late with it.
        ready = sorted(each.id for each in replicas if each.state is ReplicaState.READY and each.metrics_endpoint)
        latencies = self._metrics.latencies(revision_id, WINDOW)
        for each in ready:
            # One that has just become ready was not asked yet.
            told = each not in missed or self._metrics.told(revision_id, each)
            self._missed[each] = 0 if told else missed[each] + 1
        slower = slower_than_others(
            {each: latencies[each] for each in ready if each in latencies}, {slow.replica_id for slow in before}
        )
        late = {each for each in ready if self._missed[each] >= MISSED}
        return [
            SlowReplica(each, number, Slowness.ANSWERS_LATE if each in late else Slowness.SLOWER_THAN_OTHERS)
            for each in ready
            if each in late | slower
        ]
