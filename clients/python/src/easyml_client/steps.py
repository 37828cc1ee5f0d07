"""How an operation is written once for the blocking and the asyncio client.

An operation is a *plan*: a generator that yields the steps it needs done (a call, a stream, a wait, work on a file) and
is sent what came of each. Plans do no I/O, so they are the same for both clients and can be tested without a server.
The two drivers, `blocking.py` and `aio.py`, do the steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from easyml_client.resources.users import Session

T = TypeVar("T")
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class Unary:
    """One request, one response."""

    request: Message
    response: type[Message]


@dataclass(frozen=True)
class Send:
    """A stream of requests, one response; `messages` is called again if the call has to be."""

    messages: Callable[[], Iterable[Message]]
    request: type[Message]
    response: type[Message]


@dataclass(frozen=True)
class Open:
    """A stream of responses; done once the first is there, so that errors of the start show here."""

    request: Message
    response: type[Message]
    timeout: float | None = None


@dataclass(frozen=True)
class Converse:
    """A stream each way."""

    messages: Iterable[Message] | AsyncIterable[Message]
    request: type[Message]
    response: type[Message]


@dataclass(frozen=True)
class Receive:
    """The next response of an open stream; None at its end."""

    stream: Any


@dataclass(frozen=True)
class Work:
    """Something that blocks, such as reading a file."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Sleep:
    """A wait."""

    seconds: float


@dataclass(frozen=True)
class SignIn:
    """From here on the client calls with this session."""

    session: Session


@dataclass(frozen=True)
class Emit(Generic[T]):
    """A value for whoever iterates over the plan."""

    value: T


Step = Unary | Send | Open | Converse | Receive | Work | Sleep | SignIn
Plan = Generator[Step, Any, T]
Stream = Generator[Step | Emit[T], Any, None]


def call(request: Message, response: type[Response]) -> Plan[Response]:
    """The response to one request; each RPC has a request of its own, so the request names the method."""
    answer: Response = yield Unary(request, response)
    return answer


def send(messages: Callable[[], Iterable[Message]], request: type[Message], response: type[Response]) -> Plan[Response]:
    """The response to a stream of requests."""
    answer: Response = yield Send(messages, request, response)
    return answer


def work(function: Callable[[], T]) -> Plan[T]:
    """What a blocking function returns."""
    result: T = yield Work(function)
    return result


class Opened(Generic[Response]):
    """A stream of responses, read by `receive`."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def receive(self) -> Plan[Response | None]:
        """The next response; None at the end."""
        message: Response | None = yield Receive(self._handle)
        return message


def opened(request: Message, response: type[Response], timeout: float | None = None) -> Plan[Opened[Response]]:
    """A stream of responses to one request."""
    return Opened((yield Open(request, response, timeout)))


def converse(
    messages: Iterable[Message] | AsyncIterable[Message], request: type[Message], response: type[Response]
) -> Plan[Opened[Response]]:
    """A stream each way."""
    return Opened((yield Converse(messages, request, response)))


def each_step(
    plan: Generator[Any, Any, T], attempt: Callable[[Any], Generator[Any, Any, Any]]
) -> Generator[Any, Any, T]:
    """The same plan, each of whose steps is done as `attempt` does it."""
    running = Running(plan)
    try:
        step = running.next()
        while step is not None:
            try:
                reply = yield from attempt(step)
            except Exception as error:
                step = running.fail(error)
            else:
                step = running.next(reply)
    finally:
        running.close()
    return running.result


class Running(Generic[T]):
    """A plan under way; `result` is there once there is no next step."""

    def __init__(self, plan: Generator[Any, Any, T]) -> None:
        self._plan = plan
        self.result: T

    def next(self, reply: Any = None) -> Any:
        """The next step, None at the end."""
        return self._take(lambda: self._plan.send(reply))

    def fail(self, error: Exception) -> Any:
        """The same, where the step before failed."""
        return self._take(lambda: self._plan.throw(error))

    def close(self) -> None:
        """Nobody wants the rest."""
        self._plan.close()

    def _take(self, advance: Callable[[], Any]) -> Any:
        try:
            return advance()
        except StopIteration as stop:
            self.result = stop.value
            return None
