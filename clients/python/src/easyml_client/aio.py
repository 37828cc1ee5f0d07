"""The asyncio driver: does the steps of plans on a `grpc.aio.Channel`. It belongs to one event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import grpc

from easyml_client.channel import Exchange, Guarded, as_method, options, unknown
from easyml_client.credentials import KeptInMemory, SessionCredentials, renewing
from easyml_client.discovery import Connection
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

P = ParamSpec("P")
T = TypeVar("T")


class Responses:
    """An open stream of responses."""

    def __init__(self, exchange: Exchange, call: Any, guarded: Guarded[Any] | None = None) -> None:
        self._exchange = exchange
        self._call = call
        self._guarded = guarded
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
            raise self._exchange.error(error) from error
        except asyncio.CancelledError:
            self._raise_own()
            raise
        return None if response is grpc.aio.EOF else response

    def _raise_own(self) -> None:
        if self._guarded and self._guarded.error:
            raise self._guarded.error from None


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
        running = Running(renewing(plan, self.credentials))
        async for _ in self._steps(running):
            pass
        return running.result

    async def iterate(self, stream: Stream[T]) -> AsyncIterator[T]:
        """What the plan emits; leaving the loop early ends its calls."""
        steps = self._steps(Running(renewing(stream, self.credentials)))
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
        guarded = Guarded(step.messages())
        call = self._callable("stream_unary", exchange, step.response)(_in_thread(guarded), metadata=exchange.metadata)
        opened.append(call)
        try:
            response = await call
        except grpc.RpcError as error:
            if guarded.error:
                raise guarded.error from None
            raise exchange.error(error) from error
        if guarded.error:
            raise guarded.error
        return response

    async def _converse(self, step: Converse, opened: list[Any]) -> Responses:
        exchange = self._exchange(step.request)
        guarded: Guarded[Any] = Guarded(())
        messages = _guarded(cast("AsyncIterable[Any]", step.messages), guarded)
        call = self._callable("stream_stream", exchange, step.response)(messages, metadata=exchange.metadata)
        opened.append(call)
        guarded.ends(call.cancel)
        return await Responses(exchange, call, guarded).open()

    def _callable(self, shape: str, exchange: Exchange, response: Any) -> Any:
        """GRPC's callable for a method; made once, because predictions are called often."""
        path = exchange.method.path
        if path not in self._calls:
            self._calls[path] = getattr(self._channel, shape)(
                path, request_serializer=_serialize, response_deserializer=response.FromString
            )
        return self._calls[path]


async def _in_thread(messages: Guarded[Any]) -> AsyncIterator[Any]:
    """Messages whose making blocks (they come from a file)."""
    while (message := await asyncio.to_thread(next, messages, None)) is not None:
        yield message


async def _guarded(messages: AsyncIterable[Any], guarded: Guarded[Any]) -> AsyncIterator[Any]:
    try:
        async for message in messages:
            yield message
    except Exception as error:
        guarded.failed(error)


def _serialize(message: Any) -> bytes:
    return cast("bytes", message.SerializeToString())


def _channel(connection: Connection) -> grpc.aio.Channel:
    if not connection.tls:
        return grpc.aio.insecure_channel(connection.target, options(connection))
    credentials = grpc.ssl_channel_credentials(connection.root_certificates)
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
