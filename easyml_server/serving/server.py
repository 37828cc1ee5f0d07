"""PredictionService of a model server: bytes in, bytes out, every error with its status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

import grpc

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.errors import EasyMLError, InvalidInput
from easyml_server.serving.calls import INLINE_BYTES, Calls
from easyml_server.serving.endings import Context, call_id_of, decode, told
from easyml_server.serving.known import Known
from easyml_server.serving.layout import Table
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.notes import Answered
from easyml_server.serving.predictions import write_response
from easyml_server.serving.repository import Choose, Models
from easyml_server.serving.shapes import Shape, shape_of
from easyml_server.serving.sources import Source
from easyml_server.serving.tables import Request

SERVICE: Final = "easyml.v1.PredictionService"
MAX_SHAPES: Final = 8
"""Forms of a request that are recognized: clients have few, and each costs a comparison."""
LEARN_EVERY: Final = 32


class PredictionServicer:
    """Answers for the models of this process."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._single = _Single()

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
        with self._calls.models.stream() as asks:
            stream = _Stream(asks)
            async for raw in requests:
                try:
                    yield await self._calls.answer_alone(stream, raw, context)
                except Exception as error:  # one request must not end the stream
                    yield stream.error(told(error, call_id_of(context)))


class _Recognized(NamedTuple):
    """Requests of a shape, and whom they ask as long as the same is known."""

    shape: Shape
    known: Known
    version: str

    def choose(self, known: Known) -> str:
        """See Choose. Raises _Outdated."""
        if known is not self.known:
            raise _Outdated
        return self.version


class _Outdated(Exception):
    """What a shape stood for may be another version now."""


class _Single:
    """A call with one request."""

    def __init__(self) -> None:
        # The newest first.
        self._shapes: list[_Recognized] = []
        self._unknown = 0

    def read(self, raw: bytes, models: Models) -> tuple[LoadedModel, Table]:
        for recognized in self._shapes:
            row = recognized.shape.read(raw)
            if row is not None:
                try:
                    return models.find(recognized.choose), row
                except _Outdated:
                    self._shapes = [each for each in self._shapes if each.known is models.known]
                    break
        request = decode(pb.PredictRequest, raw)
        known = models.known
        model = models.find(chooser(request))
        table = model.reader.read(request)
        if table.rows == 1 and len(raw) <= INLINE_BYTES and request.WhichOneof("table") == "columns":
            self._learn(raw, request, model, known)
        return model, table

    def _learn(self, raw: bytes, request: pb.PredictRequest, model: LoadedModel, known: Known) -> None:
        """Remember a form, if it is one; less often where too many are new, or none."""
        self._unknown += 1
        if self._unknown > MAX_SHAPES and self._unknown % LEARN_EVERY:
            return
        shape = shape_of(raw, request, model.reader)
        if shape is not None:
            learned = _Recognized(shape, known, model.version_id)
            self._shapes = [learned, *self._shapes[: MAX_SHAPES - 1]]

    def write(self, model: LoadedModel, answered: Answered) -> pb.PredictResponse:
        response = pb.PredictResponse()
        write_response(model.version_id, model.signature, answered, response)
        return response


def chooser(request: Request) -> Choose:
    """How a request names its model. What it gives raises NotFound and InvalidInput.

    Names are known to the main server only: what it sends here by name is meant for the one model served here.
    """
    target = request.WhichOneof("target")
    version = request.model_version_id.lower()

    def choose(known: Known) -> str:
        if target == "model_version_id":
            return known.version_id(version)
        if target is None:
            raise InvalidInput.at("target", "Name the model: model_version_id, or name with project and model.")
        if known.only is None:
            raise InvalidInput.at("target", "Several models are served here; name one by model_version_id.")
        return known.only

    return choose


class _Stream:
    """The requests of one stream, one after the other: the first names the model for all."""

    def __init__(self, asks: Callable[[str, Source], None]) -> None:
        self._asks = asks
        self._version = ""
        self._id = ""

    def read(self, raw: bytes, models: Models) -> tuple[LoadedModel, Table]:
        self._id = ""
        request = decode(pb.StreamPredictRequest, raw)
        self._id = request.id
        model = self._find(request, models)
        return model, model.reader.read(request)

    def write(self, model: LoadedModel, answered: Answered) -> pb.StreamPredictResponse:
        response = pb.StreamPredictResponse(id=self._id)
        write_response(model.version_id, model.signature, answered, response.response)
        return response

    def _find(self, request: pb.StreamPredictRequest, models: Models) -> LoadedModel:
        if not self._version:
            return self._begin(request, models)
        target = request.WhichOneof("target")
        # What this stream asks may have been exchanged meanwhile, and be served to it alone.
        if target is not None and request.model_version_id.lower() != self._version:
            chooser(request)(models.known)
            if target == "model_version_id":
                raise InvalidInput.at("target", "A stream asks one model, the one its first message names.")
        return models.find(lambda _known: self._version)

    def _begin(self, request: pb.StreamPredictRequest, models: Models) -> LoadedModel:
        choose, known = chooser(request), models.known

        def remember(current: Known) -> str:
            nonlocal known
            known = current
            return choose(current)

        model = models.find(remember)
        self._version = model.version_id
        self._asks(self._version, known.sources[self._version])
        return model

    def error(self, said: EasyMLError) -> bytes:
        error = pb.PredictError(reason=said.reason.value, message=said.message, column=said.metadata.get("column", ""))
        return pb.StreamPredictResponse(id=self._id, error=error).SerializeToString()
