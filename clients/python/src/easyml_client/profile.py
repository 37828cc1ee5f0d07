"""What `easyml login` saved: the server, and the session or key for it. Readable by its owner only."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from easyml_client.resources.users import Session


@dataclass(frozen=True)
class SavedSession:
    """A session as it is kept; see `resources.users.Session`."""

    access_token: str = field(repr=False)
    access_expire_time: dt.datetime
    refresh_token: str = field(repr=False)
    session_expire_time: dt.datetime

    @classmethod
    def of(cls, session: Session) -> SavedSession:
        """What is kept of a session."""
        return cls(session.access_token, session.access_expire_time, session.refresh_token, session.session_expire_time)


@dataclass(frozen=True)
class Profile:
    """A server, and either a session or an API key for it."""

    target: str
    email: str = ""
    token: str = field(default="", repr=False)
    session: SavedSession | None = None
    tls: bool | None = None
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""


class ProfileFile:
    """The profile on disk; every change replaces the file, so readers never see half of one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls, environ: Mapping[str, str]) -> ProfileFile:
        """$XDG_CONFIG_HOME/easyml/profile.json, with ~/.config if that is not set."""
        base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
        return cls(Path(base) / "easyml" / "profile.json")

    def load(self) -> Profile | None:
        """The profile; None if there is none, or what is there is none."""
        try:
            saved = json.loads(self.path.read_text(encoding="utf-8"))
            session = saved.pop("session", None)
            known = {name: saved[name] for name in saved if name in Profile.__dataclass_fields__}
            profile = Profile(session=None if session is None else _session(session), **known)
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return None
        return profile if isinstance(profile.target, str) else None

    def save(self, profile: Profile) -> None:
        """Replaces the profile; mode 0600."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, aside = tempfile.mkstemp(dir=self.path.parent, prefix=".profile-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(profile), file, default=dt.datetime.isoformat)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(self.path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def delete(self) -> bool:
        """Whether there was one."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
            return True
        return False

    def lock(self) -> Callable[[], None]:
        """Waits until no other process renews the session; what is returned lets the next one in.

        A refresh token is good for one use: two processes that used the same one would end the session.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except BaseException:
            os.close(handle)
            raise
        return lambda: os.close(handle)


def _session(saved: Mapping[str, Any]) -> SavedSession:
    return SavedSession(
        access_token=saved["access_token"],
        access_expire_time=dt.datetime.fromisoformat(saved["access_expire_time"]),
        refresh_token=saved["refresh_token"],
        session_expire_time=dt.datetime.fromisoformat(saved["session_expire_time"]),
    )
