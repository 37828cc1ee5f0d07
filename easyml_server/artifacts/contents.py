"""What a version in an object store consists of. It is written last and makes the version visible."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from easyml_server.domain.errors import Reason, WrongState
from easyml_server.domain.local_files import sha256_of
from easyml_server.ports.artifacts import Key

CONTENTS = "contents.json"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a version."""

    name: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """As it is here."""
        return cls(path.name, path.stat().st_size, sha256_of(path))


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a version."""

    files: tuple[StoredFile, ...]

    @classmethod
    def of(cls, folder: Path) -> Contents:
        """As they are here."""
        return cls(tuple(StoredFile.of(path) for path in sorted(folder.iterdir())))

    @property
    def size_bytes(self) -> int:
        """Of all of them."""
        return sum(file.size_bytes for file in self.files)

    def find(self, name: str) -> StoredFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.name == name), None)

    def dump(self) -> bytes:
        """As stored."""
        return json.dumps(asdict(self), indent=1).encode()


def load_contents(key: Key, stored: bytes) -> Contents:
    """As stored; WrongState if nobody here wrote that."""
    try:
        return Contents(tuple(_files(json.loads(stored)["files"])))
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(key) from error


def _files(stored: Sequence[dict[str, object]]) -> Iterator[StoredFile]:
    for each in stored:
        name, size, sha256 = each["name"], each["size_bytes"], each["sha256"]
        if not (isinstance(name, str) and isinstance(size, int) and isinstance(sha256, str)):
            raise TypeError
        if name in ("", ".", "..") or Path(name).name != name:
            # A folder here is filled with files of these names.
            raise ValueError
        yield StoredFile(name, size, sha256)


def damaged(key: Key) -> WrongState:
    """The one sentence for what is not as it was stored."""
    return WrongState(
        f"The files of {key} were changed or lost where they are stored; restore them there, or delete this version.",
        Reason.CHECKSUM_MISMATCH,
        metadata={"files": str(key)},
    )
