"""The data folder: one server at a time, and what clients on this machine find there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from easyml_server.security.tokens import write_private


class StartError(Exception):
    """The server cannot start; the message is one line that says why and what to do. Exit code 2."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where everything lies."""

    root: Path

    @property
    def database(self) -> Path:
        """Rows and documents."""
        return self.root / "easyml.db"

    @property
    def keys(self) -> Path:
        """Private keys, and the public key set."""
        return self.root / "keys"

    @property
    def owner_key(self) -> Path:
        """The API key of the local owner."""
        return self.root / "owner.key"

    @property
    def deployments(self) -> Path:
        """Records and logs of the replicas that run on this machine."""
        return self.root / "deployments"

    @property
    def server_file(self) -> Path:
        """Address and process id, while a server runs."""
        return self.root / "server.json"

    def announce(self, address: str, tls: Mapping[str, str | None] | None) -> None:
        """Tell clients on this machine where the server is, and how it proves who it is (None: plaintext)."""
        found = {"address": address, "pid": os.getpid(), "scheme": "tls" if tls else "plaintext", **(tls or {})}
        write_private(self.server_file, json.dumps(found).encode())


@contextmanager
def open_data_folder(root: Path) -> Iterator[DataFolder]:
    """Make the folder if needed, and hold its lock; StartError if that cannot be."""
    root = root.expanduser().absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"The data folder {root} cannot be written ({error.strerror}); choose another with --data-dir."
        ) from error
    try:
        _take_lock(lock, root)
        folder = DataFolder(root)
        try:
            yield folder
        finally:
            folder.server_file.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _take_lock(lock: int, root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StartError(
            f"Another server runs on the data folder {root}; stop it, or choose another folder with --data-dir."
        ) from error
