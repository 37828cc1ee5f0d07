"""PredictionService of a model server: bytes in, bytes out, every error with its status.

Small requests to a quick model are answered on the event loop, since handing them to a thread costs more than they do,
and together where they arrive together. The rest goes to threads, so that health checks are answered meanwhile, and
ends at the call's deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol, TypeVar
from uuid import uuid4

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.domain.errors import EasyMLError, InvalidInput, LimitReached, NotFound, NotSignedIn, Reason
from easyml_server.serving import faults
from easyml_server.serving.batches import Batcher
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.predictors import Run
from easyml_server.serving.tables import Request, TableLimits
from easyml_server.transport import status

SERVICE: Final = "easyml.v1.PredictionService"
INLINE_BYTES: Final = 4096
RETRY_SECONDS: Final = 0.5
LONGEST_CALL_ID: Final = 128

Context = grpc.aio.ServicerContext[Any, Any]
CheckToken = Callable[[str], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """Limits of a model server; each value's setting is EASYML_ and its name in capitals."""

    table: TableLimits = field(default_factory=TableLimits)
    max_message_bytes: int = 4 << 20
    max_predictions: int = 256
    default_deadline_seconds: float = 60.0


class PredictionServicer:
    """Answers for the models of this process."""

    def __init__(
        self,
        models: Mapping[str, LoadedModel],
        check_token: CheckToken,
        limits: ServingLimits,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._models = models
        self._only = next(iter(models.values())) if len(models) == 1 else None
        self._quick = all(model.quick for model in models.values())
        self._check_token = check_token
        self._limits = limits
        self._threads = threads
        self._in_threads = 0
        self._single = _Single(self)
        self._batchers = {model.version_id: Batcher(model) for model in models.values()}

    def handler(self) -> grpc.GenericRpcHandler:
        """Handlers that take and give bytes; gRPC would answer what it cannot decode with UNKNOWN."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Predict": grpc.unary_unary_rpc_method_handler(self.predict),
                "StreamPredict": grpc.stream_stream_rpc_method_handler(self.stream_predict),
            },
        )

    async def predict(self, raw: bytes, context: Context) -> bytes:
        """Answer one request."""
        try:
            self._check_token(_authorization(context))
            if self._quick and len(raw) <= INLINE_BYTES:
                request = _decode(pb.PredictRequest, raw)
                model = self.find(request)
                return self._serialized(await self._batchers[model.version_id].answer(model.read(request)))
            return await self.answer(self._single, raw, context)
        except Exception as error:  # the boundary: what is not told here, gRPC tells badly
            await _fail(context, error)

    async def stream_predict(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Answer each request of a stream in its place."""
        try:
            self._check_token(_authorization(context))
        except NotSignedIn as error:
            await _fail(context, error)
        stream = _Stream(self)
        async for raw in requests:
            try:
                yield await self.answer(stream, raw, context)
            except Exception as error:  # one request must not end the stream
                yield stream.error(_told(error, _call_id(context))[1])

    async def answer(self, form: _Form, raw: bytes, context: Context) -> bytes:
        """Answer a message at once or in a thread."""
        if self._quick and len(raw) <= INLINE_BYTES:
            return self._answer_at_once(form, raw, None)
        if len(raw) > self._limits.max_message_bytes:
            raise faults.too_large(f"{len(raw)} bytes", "EASYML_MAX_MESSAGE_BYTES", self._limits.max_message_bytes)
        return await self._in_thread(form, raw, context.time_remaining())

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

    async def _in_thread(self, form: _Form, raw: bytes, remaining: float | None) -> bytes:
        if self._in_threads >= self._limits.max_predictions:
            raise LimitReached(
                f"{self._in_threads} predictions are being made (EASYML_MAX_PREDICTIONS); try again in a moment.",
                Reason.OVERLOADED,
                retry_after=RETRY_SECONDS,
                metadata={"limit": "EASYML_MAX_PREDICTIONS", "maximum": str(self._limits.max_predictions)},
            )
        run = Run()
        longest = self._limits.default_deadline_seconds
        self._in_threads += 1
        try:
            async with asyncio.timeout(longest if remaining is None else min(remaining, longest)):
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._answer_at_once, form, raw, run
                )
        finally:
            self._in_threads -= 1
            run.stop()

    def _answer_at_once(self, form: _Form, raw: bytes, run: Run | None) -> bytes:
        return self._serialized(form.answer(raw, run))

    def _serialized(self, message: Message) -> bytes:
        answer = message.SerializeToString()
        # Many classes make an answer much larger than its request, and clients take no larger one by default.
        if len(answer) > self._limits.max_message_bytes:
            raise faults.too_large(
                f"an answer of {len(answer)} bytes", "EASYML_MAX_MESSAGE_BYTES", self._limits.max_message_bytes
            )
        return answer


class _Form(Protocol):
    """How a request and its answer are packed: as a call, or as messages of a stream."""

    def answer(self, raw: bytes, run: Run | None) -> Message: ...


class _Single:
    """A call with one request."""

    def __init__(self, servicer: PredictionServicer) -> None:
        self._servicer = servicer

    def answer(self, raw: bytes, run: Run | None) -> Message:
        request = _decode(pb.PredictRequest, raw)
        response = pb.PredictResponse()
        self._servicer.find(request).answer(request, response, run)
        return response


class _Stream:
    """The requests of one stream, one after the other: the first names the model for all."""

    def __init__(self, servicer: PredictionServicer) -> None:
        self._servicer = servicer
        self._model: LoadedModel | None = None
        self._id = ""

    def answer(self, raw: bytes, run: Run | None) -> Message:
        self._id = ""
        request = _decode(pb.StreamPredictRequest, raw)
        self._id = request.id
        response = pb.StreamPredictResponse(id=request.id)
        self._find(request).answer(request, response.response, run)
        return response

    def _find(self, request: pb.StreamPredictRequest) -> LoadedModel:
        if self._model is None:
            self._model = self._servicer.find(request)
        elif request.WhichOneof("target") is not None and self._servicer.find(request) is not self._model:
            raise InvalidInput.at("target", "A stream asks one model, the one its first message names.")
        return self._model

    def error(self, told: EasyMLError) -> bytes:
        error = pb.PredictError(reason=told.reason.value, message=told.message, column=told.metadata.get("column", ""))
        return pb.StreamPredictResponse(id=self._id, error=error).SerializeToString()


MessageType = TypeVar("MessageType", pb.PredictRequest, pb.StreamPredictRequest)


def _decode(kind: type[MessageType], raw: bytes) -> MessageType:
    """A message from its bytes. Raises InvalidInput (MALFORMED_MESSAGE)."""
    try:
        return kind.FromString(raw)
    except (DecodeError, RecursionError, ValueError) as error:
        raise InvalidInput(
            "The message cannot be decoded; send it as the contract says.", Reason.MALFORMED_MESSAGE
        ) from error


def _metadata(context: Context, key: str) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == key and isinstance(value, str):
            return value
    return ""


def _authorization(context: Context) -> str:
    return _metadata(context, "authorization")


def _call_id(context: Context) -> str:
    given = _metadata(context, status.CALL_ID)
    return given if 0 < len(given) <= LONGEST_CALL_ID else str(uuid4())


def _told(error: Exception, call_id: str) -> tuple[int, EasyMLError]:
    """The code of an error, and what the caller is told of it."""
    if isinstance(error, EasyMLError):
        return status.code_of(error), error
    if isinstance(error, TimeoutError):
        return code_pb2.DEADLINE_EXCEEDED, EasyMLError("The call ran out of time.", Reason.DEADLINE_EXCEEDED)
    log.error("internal_error", call_id=call_id, exc_info=error)
    return code_pb2.INTERNAL, status.internal(call_id)


async def _fail(context: Context, error: Exception) -> NoReturn:
    call_id = _call_id(context)
    code, told = _told(error, call_id)
    await status.abort(context, status.status(code, told, call_id), told)
    raise error
