"""Processes that answer predictions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import UUID

from easyml_server.domain.deployments import TrafficShare
from easyml_server.domain.users import Caller
from easyml_server.ports.artifacts import StoredSource


class UnaryCall(StrEnum):
    """What replicas answer with one message, by its path: the bytes pass through."""

    PREDICT = "/easyml.v1.PredictionService/Predict"
    MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
    MODEL_METADATA = "/inference.GRPCInferenceService/ModelMetadata"
    MODEL_READY = "/inference.GRPCInferenceService/ModelReady"


class StreamCall(StrEnum):
    """The same for streams."""

    STREAM_PREDICT = "/easyml.v1.PredictionService/StreamPredict"
    MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


async def nowhere_else() -> StoredSource | None:
    """Of files that only this machine has."""
    return None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model version to serve, and its folder as long as that is held; `source` is where other machines have it from.

    The model server checks the files against the manifest, and has read them when it is ready.
    """

    version_id: UUID
    files: Callable[[], AbstractAsyncContextManager[Path]]
    source: Callable[[], Awaitable[StoredSource | None]] = nowhere_else


@dataclass(frozen=True, slots=True)
class ServedDeployment:
    """A deployment, and which of its revisions answer how many calls of a hundred, and where.

    One that is `cold` has no replica that is ready, and calls wait for the first; one that is `idle` wants none yet,
    and `failure` says what keeps one from becoming ready.
    """

    id: UUID
    shares: tuple[TrafficShare, ...]
    cold: bool = False
    idle: bool = False
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

    async def ask(
        self, deployment: ServedDeployment, call: UnaryCall, caller: Caller, request: bytes, timeout: float | None
    ) -> bytes:
        """Forward a serialized request and return the serialized answer."""
        ...

    def stream(
        self, deployment: ServedDeployment, call: StreamCall, caller: Caller, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Forward a stream of serialized messages to one replica and yield the serialized answers."""
        ...
