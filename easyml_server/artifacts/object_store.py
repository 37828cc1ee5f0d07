"""Objects in a store that fsspec knows, asked off the event loop; what goes wrong is said in the domain's words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec

from easyml_server.domain.errors import Unavailable
from easyml_server.ports.artifacts import FILES_PART

ASKED_SECONDS: Final = 1.8
"""A small object; calls of users wait for it."""
CHUNK_SECONDS: Final = 60.0
FILE_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 2.0
AT_ONCE: Final = 16
MULTIPART_BYTES: Final = 16 << 20
"""A part of a file, which is put by itself and again if it is refused; smaller files go whole."""
TRIES: Final = 3
FINAL: Final = ("PreconditionFailed", "InvalidRange", "SlowDown")
NOBODY_THERE: Final = ("EndpointConnectionError", "ConnectTimeoutError")

S3: Final = ("s3", "s3a")
# The payload is signed, so the store itself compares its SHA-256; no trailers, which many S3 servers do not know.
S3_OPTIONS: Final = {
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 20,
        # s3fs asks five times within two seconds; both of them would take minutes.
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "s3": {"payload_signing_enabled": True},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
}

T = TypeVar("T")


class CannotUseError(Exception):
    """The store that a URL names will not do; the message is a sentence that says the way out."""


class MissingError(Exception):
    """There is no such object."""


class TakenError(Exception):
    """There is such an object already."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object; its name is below the store's URL."""

    name: str
    size: int
    time: datetime


class ObjectStore:
    """The objects below one URL. All raise Unavailable if the store does not answer or refuses."""

    def __init__(self, url: str) -> None:
        """Raises CannotUseError; nothing is asked yet."""
        self.url = url.rstrip("/")
        self._files, self._root = _open(self.url)
        self._threads = ThreadPoolExecutor(AT_ONCE, "files")

    def close(self) -> None:
        """Ask nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self) -> None:
        """Write, read and remove a small object; CannotUseError says why that cannot be."""
        name, content = f"checks/{uuid4()}", b"fit to write"
        try:
            await self._do(lambda: self._files.pipe_file(self._at(name), content), CHUNK_SECONDS)
            read = await self._do(lambda: self._files.cat_file(self._at(name)), CHUNK_SECONDS)
            await self._do(lambda: self._files.rm_file(self._at(name)), CHUNK_SECONDS)
        except Exception as error:
            raise CannotUseError(f"The files in {self.url} cannot be written: {_cause(error)}") from error
        if read != content:
            raise CannotUseError(f"The files in {self.url} are not what was written there; see EASYML_ARTIFACT_URL.")

    async def put(self, name: str, content: bytes) -> None:
        """Write an object, in place of one of that name."""
        await self._asked(lambda: self._files.pipe_file(self._at(name), content), CHUNK_SECONDS)

    async def put_new(self, name: str, content: bytes) -> None:
        """Write an object; TakenError if there is one of that name."""
        path = self._at(name)
        await self._asked(lambda: self._files.pipe_file(path, content, mode="create"), CHUNK_SECONDS)

    async def put_file(self, name: str, path: Path) -> None:
        """Write a file, in parts if it is large."""
        await self._asked(
            lambda: self._files.put_file(str(path), self._at(name), chunksize=MULTIPART_BYTES), FILE_SECONDS
        )

    async def get(self, name: str) -> bytes:
        """A small object; MissingError if there is none."""
        return await self._asked(lambda: self._content(name, 0, None), ASKED_SECONDS)

    async def get_part(self, name: str, start: int, end: int) -> bytes:
        """Some bytes of an object; MissingError if there is none."""
        return await self._asked(lambda: self._content(name, start, end), CHUNK_SECONDS)

    async def list(self, prefix: str) -> list[Found]:
        """The objects whose names begin with the prefix and a slash."""
        found = await self._asked(lambda: self._files.find(self._at(prefix), detail=True), CHUNK_SECONDS)
        skipped = len(self._root) + 1
        return [
            Found(path[skipped:], info["size"], info.get("LastModified") or await self._modified(path))
            for path, info in found.items()
        ]

    async def remove(self, name: str) -> None:
        """Nothing there is no error."""
        with suppress(MissingError):
            await self._asked(lambda: self._files.rm_file(self._at(name)), CHUNK_SECONDS)

    async def _modified(self, path: str) -> datetime:
        modified: datetime = await self._asked(lambda: self._files.modified(path), CHUNK_SECONDS)
        return modified

    def _content(self, name: str, start: int | None, end: int | None) -> bytes:
        content: bytes = self._files.cat_file(self._at(name), start=start, end=end)
        return content

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    async def _asked(self, question: Callable[[], T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await self._insisted(question)
        except FileNotFoundError as error:
            raise MissingError from error
        except FileExistsError as error:
            raise TakenError from error
        except Exception as error:
            if _says(error, "PreconditionFailed"):
                raise TakenError from error
            if _says(error, "InvalidRange"):
                # It ends before the bytes that are asked for.
                raise MissingError from error
            raise Unavailable(
                f"The files cannot be reached just now; try again in {RETRY_SECONDS:.0f} s.",
                retry_after=RETRY_SECONDS,
                metadata={"part": FILES_PART},
            ) from error

    async def _insisted(self, question: Callable[[], T]) -> T:
        """An answer that breaks off is asked for again; refusals are repeated by the library."""
        for _ in range(TRIES - 1):
            try:
                return await self._do(question, None)
            except (FileNotFoundError, FileExistsError, PermissionError):
                raise
            except Exception as error:
                # Whatever a store's library raises, but where nobody is there, or it has asked often enough itself.
                if type(error).__name__ in NOBODY_THERE or any(_says(error, code) for code in FINAL):
                    raise
        return await self._do(question, None)

    async def _do(self, question: Callable[[], T], seconds: float | None) -> T:
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(self._threads, question)


def _open(url: str) -> tuple[Any, str]:
    scheme = urlsplit(url).scheme
    for name in ("botocore", "aiobotocore", "s3fs", "fsspec"):
        # They tell each request, with its headers.
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        files, root = fsspec.url_to_fs(
            url, use_listings_cache=False, skip_instance_cache=True, **(S3_OPTIONS if scheme in S3 else {})
        )
    except ImportError as error:
        way_out = "pip install 'easyml-server[s3]'" if scheme in S3 else str(error)
        raise CannotUseError(f"Files in {scheme}:// need a package that is not installed: {way_out}") from error
    except ValueError as error:
        raise CannotUseError(f"EASYML_ARTIFACT_URL names no store of files ({error}).") from error
    return files, root.rstrip("/")


def _says(error: Exception, code: str) -> bool:
    """Whether the store refused with this code."""
    return isinstance(error, OSError) and code in str(error.__cause__)


def _cause(error: Exception) -> str:
    """In words a person can act on."""
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket; make it first, or correct EASYML_ARTIFACT_URL."
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
    if isinstance(error, PermissionError):
        return "the credentials are wrong, or do not allow to write, read and remove there."
    if isinstance(error, TimeoutError):
        return "the store does not answer; is it running, and is AWS_ENDPOINT_URL right?"
    return f"{type(error).__name__}; is the store running, and is AWS_ENDPOINT_URL right?"
