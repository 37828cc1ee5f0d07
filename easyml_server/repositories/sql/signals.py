"""Signals between servers by LISTEN and NOTIFY, on one connection of their own for each server.

They are sent after the commit and together: a NOTIFY in every transaction would make all commits wait for each other.
What is lost with a connection is found by whoever looks again, which everybody is told to do after each new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import structlog
from sqlalchemy import make_url

from easyml_server.ports.signals import Topic

CHANNEL = "easyml"
TRIAL_CHANNEL = "easyml_trial"
APPLICATION = "easyml-signals"
BATCH = 150
"""Signals of one NOTIFY, which carries at most 8,000 bytes."""
MOST_WAITING = 10_000
ANSWER_SECONDS = 5.0
IDLE_SECONDS = 10.0
"""A connection that said nothing for so long is asked whether it is still there."""
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 5.0

Signal = tuple[Topic, UUID]

log = structlog.get_logger(__name__)


class CannotListenError(Exception):
    """Servers would not hear each other; the message is a sentence that says why."""


class PostgresSignals:
    """Fulfils `ports.signals.Signals`."""

    def __init__(self, url: str) -> None:
        self._arguments = _connect_arguments(url)
        self._sender = uuid4().hex
        self._wanted = asyncio.Event()
        # In order, and each once, however often it was sent since the last NOTIFY.
        self._waiting: dict[Signal, None] = {}

    def send(self, topic: Topic, subject_id: UUID) -> None:
        """With the next NOTIFY; if too many wait for the connection to come back, not at all."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting[topic, subject_id] = None
            self._wanted.set()

    async def run(self, receive: Callable[[Topic, UUID], None], missed: Callable[[], None]) -> None:
        """Send, and tell `receive` what others sent, until cancelled; `missed` after each time nothing was heard."""
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                async with self._connection(partial(self._hear, receive)) as connection:
                    delay = FIRST_RETRY_SECONDS
                    missed()
                    await self._talk(connection)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("signals_interrupted", error=str(error) or type(error).__name__, seconds=delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_RETRY_SECONDS)

    @asynccontextmanager
    async def _connection(self, hear: Callable[..., None]) -> AsyncIterator[Any]:
        connection: Any = await asyncpg.connect(**self._arguments)
        try:
            connection.add_termination_listener(lambda _: self._wanted.set())
            await connection.add_listener(CHANNEL, hear)
            yield connection
        finally:
            connection.terminate()

    async def _talk(self, connection: Any) -> None:
        while not connection.is_closed():
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=ANSWER_SECONDS)
            self._wanted.clear()
            while self._waiting and not connection.is_closed():
                await self._notify(connection)

    async def _notify(self, connection: Any) -> None:
        batch = list(islice(self._waiting, BATCH))
        # Taken out before it is sent: what is sent again meanwhile happened after this was.
        for signal in batch:
            del self._waiting[signal]
        try:
            payload = _payload(self._sender, batch)
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload, timeout=ANSWER_SECONDS)
        except BaseException:
            self._waiting = {**dict.fromkeys(batch), **self._waiting}
            self._wanted.set()
            raise

    def _hear(
        self, receive: Callable[[Topic, UUID], None], _connection: object, _pid: int, _channel: str, payload: str
    ) -> None:
        sender, _, rest = payload.partition(" ")
        if sender != self._sender:
            for topic, subject_id in _signals(rest):
                receive(topic, subject_id)


async def hear_oneself(listen_url: str, url: str) -> None:
    """Whether what is said at the one URL is heard at the other; CannotListenError if not."""
    heard = asyncio.Event()
    word = uuid4().hex
    try:
        async with _connected(listen_url) as listening, _connected(url) as speaking:
            await listening.add_listener(TRIAL_CHANNEL, lambda *said: heard.set() if said[-1] == word else None)
            await speaking.execute("SELECT pg_notify($1, $2)", TRIAL_CHANNEL, word, timeout=ANSWER_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await heard.wait()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotListenError(f"PostgreSQL does not answer ({str(error) or type(error).__name__}).") from error
    if not heard.is_set():
        raise CannotListenError("what is said in the database is not heard there.")


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    connection: Any = await asyncpg.connect(**_connect_arguments(url))
    try:
        yield connection
    finally:
        connection.terminate()


def _connect_arguments(url: str) -> dict[str, Any]:
    """What the pool's connections get for the same URL."""
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    _, arguments = parsed.get_dialect()().create_connect_args(parsed)
    return {**arguments, "timeout": ANSWER_SECONDS, "server_settings": {"application_name": APPLICATION}}


def _payload(sender: str, signals: list[Signal]) -> str:
    return " ".join([sender, *(f"{topic}:{subject_id}" for topic, subject_id in signals)])


def _signals(text: str) -> Iterator[Signal]:
    for word in text.split():
        topic, _, subject_id = word.partition(":")
        # A server of another release may say what this one does not know.
        with suppress(ValueError):
            yield Topic(topic), UUID(subject_id)
