"""A server for the code blocks of a page."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a user's shell has: the commands of .venv/bin, grpcurl, and a server that clients find by themselves."""
    folder = tmp_path_factory.mktemp("readme")
    data = folder / "data"
    grpcurl = Path(os.environ.get("GRPCURL") or shutil.which("grpcurl") or "grpcurl")
    path = os.pathsep.join([str(Path(sys.executable).parent), str(grpcurl.parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "EASYML_DATA_DIR": str(data),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "EASYML_LOG_LEVEL": "warning",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "easyml_server", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("READY "), line
    yield {**environment, "EASYML_TARGET": line.split()[1]}
    # As Ctrl-C does, so that its deployments end with it.
    server.send_signal(signal.SIGINT)
    assert server.wait(60) == 0
    server.stdout.close()
