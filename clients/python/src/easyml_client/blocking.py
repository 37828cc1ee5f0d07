"""The blocking driver: does the steps of plans on a `grpc.Channel`. Safe to share between threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
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

P = ParamSpec("P")
T = TypeVar("T")


class _Outgoing:
    """Messages on their way into a stream, made on gRPC's side: an error of their maker is kept and ends the call.

    Left alone, gRPC would log it and tell the caller nothing but UNKNOWN.
    """

    def __init__(self, messages: Iterable[Any]) -> None:
        self._messages = iter(messages)
        self._error: Exception | None = None
        self._cancel: Callable[[], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        """For gRPC's thread."""
        return self

    def __next__(self) -> Any:
        """The next message; after an error there is none."""
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except Exception as error:
            self._fail(error)
            raise StopIteration from None

    def _fail(self, error: Exception) -> None:
        """Keeps the error and ends the call."""
        self._error = error
        if self._cancel:
            self._cancel()

    def ends(self, cancel: Callable[[], Any]) -> None:
        """How the call is ended; at once, if it already went wrong."""
        self._cancel = cancel
        if self._error:
            cancel()

    def raise_own(self) -> None:
        """Raises the maker's error, if that is what ended the call."""
        if self._error:
            raise self._error from None


class Responses:
    """An open stream of responses, the first of which is there."""

    def __init__(self, exchange: Exchange, responses: Any, outgoing: _Outgoing | None = None) -> None:
        self._exchange = exchange
        self._responses = responses
        self._outgoing = outgoing
        self._first = self._next()

    def receive(self) -> Any:
        """The next response; None at the end."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._next()

    def _next(self) -> Any:
        try:
            return next(self._responses, None)
        except grpc.RpcError as error:
            if self._outgoing:
                self._outgoing.raise_own()
            raise self._exchange.error(error) from error


class Driver:
    """Runs plans against one server."""

    def __init__(self, connection: Connection, *, timeout: float | None = None) -> None:
        """`timeout` in seconds replaces the deadlines of all unary calls."""
        self.connection = connection
        self.credentials = connection.credentials
        self._timeout = timeout
        self._channel = _channel(connection)
        self._calls: dict[str, Any] = {}
        self._closing = threading.Event()

    def run(self, plan: Plan[T]) -> T:
        """What the plan returns."""
        running = Running(self._wrapped(plan))
        for _ in self._steps(running):
            pass
        return running.result

    def iterate(self, stream: Stream[T]) -> Iterator[T]:
        """What the plan emits; leaving the loop early ends its calls."""
        yield from self._steps(Running(self._wrapped(stream)))

    def close(self) -> None:
        """Ends calls that still run."""
        self._closing.set()
        self._channel.close()

    def _steps(self, running: Running[Any]) -> Generator[Any, None, None]:
        opened: list[Any] = []
        try:
            step = running.next()
            while step is not None:
                if isinstance(step, Emit):
                    yield step.value
                    step = running.next()
                    continue
                try:
                    reply = self._do(step, opened)
                except Exception as error:
                    step = running.fail(error)
                else:
                    step = running.next(reply)
        finally:
            for stream in opened:
                stream.cancel()
            running.close()

    def _do(self, step: Step, opened: list[Any]) -> Any:  # noqa: PLR0911 - one return per kind of step
        match step:
            case Unary():
                return self._unary(step)
            case Receive():
                return step.stream.receive()
            case Open():
                return self._open(step, opened)
            case Send():
                return self._send(step, opened)
            case Converse():
                return self._converse(step, opened)
            case Work():
                return step.function()
            case Sleep():
                return self._closing.wait(step.seconds)
            case SignIn():
                self.credentials = SessionCredentials(SavedSession.of(step.session), KeptInMemory())
                return None
        raise unknown(step)

    def _wrapped(self, plan: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """With a new token where it is needed, and in words that help where there is no connection."""
        return explaining(renewing(plan, self.credentials), self.connection)

    def _exchange(self, request: Any, timeout: float | None = None) -> Exchange:
        return Exchange(self.connection, self.credentials, request, timeout or self._timeout)

    def _unary(self, step: Unary) -> Any:
        exchange = self._exchange(step.request)
        try:
            return self._callable("unary_unary", exchange, step.response)(
                step.request, timeout=exchange.timeout, metadata=exchange.metadata
            )
        except grpc.RpcError as error:
            raise exchange.error(error) from error

    def _open(self, step: Open, opened: list[Any]) -> Responses:
        exchange = self._exchange(step.request)
        call = self._callable("unary_stream", exchange, step.response)(
            step.request, timeout=step.timeout, metadata=exchange.metadata
        )
        opened.append(call)
        return Responses(exchange, call)

    def _send(self, step: Send, opened: list[Any]) -> Any:
        exchange = self._exchange(step.request)
        outgoing = _Outgoing(step.messages())
        call = self._callable("stream_unary", exchange, step.response).future(outgoing, metadata=exchange.metadata)
        opened.append(call)
        outgoing.ends(call.cancel)
        try:
            response = call.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            outgoing.raise_own()
            raise exchange.error(call if isinstance(error, grpc.FutureCancelledError) else error) from error
        outgoing.raise_own()
        return response

    def _converse(self, step: Converse, opened: list[Any]) -> Responses:
        exchange = self._exchange(step.request)
        outgoing = _Outgoing(cast("Iterable[Any]", step.messages))
        call = self._callable("stream_stream", exchange, step.response)(outgoing, metadata=exchange.metadata)
        opened.append(call)
        outgoing.ends(call.cancel)
        return Responses(exchange, call, outgoing)

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


def _channel(connection: Connection) -> grpc.Channel:
    if not connection.tls:
        return grpc.insecure_channel(connection.target, options(connection))
    credentials = grpc.ssl_channel_credentials(connection.pem.ca, connection.pem.key, connection.pem.certificate)
    return grpc.secure_channel(connection.target, credentials, options(connection))


class Noun:
    """A group of operations of a client."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver


def method(plan: Callable[P, Plan[T]]) -> Callable[Concatenate[Any, P], T]:
    """The plan as a method that returns its result; name, parameters and docstring are the plan's."""

    def run(self: Noun, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._driver.run(plan(*args, **kwargs))

    return as_method(run, plan)


def iterator(plan: Callable[P, Stream[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """The plan as a method that iterates over what it emits."""

    def iterate(self: Noun, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._driver.iterate(plan(*args, **kwargs))

    return as_method(iterate, plan)
