"""Where a model server has a version from: a folder, or a store of files with the digest of what is to be there."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from easyml_server.domain.manifest import MANIFEST_FILENAME
from easyml_server.serving.predictors import CannotFetch, CannotLoad

DIGEST: Final = "@sha256:"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Source:
    """A version's folder, or its URL; `digest` is the SHA-256 of its manifest, which holds those of its other files."""

    place: str | Path
    digest: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether it has to be fetched."""
        return "://" in str(self.place)


def parse_source(text: str) -> Source:
    """From FOLDER, FOLDER@sha256:DIGEST or URL@sha256:DIGEST. Raises ValueError with a sentence."""
    place, separator, digest = text.rpartition(DIGEST)
    if not separator:
        place, digest = text, ""
    source = Source(place, digest.lower())
    if not place or (separator and not _SHA256.fullmatch(source.digest)):
        raise ValueError(f"{text} is not FOLDER, or URL{DIGEST} and 64 hexadecimal digits.")
    if source.elsewhere and not digest:
        raise ValueError(f"{text} needs the SHA-256 of its {MANIFEST_FILENAME}: write {text}{DIGEST}…")
    return source


@contextmanager
def folder_of(source: Source) -> Iterator[Path]:
    """The files of a version for as long as they are read, of what is elsewhere a copy. Raises CannotLoad."""
    if not source.elsewhere:
        folder = Path(source.place)
        _check_digest(folder, source.digest)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="easyml-model-") as copy:
        _fetch(source, Path(copy))
        yield Path(copy)


def _check_digest(folder: Path, digest: str) -> None:
    if not digest:
        return
    try:
        found = hashlib.sha256((folder / MANIFEST_FILENAME).read_bytes()).hexdigest()
    except OSError as error:
        raise CannotLoad(f"{MANIFEST_FILENAME} cannot be read") from error
    if found != digest:
        raise CannotLoad(f"{MANIFEST_FILENAME} has the SHA-256 {found}, and {digest} was asked for")


def _fetch(source: Source, folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "easyml_server.artifacts.fetching"]
    arguments = [str(os.getpid()), str(source.place), source.digest, str(folder)]
    done = subprocess.run(  # noqa: S603 (our own program)
        [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise CannotFetch(f"it cannot be fetched: {lines[-1].rstrip('.')}")
