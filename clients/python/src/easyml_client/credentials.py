"""The token a call goes with, and how it is renewed."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from easyml.v1 import auth_service_pb2 as pb
from easyml_client.errors import DeadlineExceeded, NotSignedIn, Unavailable
from easyml_client.methods import method_of
from easyml_client.profile import Profile, ProfileFile, SavedSession
from easyml_client.resources.users import Session
from easyml_client.steps import Open, Plan, Send, Unary, call, each_step, work

T = TypeVar("T")

# The server accepts a token a little beyond its end; we stop using it a little before.
_EARLY = dt.timedelta(seconds=10)
_RENEWABLE = {"TOKEN_EXPIRED", "INVALID_TOKEN"}


class Credentials(Protocol):
    """A token, and perhaps a way to a new one."""

    @property
    def token(self) -> str | None:
        """What goes with a call."""
        ...

    def expired(self) -> bool:
        """Whether it is known to be no good any more."""
        ...

    def renew(self, rejected: str | None) -> Plan[bool]:
        """Get a token other than the rejected one; False where there is no way to."""
        ...


class FixedToken:
    """An API key, an owner's key, or nothing; it cannot be renewed."""

    def __init__(self, token: str | None) -> None:
        self.token = token

    def expired(self) -> bool:
        """Not known."""
        return False

    def renew(self, rejected: str | None) -> Plan[bool]:  # noqa: ARG002 - as the protocol has it
        """There is no way to."""
        return False
        yield  # a plan is a generator


class Keeper(Protocol):
    """Where a session is kept between renewals."""

    def lock(self) -> Callable[[], None]:
        """Waits for the turn; what is returned ends it."""
        ...

    def load(self) -> SavedSession | None:
        """The session as it was last saved."""
        ...

    def save(self, session: SavedSession) -> None:
        """Keeps the session."""
        ...


class KeptInMemory:
    """The session of one client, shared by its threads and tasks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: SavedSession | None = None

    def lock(self) -> Callable[[], None]:
        """One renews at a time."""
        self._lock.acquire()
        return self._lock.release

    def load(self) -> SavedSession | None:
        """The newest one."""
        return self._session

    def save(self, session: SavedSession) -> None:
        """Until the process ends."""
        self._session = session


class KeptInProfile:
    """The session of a profile, shared by the processes of its owner."""

    def __init__(self, file: ProfileFile) -> None:
        self._file = file

    def lock(self) -> Callable[[], None]:
        """One process renews at a time."""
        return self._file.lock()

    def load(self) -> SavedSession | None:
        """As any of them saved it."""
        profile = self._file.load()
        return profile.session if profile else None

    def save(self, session: SavedSession) -> None:
        """In the profile, unless somebody logged out meanwhile."""
        profile = self._file.load()
        if profile and profile.session:
            self._file.save(replace(profile, session=session))


class SessionCredentials:
    """A session; renewed with its refresh token, which each use replaces."""

    def __init__(self, session: SavedSession, keeper: Keeper) -> None:
        self._session = session
        self._keeper = keeper

    @property
    def token(self) -> str | None:
        """The access token."""
        return self._session.access_token

    def expired(self) -> bool:
        """Whether the access token's time is over."""
        return dt.datetime.now(dt.UTC) >= self._session.access_expire_time - _EARLY

    def renew(self, rejected: str | None) -> Plan[bool]:
        """Takes what another process got meanwhile, else exchanges the refresh token."""
        release = yield from work(self._keeper.lock)
        try:
            kept = (yield from work(self._keeper.load)) or self._session
            if kept.access_token == rejected:
                kept = SavedSession.of((yield from _refreshed(kept.refresh_token)))
                self._session = kept
                yield from work(lambda: self._keeper.save(kept))
            self._session = kept
        finally:
            release()
        return True


def _refreshed(refresh_token: str) -> Plan[Session]:
    request = pb.RefreshTokenRequest(request_id=str(uuid.uuid4()), refresh_token=refresh_token)
    try:
        response = yield from call(request, pb.RefreshTokenResponse)
    except (Unavailable, DeadlineExceeded):
        # It may have happened: the same request_id gets the same answer, a new one would end the session.
        response = yield from call(request, pb.RefreshTokenResponse)
    return Session.of(response.session)


def renewing(plan: Generator[Any, Any, T], credentials: Credentials) -> Generator[Any, Any, T]:
    """The same plan, whose calls are repeated once with a new token when the server does not take the old one."""
    return (yield from each_step(plan, lambda step: _attempt(step, credentials)))


def _attempt(step: Any, credentials: Credentials) -> Generator[Any, Any, Any]:
    if not _needs_token(step):
        return (yield step)
    used = credentials.token
    if credentials.expired():
        yield from credentials.renew(used)
        used = credentials.token
    try:
        return (yield step)
    except NotSignedIn as error:
        if error.reason not in _RENEWABLE or not (yield from credentials.renew(used)):
            raise
        return (yield step)


def _needs_token(step: Any) -> bool:
    if isinstance(step, Send):
        return True
    return isinstance(step, (Unary, Open)) and not method_of(step.request.DESCRIPTOR).public


def of_profile(profile: Profile, file: ProfileFile) -> Credentials:
    """The credentials a profile holds."""
    if profile.session:
        return SessionCredentials(profile.session, KeptInProfile(file))
    return FixedToken(profile.token or None)
