"""How often and for how long people are let in: attempts, sessions, tokens, keys, passwords hashed at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import easyml_server.app
from easyml.v1 import auth_service_pb2 as pb
from easyml_server.security.passwords import Argon2Hasher
from easyml_server.settings import Settings
from tests.builders import PASSWORD, register
from tests.marks import limits
from tests.servers import Client, Refusal, refusal, refusal_of, serving

pytestmark = pytest.mark.slow

ME = pb.GetCurrentUserRequest()
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Nobody, at a server that lets few in."""
    settings = {"OPEN_REGISTRATION": "true", "LOGINS_PER_MINUTE": "3", "SESSIONS_PER_USER": "2"}
    with serving(tmp_path_factory.mktemp("accounts") / "data", **settings) as server, Client(server.address) as client:
        yield client


def login(email: str, password: str = PASSWORD) -> pb.LoginRequest:
    return pb.LoginRequest(email=email, password=password)


def works(address: str, token: str) -> bool:
    with Client(address, token) as client:
        return client.auth.GetCurrentUser.future(ME).exception() is None


def holds_off(said: Refusal) -> None:
    assert said.short == ("RESOURCE_EXHAUSTED", "TOO_MANY_ATTEMPTS")
    assert said.retry_seconds is not None
    assert 0 < said.retry_seconds <= 60


@limits("LOGINS_PER_MINUTE")
def test_an_account_is_tried_so_often_and_then_not_even_with_the_right_password(client: Client) -> None:
    email, other = register(client).user.email, register(client).user.email
    for _ in range(3):
        assert refusal(client.auth.Login, login(email, "wrong")).reason == "WRONG_CREDENTIALS"
    for address in (email, email.upper()):
        holds_off(refusal(client.auth.Login, login(address)))
    assert client.auth.Login(login(other)).user.email == other


@limits("SESSIONS_PER_USER")
def test_a_user_has_so_many_sessions_and_the_oldest_ends(client: Client) -> None:
    account = register(client)
    sessions = [account.session, *(client.auth.Login(login(account.user.email)).session for _ in range(2))]
    assert [works(client.address, session.access_token) for session in sessions] == [False, True, True]


@limits("LOGINS_PER_MINUTE_PER_ADDRESS")
def test_an_address_tries_so_often_whoever_it_tries(tmp_path: Path) -> None:
    settings = {"LOGINS_PER_MINUTE_PER_ADDRESS": "3", "OPEN_REGISTRATION": "true"}
    with serving(tmp_path / "data", **settings) as server, Client(server.address) as client:
        account = register(client)
        assert refusal(client.auth.Login, login("a@example.org")).reason == "WRONG_CREDENTIALS"
        assert client.auth.Login(login(account.user.email)).user == account.user
        holds_off(refusal(client.auth.Login, login(account.user.email)))
        holds_off(refusal(client.auth.Register, pb.RegisterRequest(email="b@example.org", password=PASSWORD)))
        with Client(server.address, account.session.access_token) as signed_in:
            assert signed_in.auth.GetCurrentUser(ME).user == account.user


class Clock:
    """A clock that can be set forward."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@asynccontextmanager
async def a_clocked_server(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Any]:
    """A server in this process, its clock, and a caller who has not signed in."""
    clock = Clock()
    monkeypatch.setattr(easyml_server.app, "now", clock)
    values = Settings(port=0, data_dir=folder, open_registration=True, **settings)
    async with easyml_server.app.run_server(values) as running:
        with Client(running.address) as client:
            yield clock, client


async def refreshed(client: Client, session: Any) -> Any:
    request = pb.RefreshTokenRequest(refresh_token=session.refresh_token)
    return (await asyncio.to_thread(client.auth.RefreshToken, request)).session


async def no_longer(client: Client, session: Any) -> None:
    request = pb.RefreshTokenRequest(refresh_token=session.refresh_token)
    said = await asyncio.to_thread(refusal, client.auth.RefreshToken, request)
    assert said.short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


@limits("SESSION_DAYS", "SESSION_IDLE_DAYS")
async def test_a_session_lasts_so_long_and_ends_sooner_when_it_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_clocked_server(tmp_path / "data", monkeypatch, session_days=10, session_idle_days=3) as (
        clock,
        client,
    ):
        first, second = [(await asyncio.to_thread(register, client)).session for _ in range(2)]
        for _ in range(3):
            clock.offset += 3 * DAY - MINUTE
            first = await refreshed(client, first)
        # The other was not refreshed for longer than it may rest.
        await no_longer(client, second)
        clock.offset = 10 * DAY - MINUTE
        first = await refreshed(client, first)
        clock.offset = 10 * DAY + MINUTE
        await no_longer(client, first)


@limits("ACCESS_TOKEN_MINUTES")
async def test_an_access_token_lasts_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_clocked_server(tmp_path / "data", monkeypatch, access_token_minutes=5) as (clock, client):
        # Tokens are held against the time of day, with 30 s for clocks that differ: so they are made in the past.
        found = []
        for age in (5 * MINUTE, 6 * MINUTE):
            clock.offset = -age
            token = (await asyncio.to_thread(register, client)).session.access_token
            clock.offset = timedelta()
            with Client(client.address, token) as signed_in:
                call = signed_in.auth.GetCurrentUser.future(ME)
                error = await asyncio.to_thread(call.exception)
                found.append(refusal_of(error).reason if error else "OK")
        assert found == ["OK", "TOKEN_EXPIRED"]


@limits("API_KEY_DAYS")
async def test_a_key_that_names_no_expiry_lasts_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_clocked_server(tmp_path / "data", monkeypatch, api_key_days=2) as (clock, client):
        account = await asyncio.to_thread(register, client)
        with Client(client.address, account.session.access_token) as signed_in:
            request = pb.CreateApiKeyRequest(name="program")
            secret = (await asyncio.to_thread(signed_in.auth.CreateApiKey, request)).secret
        with Client(client.address, secret) as program:
            clock.offset = 2 * DAY - MINUTE
            assert (await asyncio.to_thread(program.auth.GetCurrentUser, ME)).user == account.user
            clock.offset = 2 * DAY + MINUTE
            said = await asyncio.to_thread(refusal, program.auth.GetCurrentUser, ME)
            assert said.short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


@limits("PASSWORD_HASHES")
async def test_so_many_passwords_are_hashed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=30)
    lock, now, most = threading.Lock(), 0, 0

    def verify(*_: Any) -> bool:
        """Waits for one other, so that two are at it at once; more than two would be counted."""
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()
        with lock:
            now -= 1
        return False

    monkeypatch.setattr(Argon2Hasher, "_verify", verify)
    async with a_clocked_server(tmp_path / "data", monkeypatch, password_hashes=2) as (_, client):
        # Not one thread a caller: those of this process are the server's too.
        calls = [client.auth.Login.future(login(f"{number}@example.org")) for number in range(6)]
        errors = [await asyncio.to_thread(call.exception) for call in calls]
        assert {refusal_of(error).reason for error in errors} == {"WRONG_CREDENTIALS"}
    assert most == 2
