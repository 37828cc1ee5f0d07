"""PredictionService of a model server: bytes in, bytes out, every error with its status."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import grpc

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.errors import EasyMLError, InvalidInput, NotFound
from easyml_server.serving import faults
from easyml_server.serving.calls import INLINE_BYTES, Calls, Context, call_id_of, decode, told
from easyml_server.serving.layout import Table
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.notes import Answered
from easyml_server.serving.predictions import write_response
from easyml_server.serving.shapes import Shape, shape_of
from easyml_server.serving.tables import Request

SERVICE: Final = "easyml.v1.PredictionService"
MAX_SHAPES: Final = 8
"""Forms of a request that are recognized: clients have few, and each costs a comparison."""
LEARN_EVERY: Final = 32


class PredictionServicer:
    """Answers for the models of this process."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._single = _Single(calls)

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Predict": self._calls.unary(SERVICE, "Predict", self.predict),
                "StreamPredict": self._calls.stream(SERVICE, "StreamPredict", self.stream_predict),
            },
        )

    async def predict(self, raw: bytes, context: Context) -> bytes:
        """Answer one request."""
        return await self._calls.answer(self._single, raw, context)

    async def stream_predict(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Answer each request of a stream in its place."""
        stream = _Stream(self._calls)
        async for raw in requests:
            try:
                yield await self._calls.answer_alone(stream, raw, context)
            except Exception as error:  # one request must not end the stream
                yield stream.error(told(error, call_id_of(context)))


class _Single:
    """A call with one request."""

    def __init__(self, calls: Calls) -> None:
        self._models = calls.models
        self._only = next(iter(calls.models.values())) if len(calls.models) == 1 else None
        # The newest first.
        self._shapes: list[tuple[Shape, LoadedModel]] = []
        self._unknown = 0

    def read(self, raw: bytes) -> tuple[LoadedModel, Table]:
        for shape, model in self._shapes:
            row = shape.read(raw)
            if row is not None:
                return model, row
        request = decode(pb.PredictRequest, raw)
        model = self.find(request)
        table = model.reader.read(request)
        if table.rows == 1 and len(raw) <= INLINE_BYTES and request.WhichOneof("table") == "columns":
            self._learn(raw, request, model)
        return model, table

    def _learn(self, raw: bytes, request: pb.PredictRequest, model: LoadedModel) -> None:
        """Remember a form, if it is one; less often where too many are new, or none."""
        self._unknown += 1
        if self._unknown > MAX_SHAPES and self._unknown % LEARN_EVERY:
            return
        shape = shape_of(raw, request, model.reader)
        if shape is not None:
            self._shapes = [(shape, model), *self._shapes[: MAX_SHAPES - 1]]

    def write(self, model: LoadedModel, answered: Answered) -> pb.PredictResponse:
        response = pb.PredictResponse()
        write_response(model.version_id, model.signature, answered, response)
        return response

    def find(self, request: Request) -> LoadedModel:
        """The model that a request names.

        Names are known to the main server only: what it sends here by name is meant for the one model served here.
        """
        target = request.WhichOneof("target")
        if target == "model_version_id":
            model = self._models.get(request.model_version_id.lower())
            if model is None:
                raise NotFound.of("model version", faults.shortened(request.model_version_id))
            return model
        if target is None:
            raise InvalidInput.at("target", "Name the model: model_version_id, or name with project and model.")
        if self._only is None:
            raise InvalidInput.at("target", "Several models are served here; name one by model_version_id.")
        return self._only


class _Stream:
    """The requests of one stream, one after the other: the first names the model for all."""

    def __init__(self, calls: Calls) -> None:
        self._named = _Single(calls)
        self._model: LoadedModel | None = None
        self._id = ""

    def read(self, raw: bytes) -> tuple[LoadedModel, Table]:
        self._id = ""
        request = decode(pb.StreamPredictRequest, raw)
        self._id = request.id
        model = self._find(request)
        return model, model.reader.read(request)

    def write(self, model: LoadedModel, answered: Answered) -> pb.StreamPredictResponse:
        response = pb.StreamPredictResponse(id=self._id)
        write_response(model.version_id, model.signature, answered, response.response)
        return response

    def _find(self, request: pb.StreamPredictRequest) -> LoadedModel:
        if self._model is None:
            self._model = self._named.find(request)
        elif request.WhichOneof("target") is not None and self._named.find(request) is not self._model:
            raise InvalidInput.at("target", "A stream asks one model, the one its first message names.")
        return self._model

    def error(self, said: EasyMLError) -> bytes:
        error = pb.PredictError(reason=said.reason.value, message=said.message, column=said.metadata.get("column", ""))
        return pb.StreamPredictResponse(id=self._id, error=error).SerializeToString()
