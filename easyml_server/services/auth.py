"""Sign people in, and give programs keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from easyml_server.domain.errors import InvalidInput, LimitReached, NotAllowed, NotSignedIn, Reason
from easyml_server.domain.limits import Limits
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.users import ApiKey, Caller, Permission, Scope, Session, SessionTokens, User
from easyml_server.ports.security import AccessClaims, PasswordHasher, TokenSigner
from easyml_server.ports.signals import Alone, Signals, Topic
from easyml_server.ports.store import Store
from easyml_server.services.scopes import require_full_scope

PREFIX_LENGTH = 12
COUNTED = timedelta(minutes=1)
"""How long an attempt to sign in counts, on whatever server it was made."""
CACHE_SECONDS = 10
CACHE_SIZE = 10_000
KEY_PERMISSIONS = (Permission.VIEWER, Permission.EDITOR, Permission.OWNER)


@dataclass(frozen=True, slots=True)
class Secrets:
    """How secrets are made and what is stored of them."""

    new: Callable[[], str]
    hash: Callable[[str], str]


class AuthService:
    """Use cases of AuthService, and the answer to "who is this?" for every other call."""

    def __init__(
        self,
        store: Store,
        hasher: PasswordHasher,
        signer: TokenSigner,
        secrets: Secrets,
        limits: Limits,
        clock: Callable[[], datetime],
        *,
        open_registration: bool,
        signals: Signals | None = None,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._signer = signer
        self._secrets = secrets
        self._limits = limits
        self._clock = clock
        self._open_registration = open_registration
        self._signals = signals or Alone()
        self._known: dict[str, tuple[datetime, Caller]] = {}

    async def identify(self, token: str) -> Caller:
        """The caller behind a bearer token or API key; remembered for a few seconds."""
        now = self._clock()
        digest = self._secrets.hash(token)
        until = now + timedelta(seconds=CACHE_SECONDS)
        remembered = self._known.get(digest)
        # Not longer than that either, should the clock have been set back.
        if remembered is not None and now < remembered[0] <= until:
            return remembered[1]
        if token.startswith("eml_"):
            caller, expire_time = await self._identify_key(digest, now)
        else:
            caller, expire_time = await self._identify_session(self._signer.read_access(token), now)
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        self._known[digest] = (min(until, expire_time), caller)
        return caller

    async def still_valid(self, caller: Caller) -> bool:
        """Whether the session or key of a long call has not ended meanwhile."""
        now = self._clock()
        async with self._store.read() as work:
            if caller.session_id is not None:
                session = await work.users.find_session(caller.session_id)
                return session is not None and session.end_time is None and session.expire_time > now
            if caller.api_key_id is not None:
                key = await work.users.get_api_key(caller.api_key_id, caller.user_id)
                return key.revoke_time is None and key.expire_time > now
        return False

    async def register(self, email: str, password: str, display_name: str, address: str) -> tuple[User, SessionTokens]:
        """Make an account and sign it in."""
        if not self._open_registration:
            raise NotAllowed(
                "This server does not let people register themselves; ask its administrator for an account.",
                Reason.REGISTRATION_CLOSED,
            )
        await self._count({f"address {address}": self._limits.logins_per_minute_per_address})
        user = await self.create_user(email, password, display_name, administrator=False)
        return user, await self._sign_in(user)

    async def create_user(self, email: str, password: str, display_name: str, *, administrator: bool) -> User:
        """Make an account; for Register and `easyml-server init`."""
        if self._hasher.is_common(password):
            raise InvalidInput.at("password", "This password is on the list of common ones; choose another.")
        now = self._clock()
        address = email.strip().lower()
        user = User(
            id=uuid4(),
            email=address,
            display_name=display_name or address.partition("@")[0],
            administrator=administrator,
            password_hash=await self._hasher.hash(password),
            create_time=now,
            update_time=now,
        )
        async with self._store.begin() as work:
            await work.users.add(user)
            await work.commit()
        return user

    async def login(self, email: str, password: str, address: str) -> tuple[User, SessionTokens]:
        """Sign in; a wrong password and an unknown account look the same and take as long."""
        email = email.strip().lower()
        await self._count(
            {
                f"account {email}": self._limits.logins_per_minute,
                f"address {address}": self._limits.logins_per_minute_per_address,
            }
        )
        async with self._store.read() as work:
            user = await work.users.find_by_email(email)
        right = await self._hasher.verify(user.password_hash if user else None, password)
        if user is None or not right:
            raise NotSignedIn("E-mail address or password is wrong.", Reason.WRONG_CREDENTIALS)
        return user, await self._sign_in(user)

    async def refresh(self, refresh_token: str) -> SessionTokens:
        """Exchange a refresh token; one that was used before ends its session."""
        now = self._clock()
        used = self._secrets.hash(refresh_token)
        replacement = self._secrets.new()
        async with self._store.begin() as work:
            found = await work.users.find_session_by_refresh(used)
            if found is None:
                raise NotSignedIn("This refresh token is not valid; sign in again.", Reason.INVALID_TOKEN)
            session, valid = found
            if session.end_time is not None or session.expire_time <= now or self._idle(session, now):
                raise NotSignedIn("The session has ended; sign in again.", Reason.TOKEN_EXPIRED)
            renewed = replace(session, refresh_sha256=self._secrets.hash(replacement), last_used_time=now)
            if not valid or not await work.users.rotate(renewed, used):
                await work.users.end_sessions(session.user_id, now, session.id)
                await work.commit()
                self._ended(session.user_id)
                raise NotSignedIn(
                    "This refresh token was used before, so its session has been ended; sign in again.",
                    Reason.TOKEN_REUSED,
                )
            await work.commit()
        return self._tokens(renewed, replacement, now)

    async def logout(self, caller: Caller) -> None:
        """End the caller's session; with an API key there is none."""
        if caller.session_id is None:
            return
        async with self._store.begin() as work:
            await work.users.end_sessions(caller.user_id, self._clock(), caller.session_id)
            await work.commit()
        self._ended(caller.user_id)

    async def logout_everywhere(self, caller: Caller) -> int:
        """End all sessions of the caller; returns how many."""
        require_full_scope(caller, "end sessions")
        async with self._store.begin() as work:
            ended = await work.users.end_sessions(caller.user_id, self._clock())
            await work.commit()
        self._ended(caller.user_id)
        return ended

    async def current_user(self, caller: Caller) -> tuple[User, ApiKey | None]:
        """The caller, and the key the call came with."""
        async with self._store.read() as work:
            user = await work.users.get(caller.user_id)
            key = caller.api_key_id and await work.users.get_api_key(caller.api_key_id, caller.user_id)
        return user, key or None

    async def create_api_key(
        self, caller: Caller, name: str, scope: Scope, expire_time: datetime | None
    ) -> tuple[ApiKey, str]:
        """Make a key within the caller's own scope; returns it with its secret."""
        if scope.permission not in KEY_PERMISSIONS:
            raise InvalidInput.at("scope.permission", "A key carries VIEWER, EDITOR or OWNER; choose one of these.")
        if not caller.scope.covers(scope):
            raise NotAllowed(
                "This key would reach further than the one it is made with.",
                Reason.OUT_OF_SCOPE,
                metadata={"required": scope.permission.name.lower()},
            )
        now = self._clock()
        secret = self._secrets.new()
        key = ApiKey(
            id=uuid4(),
            user_id=caller.user_id,
            name=name,
            scope=scope,
            prefix=secret[:PREFIX_LENGTH],
            secret_sha256=self._secrets.hash(secret),
            create_time=now,
            expire_time=expire_time or now + timedelta(days=self._limits.api_key_days),
        )
        async with self._store.begin() as work:
            if scope.project_id is not None:
                await work.projects.get(scope.project_id, caller)
            await work.users.add_api_key(key)
            await work.commit()
        return key, secret

    async def list_api_keys(self, caller: Caller, page: PageRequest) -> Page[ApiKey]:
        """The caller's keys."""
        require_full_scope(caller, "list keys")
        async with self._store.read() as work:
            return await work.users.list_api_keys(caller.user_id, page)

    async def revoke_api_key(self, caller: Caller, key_id: UUID) -> ApiKey:
        """End a key at once; any key may end itself."""
        if key_id != caller.api_key_id:
            require_full_scope(caller, "revoke other keys")
        async with self._store.begin() as work:
            await work.users.get_api_key(key_id, caller.user_id)
            await work.users.revoke_api_key(key_id, self._clock())
            await work.commit()
        self._ended(caller.user_id)
        async with self._store.read() as work:
            return await work.users.get_api_key(key_id, caller.user_id)

    def forget(self) -> None:
        """Sessions or keys may have ended: look at each again."""
        self._known.clear()

    def _ended(self, user_id: UUID) -> None:
        self.forget()
        self._signals.send(Topic.ACCESS, user_id)

    async def _count(self, allowed: Mapping[str, int]) -> None:
        """Count an attempt to sign in; raises LimitReached (TOO_MANY_ATTEMPTS) with the time to wait."""
        now = self._clock()
        async with self._store.begin() as work:
            for counted, most in allowed.items():
                oldest = await work.attempts.count(counted, most, COUNTED, now)
                if oldest is not None:
                    wait = min((oldest + COUNTED - now).total_seconds(), COUNTED.total_seconds())
                    raise LimitReached(
                        f"Too many attempts to sign in; wait {wait:.0f} s.", Reason.TOO_MANY_ATTEMPTS, retry_after=wait
                    )
            await work.commit()

    async def _identify_key(self, digest: str, now: datetime) -> tuple[Caller, datetime]:
        async with self._store.read() as work:
            key = await work.users.find_api_key(digest)
            if key is None or key.revoke_time is not None:
                raise NotSignedIn("This API key is not valid here; make a new one.", Reason.INVALID_TOKEN)
            if key.expire_time <= now:
                raise NotSignedIn("This API key has expired; make a new one.", Reason.TOKEN_EXPIRED)
            user = await work.users.get(key.user_id)
        caller = Caller(user.id, user.administrator, key.scope, api_key_id=key.id)
        return caller, key.expire_time

    async def _identify_session(self, claims: AccessClaims, now: datetime) -> tuple[Caller, datetime]:
        async with self._store.read() as work:
            session = await work.users.find_session(claims.session_id)
            if session is None or session.end_time is not None or session.expire_time <= now:
                raise NotSignedIn("The session has ended; sign in again.", Reason.TOKEN_EXPIRED)
            user = await work.users.get(session.user_id)
        return Caller(user.id, user.administrator, session_id=session.id), claims.expire_time

    async def _sign_in(self, user: User) -> SessionTokens:
        now = self._clock()
        refresh_token = self._secrets.new()
        session = Session(
            id=uuid4(),
            user_id=user.id,
            refresh_sha256=self._secrets.hash(refresh_token),
            create_time=now,
            last_used_time=now,
            expire_time=now + timedelta(days=self._limits.session_days),
        )
        async with self._store.begin() as work:
            await work.users.add_session(session)
            await work.users.trim_sessions(user.id, self._limits.sessions_per_user, now)
            await work.commit()
        return self._tokens(session, refresh_token, now)

    def _tokens(self, session: Session, refresh_token: str, now: datetime) -> SessionTokens:
        expire_time = now + timedelta(minutes=self._limits.access_token_minutes)
        access = self._signer.sign_access(AccessClaims(session.user_id, session.id, expire_time), now)
        return SessionTokens(access, expire_time, refresh_token, session.expire_time)

    def _idle(self, session: Session, now: datetime) -> bool:
        return now - session.last_used_time > timedelta(days=self._limits.session_idle_days)
