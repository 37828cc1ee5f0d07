"""Use cases of predictions: find the version the caller may ask, and let its model server answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from uuid import UUID

from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.model_servers import ModelServers, ServedModel
from easyml_server.services.models import ModelService, VersionName

CACHE_TIME = timedelta(seconds=5)
CACHE_SIZE = 10_000


class PredictionService:
    """Use cases of PredictionService: requests and answers pass through as bytes."""

    def __init__(
        self,
        models: ModelService,
        artifacts: ArtifactStore,
        model_servers: ModelServers,
        clock: Callable[[], datetime],
    ) -> None:
        self._models = models
        self._artifacts = artifacts
        self._model_servers = model_servers
        self._clock = clock
        self._allowed: dict[tuple[Caller, UUID | VersionName], tuple[datetime, ServedModel]] = {}

    async def predict(self, caller: Caller, target: UUID | VersionName, request: bytes, timeout: float | None) -> bytes:
        """Answer one serialized request."""
        model = await self.find(caller, target)
        return await self._model_servers.predict(model, caller, request, timeout)

    async def find(self, caller: Caller, target: UUID | VersionName) -> ServedModel:
        """The version that a caller names, if the caller may ask it; remembered for a few seconds."""
        now = self._clock()
        key = (caller, target)
        remembered = self._allowed.get(key)
        if remembered is not None and remembered[0] > now:
            return remembered[1]
        version = await self._models.get_version(caller, target)
        model = ServedModel(version.id, self._artifacts.model_path(version.project_id, version.id))
        if len(self._allowed) >= CACHE_SIZE:
            self._allowed.clear()
        self._allowed[key] = (now + CACHE_TIME, model)
        return model

    def stream(self, caller: Caller, model: ServedModel, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answer a stream of serialized requests to one model."""
        return self._model_servers.stream_predict(model, caller, requests)
