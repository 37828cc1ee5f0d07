"""What all calls of a model server have in common: who may ask, where the work is done, and how errors are told.

Small requests to a quick model are answered on the event loop, since handing them to a thread costs more than they do,
and together where they arrive together. The rest goes to threads, so that health checks are answered meanwhile, and
ends at the call's deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import Message

from easyml_server.domain.errors import InvalidInput, LimitReached, Reason
from easyml_server.serving import faults
from easyml_server.serving.batches import Batcher
from easyml_server.serving.endings import Context, code_of, fail, given_up, metadata_of
from easyml_server.serving.layout import Table
from easyml_server.serving.metrics import ServingMetrics
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.notes import Answered
from easyml_server.serving.predictors import Run
from easyml_server.serving.repository import ModelRepository, Models, NotLoaded
from easyml_server.serving.tables import TableLimits
from easyml_server.transport import status

INLINE_BYTES: Final = 4096
RETRY_SECONDS: Final = 0.5

CheckToken = Callable[[str], None]
Answer = Callable[[bytes, Context], Awaitable[bytes]]
StreamAnswer = Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """Limits of a model server; each value's setting is EASYML_ and its name in capitals."""

    table: TableLimits = field(default_factory=TableLimits)
    max_message_bytes: int = 4 << 20
    max_predictions: int = 256
    default_deadline_seconds: float = 60.0


class Form(Protocol):
    """How a question and its answer are packed: by a service, as a call or as a message of a stream."""

    def read(self, raw: bytes, models: Models) -> tuple[LoadedModel, Table]:
        """Who is asked, and what. Raises InvalidInput, NotFound and NotLoaded."""
        ...

    def write(self, model: LoadedModel, answered: Answered) -> Message:
        """The answer to what was read last."""
        ...


class Calls:
    """Answers calls for the models of this process."""

    def __init__(
        self,
        models: ModelRepository,
        check_token: CheckToken,
        limits: ServingLimits,
        threads: ThreadPoolExecutor,
        metrics: ServingMetrics,
    ) -> None:
        self.models = models
        self._metrics = metrics
        self._check_token = check_token
        self._limits = limits
        self._threads = threads
        self._in_threads = 0
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
                code = given_up(context)
                raise
            except Exception as error:  # the boundary: what is not told here, gRPC tells badly
                code = status.BY_NUMBER[code_of(error)]
                await fail(context, error)
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
                code = given_up(context)
                raise
            except Exception as error:  # the boundary: what is not told here, gRPC tells badly
                code = status.BY_NUMBER[code_of(error)]
                await fail(context, error)
                raise
            finally:
                counted.ended(began, code)

        return grpc.stream_stream_rpc_method_handler(handle)

    def _authorize(self, context: Context) -> None:
        self._check_token(metadata_of(context, "authorization"))

    async def answer(self, form: Form, raw: bytes, context: Context) -> bytes:
        """Answer a call, with others that arrive now."""
        try:
            return await self._together(form, raw, context)
        except NotLoaded as missing:
            return await self.when_loaded(missing, lambda: self._together(form, raw, context), context)

    async def answer_alone(self, form: Form, raw: bytes, context: Context) -> bytes:
        """Answer a message of a stream, which has to come before the next."""
        try:
            return await self._alone(form, raw, context)
        except NotLoaded as missing:
            return await self.when_loaded(missing, lambda: self._alone(form, raw, context), context)

    async def when_loaded(self, missing: NotLoaded, answer: Callable[[], Awaitable[bytes]], context: Context) -> bytes:
        """Answer once the model that was missing is in memory, within the call's time."""
        while True:
            async with AsyncExitStack() as stack:
                with self._counted():
                    await stack.enter_async_context(self.models.loaded(missing.version, self._seconds_left(context)))
                try:
                    return await answer()
                except NotLoaded as another:
                    # A name was given to another version meanwhile.
                    missing = another

    async def _together(self, form: Form, raw: bytes, context: Context) -> bytes:
        if not self._is_small(raw):
            return await self._in_thread(form, raw, context)
        return await self._batcher.answer((form, raw))

    async def _alone(self, form: Form, raw: bytes, context: Context) -> bytes:
        if not self._is_small(raw):
            return await self._in_thread(form, raw, context)
        return self._answer_on_loop(form, raw)

    def serialized(self, message: Message) -> bytes:
        """The bytes of an answer. Raises InvalidInput where it is too large."""
        answer = message.SerializeToString()
        # Many classes make an answer much larger than its request, and clients take no larger one by default.
        if len(answer) > self._limits.max_message_bytes:
            raise self._too_large(f"an answer of {len(answer)} bytes")
        return answer

    def _is_small(self, raw: bytes) -> bool:
        return self.models.quick and len(raw) <= INLINE_BYTES

    def _seconds_left(self, context: Context) -> float:
        remaining, longest = context.time_remaining(), self._limits.default_deadline_seconds
        return longest if remaining is None else min(remaining, longest)

    async def _in_thread(self, form: Form, raw: bytes, context: Context) -> bytes:
        if len(raw) > self._limits.max_message_bytes:
            raise self._too_large(f"{len(raw)} bytes")
        run = Run()
        try:
            with self._counted():
                async with asyncio.timeout(self._seconds_left(context)):
                    return await asyncio.get_running_loop().run_in_executor(
                        self._threads, self._answer_in_thread, form, raw, run
                    )
        finally:
            run.stop()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A call that takes longer, of which there are so many at once."""
        if self._in_threads >= self._limits.max_predictions:
            raise LimitReached(
                f"{self._in_threads} predictions are being made (EASYML_MAX_PREDICTIONS); try again in a moment.",
                Reason.OVERLOADED,
                retry_after=RETRY_SECONDS,
                metadata={"limit": "EASYML_MAX_PREDICTIONS", "maximum": str(self._limits.max_predictions)},
            )
        self._in_threads += 1
        try:
            yield
        finally:
            self._in_threads -= 1

    def _answer_together(self, asked: Sequence[tuple[Form, bytes]]) -> Sequence[bytes | Exception]:
        """By one run of each model over all that it is asked; an error for each request that has one."""
        said: dict[int, bytes | Exception] = {}
        tables: dict[str, dict[int, Table]] = {}
        models: dict[str, LoadedModel] = {}
        for number, (form, raw) in enumerate(asked):
            try:
                model, table = form.read(raw, self.models)
                models[model.version_id] = model
                tables.setdefault(model.version_id, {})[number] = table
            except Exception as error:  # told to its caller alone
                said[number] = error
        for version, own in tables.items():
            said |= self._run_together(models[version], own, asked)
        return [said[number] for number in range(len(asked))]

    def _run_together(
        self, model: LoadedModel, tables: Mapping[int, Table], asked: Sequence[tuple[Form, bytes]]
    ) -> Mapping[int, bytes | Exception]:
        said: dict[int, bytes | Exception] = {}
        try:
            rows = sum(table.rows for table in tables.values())
            with self._metrics.model(model.version_id).run(len(tables), rows):
                answers = model.answer_together(list(tables.values()))
        except Exception as error:  # told to all whom it concerns
            return dict.fromkeys(tables, error)
        for number, answered in zip(tables, answers, strict=True):
            try:
                said[number] = self.serialized(asked[number][0].write(model, answered))
            except Exception as error:  # told to its caller alone
                said[number] = error
        return said

    def _answer_on_loop(self, form: Form, raw: bytes) -> bytes:
        return self._answer_at_once(form, raw, self.models, None)

    def _answer_in_thread(self, form: Form, raw: bytes, run: Run) -> bytes:
        with self.models.held() as models:
            return self._answer_at_once(form, raw, models, run)

    def _answer_at_once(self, form: Form, raw: bytes, models: Models, run: Run | None) -> bytes:
        model, table = form.read(raw, models)
        with self._metrics.model(model.version_id).run(1, table.rows):
            answered = model.answer(table, run)
        return self.serialized(form.write(model, answered))

    def _too_large(self, what: str) -> InvalidInput:
        return faults.too_large(what, "EASYML_MAX_MESSAGE_BYTES", self._limits.max_message_bytes)
