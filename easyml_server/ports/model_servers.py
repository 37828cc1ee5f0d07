"""Processes that answer predictions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from easyml_server.domain.deployments import TrafficShare
from easyml_server.domain.users import Caller


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model version to serve, and its folder as long as that is held.

    The model server checks the files against the manifest, and has read them when it is ready.
    """

    version_id: UUID
    files: Callable[[], AbstractAsyncContextManager[Path]]


@dataclass(frozen=True, slots=True)
class ServedDeployment:
    """A deployment, and which of its revisions answer how many calls of a hundred, and where.

    One that is `cold` has no replica that is ready, and calls wait for the first; `failure` says what keeps it.
    """

    id: UUID
    shares: tuple[TrafficShare, ...]
    cold: bool = False
    failure: str = ""


class ModelServerError(Exception):
    """The model server answered with an error, which the caller gets as it is.

    `code` is a number of google.rpc.Code; `trailers` carry the details as the model server wrote them.
    """

    def __init__(self, code: int, message: str, trailers: Sequence[tuple[str, str | bytes]]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailers = tuple(trailers)


class ModelServers(Protocol):
    """Starts a model server on first use, keeps it warm, and forwards serialized messages to it.

    Raises Unavailable where there is no model server just now, ModelServerError where it answers with an error, and
    TimeoutError.
    """

    async def predict(self, model: ServedModel, caller: Caller, request: bytes, timeout: float | None) -> bytes:
        """Forward a serialized PredictRequest and return the serialized answer."""
        ...

    def stream_predict(
        self, model: ServedModel, caller: Caller, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Forward a stream of serialized messages and yield the serialized answers."""
        ...

    async def forget(self, version_id: UUID) -> None:
        """Stop serving a version that is deleted."""
        ...


class DeploymentCalls(Protocol):
    """Forwards serialized messages to replicas of deployments. Raises as ModelServers does."""

    async def predict(
        self, deployment: ServedDeployment, caller: Caller, request: bytes, timeout: float | None
    ) -> bytes:
        """Forward a serialized PredictRequest and return the serialized answer."""
        ...

    def stream_predict(
        self, deployment: ServedDeployment, caller: Caller, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Forward a stream of serialized messages to one replica and yield the serialized answers."""
        ...
