"""The asyncio driver: does the steps of plans on a `grpc.aio.Channel`. It belongs to one event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import grpc

from easyml_client.channel import Exchange, as_method, options, unknown
from easyml_client.credentials import KeptInMemory, SessionCredentials, renewing
from easyml_client.discovery import Connection
from easyml_client.handshake import explaining
from easyml_client.profile import SavedSession
from easyml_client.steps import (
    Converse,
    Emit,
    Open,
    Plan,
    Receive,
    Running,
    Send,
    SignIn,
    Sleep,
    Step,
    Stream,
    Unary,
    Work,
)

_WRITE_FAILED = "Internal error from Core"
"""How grpc.aio tells that a write failed."""
_STATUS_SECONDS, _STATUS_TRIES = 0.01, 200

P = ParamSpec("P")
T = TypeVar("T")


class _Outgoing:
    """Messages on their way into a stream: an error of their maker is kept and ends the call.

    Left alone, gRPC would cancel the call, which looks as if the caller's task had been cancelled.
    """

    def __init__(self, messages: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._messages = messages if isinstance(messages, AsyncIterable) else _in_thread(messages)
        self._error: Exception | None = None
        self._cancel: Callable[[], Any] | None = None

    async def send(self) -> AsyncIterator[Any]:
        """For gRPC."""
        try:
            async for message in self._messages:
                yield message
        except Exception as error:
            self._error = error
            if self._cancel:
                self._cancel()

    def ends(self, cancel: Callable[[], Any]) -> None:
        """How the call is ended."""
        self._cancel = cancel

    def raise_own(self) -> None:
        """Raises the maker's error, if that is what ended the call."""
        if self._error:
            raise self._error from None


class _Ending:
    """The status with which the server ends a call that is written to.

    grpc.aio sets INTERNAL when a write fails because the call has ended: before or after it sets what it received.
    """

    def __init__(self, call: Any) -> None:
        self._received: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def error(self, raised: grpc.RpcError) -> grpc.RpcError:
        """What the server said, in place of the write that failed."""
        if raised.details() != _WRITE_FAILED:
            return raised
        for _ in range(_STATUS_TRIES):
            if self._received:
                return self._received
            await asyncio.sleep(_STATUS_SECONDS)
        return raised

    def _note(self, call: Any) -> None:
        details = _at_once(call.details())
        if details != _WRITE_FAILED:
            head, trailers = _at_once(call.initial_metadata()), _at_once(call.trailing_metadata())
            self._received = grpc.aio.AioRpcError(_at_once(call.code()), head, trailers, details)


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for, where one may not wait."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return cast("T", ended.value)
    coroutine.close()
    raise AssertionError("a call that is done has its status")


async def _in_thread(messages: Iterable[Any]) -> AsyncIterator[Any]:
    """Messages whose making may block, because they come from a file."""
    iterator = iter(messages)
    while (message := await asyncio.to_thread(next, iterator, None)) is not None:
        yield message


class Responses:
    """An open stream of responses."""

    def __init__(self, exchange: Exchange, call: Any, outgoing: _Outgoing | None = None) -> None:
        self._exchange = exchange
        self._call = call
        self._outgoing = outgoing
        self._ending = _Ending(call) if outgoing else None
        self._first: Any = None

    async def open(self) -> Responses:
        """Waits for the first response."""
        self._first = await self._next()
        return self

    async def receive(self) -> Any:
        """The next response; None at the end."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._next()

    async def _next(self) -> Any:
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            self._raise_own()
            raise self._exchange.error(await self._ending.error(error) if self._ending else error) from error
        except asyncio.CancelledError:
            self._raise_own()
            raise
        return None if response is grpc.aio.EOF else response

    def _raise_own(self) -> None:
        if self._outgoing:
            self._outgoing.raise_own()


class Driver:
    """Runs plans against one server."""

    def __init__(self, connection: Connection, *, timeout: float | None = None) -> None:
        """`timeout` in seconds replaces the deadlines of all unary calls."""
        self.connection = connection
        self.credentials = connection.credentials
        self._timeout = timeout
        self._calls: dict[str, Any] = {}

    @functools.cached_property
    def _channel(self) -> grpc.aio.Channel:
        """Made at the first call, because it belongs to the loop that runs then."""
        return _channel(self.connection)

    async def run(self, plan: Plan[T]) -> T:
        """What the plan returns."""
        running = Running(self._wrapped(plan))
        async for _ in self._steps(running):
            pass
        return running.result

    async def iterate(self, stream: Stream[T]) -> AsyncIterator[T]:
        """What the plan emits; leaving the loop early ends its calls."""
        steps = self._steps(Running(self._wrapped(stream)))
        try:
            async for value in steps:
                yield value
        finally:
            await steps.aclose()  # type: ignore[attr-defined]  # it is an async generator

    async def close(self) -> None:
        """Ends calls that still run."""
        if "_channel" in self.__dict__:
            await self._channel.close()

    async def _steps(self, running: Running[Any]) -> AsyncIterator[Any]:
        opened: list[Any] = []
        try:
            step = running.next()
            while step is not None:
                if isinstance(step, Emit):
                    yield step.value
                    step = running.next()
                    continue
                try:
                    reply = await self._do(step, opened)
                except Exception as error:
                    step = running.fail(error)
                else:
                    step = running.next(reply)
        finally:
            for stream in opened:
                stream.cancel()
            running.close()

    async def _do(self, step: Step, opened: list[Any]) -> Any:  # noqa: PLR0911 - one return per kind of step
        match step:
            case Unary():
                return await self._unary(step)
            case Receive():
                return await step.stream.receive()
            case Open():
                return await self._open(step, opened)
            case Send():
                return await self._send(step, opened)
            case Converse():
                return await self._converse(step, opened)
            case Work():
                return await asyncio.to_thread(step.function)
            case Sleep():
                return await asyncio.sleep(step.seconds)
            case SignIn():
                self.credentials = SessionCredentials(SavedSession.of(step.session), KeptInMemory())
                return None
        raise unknown(step)

    def _wrapped(self, plan: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """With a new token where it is needed, and in words that help where there is no connection."""
        return explaining(renewing(plan, self.credentials), self.connection)

    def _exchange(self, request: Any) -> Exchange:
        return Exchange(self.connection, self.credentials, request, self._timeout)

    async def _unary(self, step: Unary) -> Any:
        exchange = self._exchange(step.request)
        try:
            return await self._callable("unary_unary", exchange, step.response)(
                step.request, timeout=exchange.timeout, metadata=exchange.metadata
            )
        except grpc.RpcError as error:
            raise exchange.error(error) from error

    async def _open(self, step: Open, opened: list[Any]) -> Responses:
        exchange = self._exchange(step.request)
        call = self._callable("unary_stream", exchange, step.response)(
            step.request, timeout=step.timeout, metadata=exchange.metadata
        )
        opened.append(call)
        return await Responses(exchange, call).open()

    async def _send(self, step: Send, opened: list[Any]) -> Any:
        exchange = self._exchange(step.request)
        outgoing = _Outgoing(step.messages())
        call = self._callable("stream_unary", exchange, step.response)(outgoing.send(), metadata=exchange.metadata)
        opened.append(call)
        outgoing.ends(call.cancel)
        ending = _Ending(call)
        try:
            response = await call
        except grpc.RpcError as error:
            outgoing.raise_own()
            raise exchange.error(await ending.error(error)) from error
        except asyncio.CancelledError:
            outgoing.raise_own()
            raise
        outgoing.raise_own()
        return response

    async def _converse(self, step: Converse, opened: list[Any]) -> Responses:
        exchange = self._exchange(step.request)
        outgoing = _Outgoing(step.messages)
        call = self._callable("stream_stream", exchange, step.response)(outgoing.send(), metadata=exchange.metadata)
        opened.append(call)
        outgoing.ends(call.cancel)
        return await Responses(exchange, call, outgoing).open()

    def _callable(self, shape: str, exchange: Exchange, response: Any) -> Any:
        """GRPC's callable for a method; made once, because predictions are called often."""
        path = exchange.method.path
        if path not in self._calls:
            self._calls[path] = getattr(self._channel, shape)(
                path, request_serializer=_serialize, response_deserializer=response.FromString
            )
        return self._calls[path]


def _serialize(message: Any) -> bytes:
    return cast("bytes", message.SerializeToString())


def _channel(connection: Connection) -> grpc.aio.Channel:
    if not connection.tls:
        return grpc.aio.insecure_channel(connection.target, options(connection))
    credentials = grpc.ssl_channel_credentials(connection.pem.ca, connection.pem.key, connection.pem.certificate)
    return grpc.aio.secure_channel(connection.target, credentials, options(connection))


class Noun:
    """A group of operations of a client."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver


def method(plan: Callable[P, Plan[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """The plan as a coroutine method that returns its result; name, parameters and docstring are the plan's."""

    def run(self: Noun, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self._driver.run(plan(*args, **kwargs))

    return as_method(run, plan)


def iterator(plan: Callable[P, Stream[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """The plan as a method that iterates over what it emits."""

    def iterate(self: Noun, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._driver.iterate(plan(*args, **kwargs))

    return as_method(iterate, plan)
