"""Where the processes of deployments run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from easyml_server.domain.containers import AS_IT_IS, Container
from easyml_server.domain.counters import ReplicaCounters, ReplicaLoad, RevisionCounters
from easyml_server.domain.deployment_logs import LogLine
from easyml_server.domain.deployments import DeploymentTarget, Probes, Replica
from easyml_server.ports.model_servers import ServedModel


@dataclass(frozen=True, slots=True)
class ServedRevision:
    """A revision of a deployment, and how many replicas of it are to run.

    Only `replicas` may differ later, and `active`: whether it is the one that answers for the deployment.

    `names` are those by which clients of the Open Inference Protocol ask for the model. `container` is what replicas
    have around them; a deployer does all of it that its target accepts.
    """

    id: UUID
    deployment_id: UUID
    names: tuple[str, ...]
    number: int
    model: ServedModel
    replicas: int
    probes: Probes
    container: Container = AS_IT_IS
    target: DeploymentTarget = DeploymentTarget.LOCAL
    active: bool = False


class LogReader(Protocol):
    """Reads what the replicas of a deployment write, one look after the other."""

    async def read(self) -> Sequence[LogLine]:
        """What came since the last look, by time; at the first the last lines of each replica."""
        ...

    def close(self) -> None:
        """Nobody wants the rest."""
        ...


class Deployer(Protocol):
    """Has replicas of revisions run: model servers that accept tokens whose audience is the deployment.

    Whoever calls says what is to run, again and again; this brings it about and keeps it so. A replica that ends is
    started again, after a pause that doubles. What runs survives this program, and is found again after its restart.
    """

    def apply(self, revision: ServedRevision) -> None:
        """Have so many replicas of this revision; further ones end when they have answered what they were asked."""
        ...

    def remove(self, revision_id: UUID) -> None:
        """Have no replicas of it, found ones neither, and forget it once they are gone."""
        ...

    def retain(self, revision_ids: Collection[UUID]) -> None:
        """Remove all others: those that were found at the start, and nobody wants any more."""
        ...

    def replicas(self, revision_id: UUID) -> Sequence[Replica]:
        """What there is of a revision now. A READY replica has predicted for the model's input example."""
        ...

    def found(self, revision_id: UUID) -> Collection[UUID]:
        """The ids of replicas that were there at the start, and that `apply` would take up."""
        ...

    def reaches(self, replica: Replica) -> bool:
        """Whether the endpoints of a replica, of whatever server, mean the same here."""
        ...

    async def answers(self, deployment_id: UUID, endpoint: str) -> bool:
        """Whether a replica of this deployment answers there, of whatever server."""
        ...

    async def counters(self) -> Sequence[RevisionCounters]:
        """What replicas have counted so far; once more also those that were told to end since the last time.

        One that does not answer at once is left out.
        """
        ...

    async def counters_at(self, endpoints: Mapping[UUID, str]) -> Sequence[ReplicaCounters]:
        """What replicas of whatever server have counted, by id and where each tells; without those that do not."""
        ...

    async def loads(self, deployment_id: UUID) -> Sequence[ReplicaLoad]:
        """How busy each replica of a deployment that runs was so far, one that is ending too."""
        ...

    def logs(self, deployment_id: UUID, tail_lines: int) -> LogReader:
        """The logs of its replicas, from so many of the last lines of each on."""
        ...

    async def changed(self) -> Collection[UUID]:
        """Wait for changes of replicas since the last call; the deployments whose they are."""
        ...
