"""The Open Inference Protocol on the main port, where a model is a deployment.

Only the name, the first field of each request, is read here; a replica decodes the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final
from uuid import UUID

import grpc
from google.protobuf.message import DecodeError, Message

from easyml_server import __version__
from easyml_server.domain.errors import InvalidInput, NotFound, Reason, Unavailable, WrongState
from easyml_server.ports.model_servers import UnaryCall
from easyml_server.services.deployment_names import DeploymentName
from easyml_server.services.inference import InferenceService
from easyml_server.services.predictions import DeploymentId, DeploymentTarget, PredictionService
from easyml_server.transport.calls import Context, caller
from easyml_server.transport.servicers.predictions import rejoined
from inference import open_inference_grpc_pb2 as pb

SERVICE: Final = "inference.GRPCInferenceService"
NAME_TAG: Final = 1 << 3 | 2
"""Field 1, length-delimited: how a request begins that names its model."""
LONGER: Final = 0x80
"""A length from here on takes further bytes."""
SHOWN: Final = 100
NOT_READY: Final = (NotFound, WrongState, Unavailable)
"""How it is said elsewhere that no replica answers, or that the caller sees no such deployment."""
READY, UNAVAILABLE = "READY", "UNAVAILABLE"

Named = type[pb.ModelInferRequest] | type[pb.ModelMetadataRequest] | type[pb.ModelReadyRequest]


class InferenceServicer:
    """inference.GRPCInferenceService on the wire."""

    def __init__(
        self, inference: InferenceService, predictions: PredictionService, is_ready: Callable[[], bool]
    ) -> None:
        self._inference = inference
        self._predictions = predictions
        self._is_ready = is_ready

    def handler(self) -> grpc.GenericRpcHandler:
        """Handlers of which those that ask a model take and give bytes."""
        told: Mapping[str, Callable[..., Any]] = {
            "ServerLive": self.ServerLive,
            "ServerReady": self.ServerReady,
            "ServerMetadata": self.ServerMetadata,
            "RepositoryIndex": self.RepositoryIndex,
        }
        asked = {"ModelReady": self.ModelReady, "ModelMetadata": self.ModelMetadata, "ModelInfer": self.ModelInfer}
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(method, response_serializer=_serialized)
            for name, method in told.items()
        }
        handlers |= {name: grpc.unary_unary_rpc_method_handler(method) for name, method in asked.items()}
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.ModelStreamInfer)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="easyml", version=__version__, extensions=["model_repository", "binary_tensor_data"]
        )

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        response = pb.RepositoryIndexResponse()
        # There is one repository, without a name.
        for model in await self._inference.index(caller()) if not request.repository_name else ():
            if model.ready or not request.ready:
                version = "" if model.version_id is None else str(model.version_id)
                state = READY if model.ready else UNAVAILABLE
                response.models.add(name=model.name, version=version, state=state, reason=model.reason)
        return response

    async def ModelReady(self, request: bytes, context: Context) -> bytes:
        try:
            target = _target(request, pb.ModelReadyRequest)
            served = await self._predictions.find(caller(), target)
            if served.cold:
                # One without calls answers the next; who only asks whether it does is no reason to start a replica.
                return pb.ModelReadyResponse(ready=served.idle).SerializeToString()
            return await self._predictions.ask(
                caller(), target, UnaryCall.MODEL_READY, request, context.time_remaining()
            )
        except NOT_READY:
            return pb.ModelReadyResponse(ready=False).SerializeToString()

    async def ModelMetadata(self, request: bytes, context: Context) -> bytes:
        target = _target(request, pb.ModelMetadataRequest)
        return await self._predictions.ask(
            caller(), target, UnaryCall.MODEL_METADATA, request, context.time_remaining()
        )

    async def ModelInfer(self, request: bytes, context: Context) -> bytes:
        target = _target(request, pb.ModelInferRequest)
        return await self._predictions.ask(caller(), target, UnaryCall.MODEL_INFER, request, context.time_remaining())

    async def ModelStreamInfer(self, request: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        first = await anext(aiter(request), None)
        if first is None:
            return
        served = await self._predictions.find(caller(), _target(first, pb.ModelInferRequest))
        answers = self._predictions.stream_infer(caller(), served, rejoined(first, request))
        async with aclosing(answers):  # type: ignore[type-var]  # a generator
            async for answer in answers:
                yield answer


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _target(request: bytes, kind: Named) -> DeploymentTarget:
    """The deployment that stands where the protocol has a model. Raises InvalidInput and NotFound."""
    name = _first_text(request) or _decoded_name(request, kind)
    identity = _id(name)
    if identity is not None:
        return DeploymentId(identity)
    project, _, deployment = name.partition("/")
    project_id = _id(project)
    # A replica compares letter by letter.
    if project_id is None or project != str(project_id) or not deployment:
        raise NotFound(
            f"There is no model {name[:SHOWN]!r}; name a deployment by its id, or as PROJECT_ID/NAME.",
            resource=("model", name[:SHOWN]),
        )
    return DeploymentName(project_id, deployment)


def _id(text: str) -> UUID | None:
    """An id as it is usually written; a UUID has other spellings, which a replica does not know."""
    try:
        identity = UUID(text)
    except ValueError:
        return None
    return identity if text.lower() == str(identity) else None


def _first_text(request: bytes) -> str:
    """The name where a request begins with it, as clients write it; empty where it must be decoded to be found."""
    if len(request) < 2 or request[0] != NAME_TAG or request[1] >= LONGER:  # noqa: PLR2004 (tag and length)
        return ""
    try:
        return request[2 : 2 + request[1]].decode()
    except UnicodeDecodeError:
        return ""


def _decoded_name(request: bytes, kind: Named) -> str:
    try:
        message = kind.FromString(request)
    except (DecodeError, RecursionError, ValueError) as error:
        raise InvalidInput(
            "The message cannot be decoded; send it as the protocol says.", Reason.MALFORMED_MESSAGE
        ) from error
    field = "model_name" if isinstance(message, pb.ModelInferRequest) else "name"
    name: str = getattr(message, field)
    if not name:
        raise InvalidInput.at(field, "Name the deployment that is asked: by its id, or as PROJECT_ID/NAME.")
    return name
