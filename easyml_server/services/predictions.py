"""Use cases of predictions: find what the caller may ask, and let its model server answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import overload
from uuid import UUID

from easyml_server.domain.deployments import Replica
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.model_servers import (
    DeploymentCalls,
    ModelServers,
    ServedDeployment,
    ServedModel,
    StreamCall,
    UnaryCall,
)
from easyml_server.ports.store import Store
from easyml_server.services.cold_starts import served_deployment
from easyml_server.services.deployment_names import DeploymentName, find_deployment
from easyml_server.services.models import ModelService, VersionName

REMEMBERED = 10_000

Served = ServedModel | ServedDeployment


@dataclass(frozen=True, slots=True)
class DeploymentId:
    """The id of a deployment, where that of a model version may stand too."""

    id: UUID


DeploymentTarget = DeploymentId | DeploymentName
Target = DeploymentTarget | UUID | VersionName


class PredictionService:
    """Use cases of PredictionService: requests and answers pass through as bytes."""

    def __init__(
        self,
        store: Store,
        models: ModelService,
        artifacts: ArtifactStore,
        model_servers: ModelServers,
        deployments: DeploymentCalls,
        reaches: Callable[[Replica], bool],
    ) -> None:
        """`reaches` tells whether the endpoint of a replica means the same here as where it was started."""
        self._reaches = reaches
        self._store = store
        self._models = models
        self._artifacts = artifacts
        self._model_servers = model_servers
        self._deployments = deployments
        self._located: dict[tuple[Caller, Target], Served] = {}
        self._located_at: int | None = None

    async def predict(self, caller: Caller, target: Target, request: bytes, timeout: float | None) -> bytes:
        """Answer one serialized request."""
        served = await self.find(caller, target)
        if isinstance(served, ServedModel):
            return await self._model_servers.predict(served, caller, request, timeout)
        return await self._ask(caller, target, served, UnaryCall.PREDICT, request, timeout)

    async def ask(
        self, caller: Caller, target: DeploymentTarget, call: UnaryCall, request: bytes, timeout: float | None
    ) -> bytes:
        """Have a deployment answer any one serialized request."""
        served = await self.find(caller, target)
        return await self._ask(caller, target, served, call, request, timeout)

    async def _ask(
        self,
        caller: Caller,
        target: Target,
        served: ServedDeployment,
        call: UnaryCall,
        request: bytes,
        timeout: float | None,
    ) -> bytes:
        try:
            return await self._deployments.ask(served, call, caller, request, timeout)
        except Unavailable:
            # A revision that took over meanwhile answers elsewhere.
            now = await self._find(caller, target)
            if now == served or not isinstance(now, ServedDeployment):
                raise
        return await self._deployments.ask(now, call, caller, request, timeout)

    @overload
    async def find(self, caller: Caller, target: DeploymentTarget) -> ServedDeployment: ...

    @overload
    async def find(self, caller: Caller, target: Target) -> Served: ...

    async def find(self, caller: Caller, target: Target) -> Served:
        """What a caller names, if the caller may ask it.

        Remembered until anything at all changes in the store: who was removed is refused at once, and an alias points
        where it was moved.
        """
        changes = self._store.changes
        if changes != self._located_at or len(self._located) >= REMEMBERED:
            self._located.clear()
            self._located_at = changes
        key = (caller, target)
        remembered = self._located.get(key)
        if remembered is not None:
            return remembered
        served = await self._find(caller, target)
        if changes is not None and changes == self._store.changes == self._located_at:
            self._located[key] = served
        return served

    def stream(self, caller: Caller, served: Served, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answer a stream of serialized requests to one model or deployment."""
        if isinstance(served, ServedDeployment):
            return self._deployments.stream(served, StreamCall.STREAM_PREDICT, caller, requests)
        return self._model_servers.stream_predict(served, caller, requests)

    def stream_infer(
        self, caller: Caller, served: ServedDeployment, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The same of the Open Inference Protocol."""
        return self._deployments.stream(served, StreamCall.MODEL_STREAM_INFER, caller, requests)

    async def _find(self, caller: Caller, target: Target) -> Served:
        if isinstance(target, DeploymentId | DeploymentName):
            return await self._find_deployment(caller, target)
        project_id, version_id = await self._models.locate_version(caller, target)
        return ServedModel(version_id, partial(self._artifacts.held, VersionKey.of_model(project_id, version_id)))

    async def _find_deployment(self, caller: Caller, target: DeploymentId | DeploymentName) -> ServedDeployment:
        async with self._store.read() as work:
            deployment = await find_deployment(work, caller, target.id if isinstance(target, DeploymentId) else target)
        return served_deployment(deployment, self._reaches)
