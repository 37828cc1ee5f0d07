"""Use cases of predictions: find the version the caller may ask, and let its model server answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID

from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.model_servers import ModelServers, ServedModel
from easyml_server.ports.store import Store
from easyml_server.services.models import ModelService, VersionName

REMEMBERED = 10_000


class PredictionService:
    """Use cases of PredictionService: requests and answers pass through as bytes."""

    def __init__(
        self,
        store: Store,
        models: ModelService,
        artifacts: ArtifactStore,
        model_servers: ModelServers,
    ) -> None:
        self._store = store
        self._models = models
        self._artifacts = artifacts
        self._model_servers = model_servers
        self._located: dict[tuple[Caller, UUID | VersionName], ServedModel] = {}
        self._located_at: int | None = None

    async def predict(self, caller: Caller, target: UUID | VersionName, request: bytes, timeout: float | None) -> bytes:
        """Answer one serialized request."""
        model = await self.find(caller, target)
        return await self._model_servers.predict(model, caller, request, timeout)

    async def find(self, caller: Caller, target: UUID | VersionName) -> ServedModel:
        """The version that a caller names, if the caller may ask it.

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
        project_id, version_id = await self._models.locate_version(caller, target)
        model = ServedModel(version_id, partial(self._artifacts.held, VersionKey.of_model(project_id, version_id)))
        if changes is not None and changes == self._store.changes == self._located_at:
            self._located[key] = model
        return model

    def stream(self, caller: Caller, model: ServedModel, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answer a stream of serialized requests to one model."""
        return self._model_servers.stream_predict(model, caller, requests)
