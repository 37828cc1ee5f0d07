"""An S3 server for the tests: moto in an environment of its own, a bucket a test; `make s3` installs it.

It keeps everything in memory, and runs as a process of its own, never imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.servers import CACHE, SHIM, eventually, free_port

START_SECONDS = 60.0
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "easyml-tests",
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-secret-key",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass
class S3Server:
    """A server that answers anybody."""

    port: int
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def environment(self, port: int | None = None) -> dict[str, str]:
        """Where S3 libraries look for server and credentials; by way of another port if it is given."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}"}

    def files(self) -> Any:
        """The test's own way to all buckets."""
        return fsspec.filesystem(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            key="easyml-tests",
            secret="canary-of-the-secret-key",
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def new_bucket(self) -> str:
        """One that nobody has."""
        name = f"test-{os.getpid()}-{next(self.numbers)}"
        self.files().mkdir(name)
        return name


@contextmanager
def s3(port: int | None = None) -> Iterator[S3Server]:
    """A server for a while."""
    program = Path(os.environ.get("MOTO_SERVER") or CACHE / "moto-5.2.5" / "bin" / "moto_server")
    if not program.exists():
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"There is no S3 server at {program}; run: make s3")
    port = port or free_port()
    command = [sys.executable, "-c", SHIM, str(os.getpid()), str(program), "-H", "127.0.0.1", "-p", str(port)]
    # In a session of its own: Ctrl-C is told to this program alone, which may want what the server has.
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        server = S3Server(port)
        try:
            eventually(lambda: process.poll() is not None or _answers(server) or None, START_SECONDS)
            assert process.poll() is None, "the S3 server ended"
            yield server
        finally:
            process.kill()


@contextmanager
def s3_environment(server: S3Server, port: int | None = None) -> Iterator[None]:
    """Of this process, for a while."""
    with pytest.MonkeyPatch.context() as patch:
        _set(patch, server.environment(port))
        yield


def _set(patch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


def _answers(server: S3Server) -> bool:
    with suppress(Exception):
        server.files().ls("")
        return True
    return False
