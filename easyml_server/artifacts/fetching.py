"""Brings what a model server loads of a version from a store into a folder.

Started as `python -m easyml_server.artifacts.fetching PARENT URL SHA256 FOLDER`, with the id of the process that waits
for it: a process of its own, so that a model server does not keep in memory what it takes to speak to a store. The
URL is that of the version's folder, the digest that of its `manifest.json`, which holds those of all other files.
Exit codes: 0 all is there, 1 it is not; one line on standard error says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from easyml_server.artifacts.object_store import CannotUseError, MissingError, ObjectStore
from easyml_server.domain.errors import EasyMLError
from easyml_server.domain.manifest import MANIFEST_FILENAME, BadManifest, load_manifest
from easyml_server.domain.models import Artifact
from easyml_server.domain.secrets import redacted
from easyml_server.processes.parents import die_with_parent

READ_BYTES: Final = 4 << 20
MAX_MANIFEST_BYTES: Final = 16 << 20


class CannotFetch(Exception):
    """It is not there, or not what was asked for; the sentence says what."""


async def fetch(url: str, digest: str, folder: Path) -> None:
    """The manifest, and the file that it says is served. Raises CannotFetch, CannotUseError and EasyMLError."""
    store = ObjectStore(url)
    try:
        manifest = await _manifest(store, digest)
        (folder / MANIFEST_FILENAME).write_bytes(manifest)
        artifact = load_manifest(manifest).served
        if artifact is not None:
            await _fetch_file(store, artifact, folder / artifact.filename)
    except BadManifest as error:
        raise CannotFetch(f"{url}/{MANIFEST_FILENAME} is no manifest: {error}") from error
    except MissingError as error:
        raise CannotFetch(f"Not all of the version's files are at {url}; is it the folder of a version?") from error
    finally:
        store.close()


async def _manifest(store: ObjectStore, digest: str) -> bytes:
    content = await store.get_part(MANIFEST_FILENAME, 0, MAX_MANIFEST_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise CannotFetch(f"{store.url}/{MANIFEST_FILENAME} has the SHA-256 {found}, and {digest} was asked for.")
    return content


async def _fetch_file(store: ObjectStore, artifact: Artifact, path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        async for content in _parts(store, artifact):
            digest.update(content)
            await asyncio.to_thread(file.write, content)
    if digest.hexdigest() != artifact.sha256:
        raise CannotFetch(f"{store.url}/{artifact.filename} is not the file that was stored (SHA-256).")


async def _parts(store: ObjectStore, artifact: Artifact) -> AsyncIterator[bytes]:
    for start in range(0, artifact.size_bytes, READ_BYTES):
        yield await store.get_part(artifact.filename, start, min(start + READ_BYTES, artifact.size_bytes))


def main(arguments: Sequence[str]) -> int:
    """Fetch, and say in one line what was in the way."""
    parent, url, digest, folder = arguments
    die_with_parent(int(parent))
    try:
        asyncio.run(fetch(url, digest, Path(folder)))
    except (CannotFetch, CannotUseError, OSError) as error:
        return _refuse(str(error))
    except EasyMLError as error:
        return _refuse(f"{error.message} {error.__cause__}")
    return 0


def _refuse(sentence: str) -> int:
    line = " ".join(redacted(sentence).split())
    sys.stderr.write(f"{line}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
