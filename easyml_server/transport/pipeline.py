"""The one interceptor around every method of the contract.

In order: call id, who is calling, permission that needs no object, admission, size, decoding, the contract's rules,
deadline; around them errors and the log line. Decoding is done here and not by gRPC, which would answer a message it
cannot decode, or any exception, with UNKNOWN and its text.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2

from easyml_server.domain.errors import EasyMLError, InvalidInput, NotAllowed, NotSignedIn, Reason
from easyml_server.domain.users import Caller, Permission
from easyml_server.ports.model_servers import ModelServerError
from easyml_server.transport import status
from easyml_server.transport.admission import Admission
from easyml_server.transport.calls import CURRENT, Call, Context, new_call
from easyml_server.transport.collisions import repeated
from easyml_server.transport.methods import CallClass, Method
from easyml_server.transport.validation import Validator

Handler = Any
Identify = Callable[[str], Awaitable[Caller]]

EXEMPT_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
"""Public, and admitted by gRPC's own limits alone, so that probes are answered under load."""
BEARER = "bearer "
CANCELLED = code_pb2.CANCELLED

log = structlog.get_logger(__name__)


class MessageLimits:
    """How large messages may be, by the name of the setting."""

    def __init__(self, control_bytes: int, message_bytes: int, chunk_bytes: int, metadata_bytes: int) -> None:
        self.metadata_bytes = metadata_bytes
        self._by_class = {
            CallClass.UNARY: ("EASYML_MAX_CONTROL_BYTES", control_bytes),
            CallClass.STREAM: ("EASYML_MAX_CONTROL_BYTES", control_bytes),
            CallClass.PREDICTION: ("EASYML_MAX_MESSAGE_BYTES", message_bytes),
            CallClass.UPLOAD: ("EASYML_MAX_CHUNK_BYTES", chunk_bytes + control_bytes),
        }

    def check(self, method: Method, size: int) -> None:
        """Raise InvalidInput (TOO_LARGE) before anything is decoded."""
        setting, maximum = self._by_class[CallClass.PREDICTION if method.raw else method.call_class]
        if size > maximum:
            raise InvalidInput(
                f"The message has {size} bytes; at most {maximum} are taken ({setting}).",
                Reason.TOO_LARGE,
                metadata={"limit": setting, "maximum": str(maximum)},
            )


class Pipeline(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all methods."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        identify: Identify,
        admission: Admission,
        validator: Validator,
        message_limits: MessageLimits,
        default_deadline_seconds: float,
    ) -> None:
        self._methods = methods
        self._identify = identify
        self._admission = admission
        self._validator = validator
        self._message_limits = message_limits
        self._default_deadline_seconds = default_deadline_seconds
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The wrapped handler of a method; methods that do not exist get an answer with a reason."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if path.startswith(EXEMPT_SERVICES):
            return handler
        method = self._methods.get(path)
        if handler is None or method is None:
            return _unknown_method(path)
        self._wrapped[path] = self._wrap(method, handler)
        return self._wrapped[path]

    def _wrap(self, method: Method, handler: Handler) -> Handler:
        serialize = _serializer(handler.response_serializer)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, handler.stream_stream), None, serialize
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(method, handler.stream_unary), None, serialize)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, handler.unary_stream), None, serialize)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), None, serialize)

    def _unary(self, method: Method, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        timed = method.call_class is not CallClass.UPLOAD

        async def answer(raw: Any, context: Context) -> Any:
            async with _Answering(self, method, context) as answering:
                request = answering.request(raw)
                if not timed:
                    return await behaviour(request, context)
                remaining = context.time_remaining()
                limit = self._default_deadline_seconds
                async with asyncio.timeout(limit if remaining is None else min(remaining, limit)):
                    response = await repeated(lambda: behaviour(request, context))
                await answering.announce()
                return response

        return answer

    def _streaming(self, method: Method, behaviour: Callable[[Any, Context], AsyncIterator[Any]]) -> Any:
        async def answer(raw: Any, context: Context) -> AsyncIterator[Any]:
            async with _Answering(self, method, context) as answering:
                await answering.announce()
                request = answering.request(raw)
                async with aclosing(behaviour(request, context)) as responses:  # type: ignore[type-var]  # generators
                    async for response in responses:
                        yield response

        return answer

    async def admit(
        self, method: Method, call: Call, metadata: dict[str, str], size: int, stack: AsyncExitStack
    ) -> None:
        """Everything that is checked before a message is looked at; `size` is that of all metadata."""
        if size > self._message_limits.metadata_bytes:
            raise InvalidInput(
                f"The metadata has {size} bytes; at most {self._message_limits.metadata_bytes} are taken "
                "(EASYML_MAX_METADATA_BYTES).",
                Reason.TOO_LARGE,
                metadata={
                    "limit": "EASYML_MAX_METADATA_BYTES",
                    "maximum": str(self._message_limits.metadata_bytes),
                },
            )
        if method.permission is not Permission.PUBLIC:
            call.caller = await self._caller(method, metadata)
        user = str(call.caller.user_id) if call.caller else call.peer
        await stack.enter_async_context(self._admission.admit(method.call_class, user))

    def decode(self, method: Method, raw: bytes) -> Any:
        """A message within its size, decoded and checked; raw methods get the bytes."""
        self._message_limits.check(method, len(raw))
        if method.raw:
            return raw
        try:
            message = method.request.FromString(raw)
        except (DecodeError, RecursionError, ValueError) as error:
            raise InvalidInput(
                "The message cannot be decoded; send it as the contract says.", Reason.MALFORMED_MESSAGE
            ) from error
        self._validator.check(message)
        if method.has_request_id:
            CURRENT.get().fingerprint = _fingerprint(message)
        return message

    async def _caller(self, method: Method, metadata: dict[str, str]) -> Caller:
        header = metadata.get("authorization", "")
        if not header.lower().startswith(BEARER):
            raise NotSignedIn(
                "Sign in first: send the metadata `authorization: Bearer <token or API key>`.", Reason.NOT_SIGNED_IN
            )
        caller = await self._identify(header[len(BEARER) :].strip())
        needed = method.permission
        if needed is Permission.ADMINISTRATOR and not caller.administrator:
            raise NotAllowed("Only an administrator may do this.", metadata={"required": "administrator"})
        if needed is not Permission.ADMINISTRATOR and caller.scope.permission < needed:
            raise NotAllowed(
                f"This API key carries {caller.scope.permission.name.lower()}, and this needs {needed.name.lower()}.",
                Reason.OUT_OF_SCOPE,
                metadata={"required": needed.name.lower()},
            )
        return Caller(
            caller.user_id,
            caller.administrator,
            caller.scope,
            needed,
            caller.session_id,
            caller.api_key_id,
        )


class _Answering:
    """Around one call: its id, its place, its errors, its log line."""

    def __init__(self, pipeline: Pipeline, method: Method, context: Context) -> None:
        self._pipeline = pipeline
        self._method = method
        self._context = context
        self._stack = AsyncExitStack()
        self._started = time.perf_counter()
        metadata = context.invocation_metadata() or ()
        # Of all, bytes too: what comes twice counts twice.
        self._metadata_size = sum(len(key) + len(value) for key, value in metadata)
        self._metadata = {str(key): value for key, value in metadata if isinstance(value, str)}
        self._call = new_call(method.path, context, self._metadata)

    async def __aenter__(self) -> _Answering:
        CURRENT.set(self._call)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(call_id=self._call.id)
        try:
            await self._pipeline.admit(self._method, self._call, self._metadata, self._metadata_size, self._stack)
        except Exception as error:
            await self._failed(error)
            raise
        return self

    async def __aexit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        await self._stack.aclose()
        if error is None or isinstance(error, GeneratorExit):
            self._log("OK")
        elif isinstance(error, asyncio.CancelledError):
            self._log("CANCELLED")
        elif isinstance(error, Exception):
            await self._failed(error)

    async def announce(self) -> None:
        """Sends the call id as initial metadata, with the answer and no sooner.

        Once headers are there, gRPC repeats a call no more, whether the server refused it for now or died
        (gRFC A6: a call is committed by its response headers).
        """
        await self._context.send_initial_metadata(((status.CALL_ID, self._call.id),))

    def request(self, raw: Any) -> Any:
        """The request, or the iterator of requests, decoded and checked."""
        if isinstance(raw, bytes):
            return self._pipeline.decode(self._method, raw)
        return self._decoded(raw)

    async def _decoded(self, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for raw in requests:
            yield self._pipeline.decode(self._method, raw)

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, ModelServerError):
            self._log(code_pb2.Code.Name(error.code))
            await status.pass_on(self._context, error)
        code, told = self._meaning(error)
        self._log(code_pb2.Code.Name(code), reason=told.reason.value)
        await status.abort(self._context, status.status(code, told, self._call.id), told)

    def _meaning(self, error: Exception) -> tuple[Any, EasyMLError]:
        if isinstance(error, EasyMLError):
            return status.code_of(error), error
        if isinstance(error, TimeoutError):
            told = EasyMLError(
                "The call ran out of time. It may have happened: repeat it with the same request_id to know.",
                Reason.DEADLINE_EXCEEDED,
            )
            return code_pb2.DEADLINE_EXCEEDED, told
        log.exception("internal_error", method=self._method.path)
        return code_pb2.INTERNAL, status.internal(self._call.id)

    def _log(self, code: str, **more: str) -> None:
        log.info(
            "call",
            method=self._method.path,
            code=code,
            seconds=round(time.perf_counter() - self._started, 4),
            user_id=str(self._call.caller.user_id) if self._call.caller else None,
            **more,
        )


def _serializer(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """Messages are serialized; bytes, serialized once for many watchers, pass."""

    def serialized(message: Any) -> bytes:
        if isinstance(message, bytes) or serialize is None:
            return message  # type: ignore[no-any-return]  # raw methods answer in bytes
        return serialize(message)

    return serialized


def _fingerprint(message: Message) -> str:
    """SHA-256 of everything a request says but its id."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("request_id")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def _unknown_method(path: str) -> Handler:
    async def answer(_raw: bytes, context: Context) -> None:
        call = new_call(path, context, {})
        told = EasyMLError(
            f"This server has no method {path}; compare the versions of client and server.",
            Reason.UNKNOWN_METHOD,
            metadata={"method": path},
        )
        await status.abort(context, status.status(code_pb2.UNIMPLEMENTED, told, call.id), told)

    return grpc.unary_unary_rpc_method_handler(answer)
