"""What all calls of a model server have in common: who may ask, where the work is done, and how errors are told.

Small requests to a quick model are answered on the event loop, since handing them to a thread costs more than they do,
and together where they arrive together. The rest goes to threads, so that health checks are answered meanwhile, and
ends at the call's deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2

from easyml_server.domain.errors import EasyMLError, InvalidInput, LimitReached, Reason
from easyml_server.domain.random_ids import random_id
from easyml_server.serving import faults
from easyml_server.serving.batches import Batcher
from easyml_server.serving.layout import Table
from easyml_server.serving.metrics import ServingMetrics
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.notes import Answered
from easyml_server.serving.predictors import Run
from easyml_server.serving.tables import TableLimits
from easyml_server.transport import status

INLINE_BYTES: Final = 4096
RETRY_SECONDS: Final = 0.5
LONGEST_CALL_ID: Final = 128
DEADLINE_TOLERANCE_SECONDS: Final = 0.1

Context = grpc.aio.ServicerContext[Any, Any]
CheckToken = Callable[[str], None]
Answer = Callable[[bytes, Context], Awaitable[bytes]]
StreamAnswer = Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]
MessageType = TypeVar("MessageType", bound=Message)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """Limits of a model server; each value's setting is EASYML_ and its name in capitals."""

    table: TableLimits = field(default_factory=TableLimits)
    max_message_bytes: int = 4 << 20
    max_predictions: int = 256
    default_deadline_seconds: float = 60.0


class Form(Protocol):
    """How a question and its answer are packed: by a service, as a call or as a message of a stream."""

    def read(self, raw: bytes) -> tuple[LoadedModel, Table]:
        """Who is asked, and what. Raises InvalidInput and NotFound."""
        ...

    def write(self, model: LoadedModel, answered: Answered) -> Message:
        """The answer to what was read last."""
        ...


class Calls:
    """Answers calls for the models of this process, by version id."""

    def __init__(
        self,
        models: Mapping[str, LoadedModel],
        check_token: CheckToken,
        limits: ServingLimits,
        threads: ThreadPoolExecutor,
        metrics: ServingMetrics,
    ) -> None:
        self.models = models
        self._metrics = metrics
        self._quick = all(model.quick for model in models.values())
        self._check_token = check_token
        self._limits = limits
        self._threads = threads
        self._in_threads = 0
        self._runs = {version: metrics.model(version) for version in models}
        self._batcher = Batcher(self._answer_together)

    def unary(
        self, service: str, method: str, answer: Answer, *, public: bool = False
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that takes and gives bytes; gRPC would answer what it cannot decode with UNKNOWN."""
        counted = self._metrics.method(service, method)

        async def handle(raw: bytes, context: Context) -> bytes:
            began = counted.began()
            code = grpc.StatusCode.CANCELLED
            try:
                if not public:
                    self._authorize(context)
                answered = await answer(raw, context)
                code = grpc.StatusCode.OK
            except asyncio.CancelledError:
                code = _given_up(context)
                raise
            except Exception as error:  # the boundary: what is not told here, gRPC tells badly
                code = status.BY_NUMBER[_code(error)]
                await _fail(context, error)
                raise
            finally:
                counted.ended(began, code)
            return answered

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(self, service: str, method: str, answer: StreamAnswer) -> grpc.RpcMethodHandler[Any, Any]:
        """The same for streams of requests, each answered in its place."""
        counted = self._metrics.method(service, method)

        async def handle(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            began = counted.began()
            code = grpc.StatusCode.CANCELLED
            try:
                self._authorize(context)
                async for answered in answer(requests, context):
                    yield answered
                code = grpc.StatusCode.OK
            except asyncio.CancelledError:
                code = _given_up(context)
                raise
            except Exception as error:  # the boundary: what is not told here, gRPC tells badly
                code = status.BY_NUMBER[_code(error)]
                await _fail(context, error)
                raise
            finally:
                counted.ended(began, code)

        return grpc.stream_stream_rpc_method_handler(handle)

    def _authorize(self, context: Context) -> None:
        self._check_token(_metadata(context, "authorization"))

    async def answer(self, form: Form, raw: bytes, context: Context) -> bytes:
        """Answer a call, with others that arrive now."""
        if not self._is_small(raw):
            return await self._in_thread(form, raw, context.time_remaining())
        return await self._batcher.answer((form, raw))

    async def answer_alone(self, form: Form, raw: bytes, context: Context) -> bytes:
        """Answer a message of a stream, which has to come before the next."""
        if not self._is_small(raw):
            return await self._in_thread(form, raw, context.time_remaining())
        return self._answer_at_once(form, raw, None)

    def serialized(self, message: Message) -> bytes:
        """The bytes of an answer. Raises InvalidInput where it is too large."""
        answer = message.SerializeToString()
        # Many classes make an answer much larger than its request, and clients take no larger one by default.
        if len(answer) > self._limits.max_message_bytes:
            raise self._too_large(f"an answer of {len(answer)} bytes")
        return answer

    def _is_small(self, raw: bytes) -> bool:
        return self._quick and len(raw) <= INLINE_BYTES

    async def _in_thread(self, form: Form, raw: bytes, remaining: float | None) -> bytes:
        if len(raw) > self._limits.max_message_bytes:
            raise self._too_large(f"{len(raw)} bytes")
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

    def _answer_together(self, asked: Sequence[tuple[Form, bytes]]) -> Sequence[bytes | Exception]:
        """By one run of each model over all that it is asked; an error for each request that has one."""
        said: dict[int, bytes | Exception] = {}
        tables: dict[str, dict[int, Table]] = {}
        for number, (form, raw) in enumerate(asked):
            try:
                model, table = form.read(raw)
                tables.setdefault(model.version_id, {})[number] = table
            except Exception as error:  # told to its caller alone
                said[number] = error
        for version, own in tables.items():
            said |= self._run_together(self.models[version], own, asked)
        return [said[number] for number in range(len(asked))]

    def _run_together(
        self, model: LoadedModel, tables: Mapping[int, Table], asked: Sequence[tuple[Form, bytes]]
    ) -> Mapping[int, bytes | Exception]:
        said: dict[int, bytes | Exception] = {}
        try:
            with self._runs[model.version_id].run(len(tables), sum(table.rows for table in tables.values())):
                answers = model.answer_together(list(tables.values()))
        except Exception as error:  # told to all whom it concerns
            return dict.fromkeys(tables, error)
        for number, answered in zip(tables, answers, strict=True):
            try:
                said[number] = self.serialized(asked[number][0].write(model, answered))
            except Exception as error:  # told to its caller alone
                said[number] = error
        return said

    def _answer_at_once(self, form: Form, raw: bytes, run: Run | None) -> bytes:
        model, table = form.read(raw)
        with self._runs[model.version_id].run(1, table.rows):
            answered = model.answer(table, run)
        return self.serialized(form.write(model, answered))

    def _too_large(self, what: str) -> InvalidInput:
        return faults.too_large(what, "EASYML_MAX_MESSAGE_BYTES", self._limits.max_message_bytes)


def decode(kind: type[MessageType], raw: bytes) -> MessageType:
    """A message from its bytes. Raises InvalidInput (MALFORMED_MESSAGE)."""
    try:
        return kind.FromString(raw)
    except (DecodeError, RecursionError, ValueError) as error:
        raise InvalidInput(
            "The message cannot be decoded; send it as the contract says.", Reason.MALFORMED_MESSAGE
        ) from error


def told(error: Exception, call_id: str) -> EasyMLError:
    """What a caller is told of an error."""
    if isinstance(error, EasyMLError):
        return error
    if isinstance(error, TimeoutError):
        return EasyMLError("The call ran out of time.", Reason.DEADLINE_EXCEEDED)
    log.error("internal_error", call_id=call_id, exc_info=error)
    return status.internal(call_id)


async def _fail(context: Context, error: Exception) -> None:
    """End a call with the status of an error."""
    call_id = call_id_of(context)
    said = told(error, call_id)
    await status.abort(context, status.status(_code(error), said, call_id), said)


def _given_up(context: Context) -> grpc.StatusCode:
    """How a call ended whose caller is gone: gRPC cancels one that ran out of time just as one that was left.

    Its deadline passes a little earlier where the call came from.
    """
    remaining = context.time_remaining()
    out_of_time = remaining is not None and remaining < DEADLINE_TOLERANCE_SECONDS
    return grpc.StatusCode.DEADLINE_EXCEEDED if out_of_time else grpc.StatusCode.CANCELLED


def _metadata(context: Context, key: str) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == key and isinstance(value, str):
            return value
    return ""


def call_id_of(context: Context) -> str:
    """The caller's name for the call, or a new one."""
    given = _metadata(context, status.CALL_ID)
    return given if 0 < len(given) <= LONGEST_CALL_ID else random_id()


def _code(error: Exception) -> int:
    if isinstance(error, TimeoutError):
        return code_pb2.DEADLINE_EXCEEDED
    return status.code_of(error) if isinstance(error, EasyMLError) else code_pb2.INTERNAL
