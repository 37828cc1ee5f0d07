"""What replicas of other servers count: each server reads all of them, so that every one can answer and judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from easyml_server.domain.counters import RevisionCounters
from easyml_server.domain.deployments import Deployment
from easyml_server.ports.deployer import Deployer
from easyml_server.ports.store import Store


class CountersElsewhere:
    """Reads the counters of replicas that are stored and do not run here."""

    def __init__(self, store: Store, deployer: Deployer) -> None:
        self._store = store
        self._deployer = deployer

    async def read(self, here: Collection[UUID]) -> Sequence[RevisionCounters]:
        """Of all deployments that are not stopped; `here` are the replicas whose counters are known already."""
        endpoints: dict[UUID, str] = {}
        revisions: list[tuple[UUID, UUID, int, set[UUID]]] = []
        async with self._store.read() as work:
            for deployment_id in await work.deployments.unfinished():
                deployment = await work.deployments.load(deployment_id)
                telling = self._telling(deployment, here)
                for revision in await work.deployments.revisions(deployment_id, telling.keys()):
                    found = telling[revision.number]
                    endpoints |= found
                    revisions.append((revision.id, deployment_id, revision.number, set(found)))
        told = await self._deployer.counters_at(endpoints)
        return [
            RevisionCounters(revision_id, deployment_id, number, [each for each in told if each.replica_id in replicas])
            for revision_id, deployment_id, number, replicas in revisions
        ]

    def _telling(self, deployment: Deployment, here: Collection[UUID]) -> Mapping[int, dict[UUID, str]]:
        """Where replicas of each revision tell."""
        found: defaultdict[int, dict[UUID, str]] = defaultdict(dict)
        for replica in deployment.replicas:
            if replica.metrics_endpoint and replica.id not in here and self._deployer.reaches(replica):
                found[replica.revision][replica.id] = replica.metrics_endpoint
        return found
