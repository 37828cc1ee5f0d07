"""PredictionService on the wire: messages pass through as bytes.

Only the target, the lowest fields of each request, is read here; the model server decodes the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc
from google.protobuf.message import DecodeError

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.services.predictions import DeploymentId, PredictionService, Target
from easyml_server.transport.calls import Context, caller, parse_id
from easyml_server.transport.converters.deployments import to_deployment_name
from easyml_server.transport.converters.models import to_version_name
from easyml_server.transport.validation import Validator

SERVICE = "easyml.v1.PredictionService"
UUID_BYTES = 36
VERSION_PREFIX, DEPLOYMENT_PREFIX = (bytes([number << 3 | 2, UUID_BYTES]) for number in (1, 4))
"""The field, length-delimited, 36 bytes: how a request begins on the wire that names a version or deployment by id."""


class PredictionServicer:
    """PredictionService on the wire."""

    def __init__(self, predictions: PredictionService, validator: Validator) -> None:
        self._predictions = predictions
        self._validator = validator

    def handler(self) -> grpc.GenericRpcHandler:
        """Handlers that take and give bytes."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Predict": grpc.unary_unary_rpc_method_handler(self.Predict),
                "StreamPredict": grpc.stream_stream_rpc_method_handler(self.StreamPredict),
            },
        )

    async def Predict(self, request: bytes, context: Context) -> bytes:
        target = self._target(request, pb.PredictRequest)
        return await self._predictions.predict(caller(), target, request, context.time_remaining())

    async def StreamPredict(self, request: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        first = await anext(aiter(request), None)
        if first is None:
            return
        served = await self._predictions.find(caller(), self._target(first, pb.StreamPredictRequest))
        async with aclosing(self._predictions.stream(caller(), served, rejoined(first, request))) as answers:  # type: ignore[type-var]  # a generator
            async for answer in answers:
                yield answer

    def _target(self, request: bytes, kind: type[pb.PredictRequest] | type[pb.StreamPredictRequest]) -> Target:
        """Read off the first bytes where they name something by id; decoded where they do not."""
        if request.startswith(VERSION_PREFIX):
            return parse_id(request[2 : 2 + UUID_BYTES].decode("ascii", "replace"), "model_version_id")
        if request.startswith(DEPLOYMENT_PREFIX):
            return DeploymentId(parse_id(request[2 : 2 + UUID_BYTES].decode("ascii", "replace"), "deployment_id"))
        try:
            message = kind.FromString(request)
        except (DecodeError, RecursionError) as error:
            raise InvalidInput(
                "The message cannot be decoded; send it as the contract says.", Reason.MALFORMED_MESSAGE
            ) from error
        match message.WhichOneof("target"):
            case "model_version_id":
                return parse_id(message.model_version_id, "model_version_id")
            case "name":
                self._validator.check(message.name)
                return to_version_name(message.name)
            case "deployment_id":
                return DeploymentId(parse_id(message.deployment_id, "deployment_id"))
            case "deployment_name":
                self._validator.check(message.deployment_name)
                return to_deployment_name(message.deployment_name)
            case _:
                raise InvalidInput.at(
                    "target",
                    "Name whom to ask: model_version_id, name with project and model, deployment_id, or"
                    " deployment_name.",
                )


async def rejoined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream whose first message was read already."""
    yield first
    async for each in rest:
        yield each
