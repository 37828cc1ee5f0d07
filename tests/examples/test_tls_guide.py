"""docs/guides/tls.md, word for word: its commands are typed into one shell, and its servers run beside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import ROOT, free_port

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
SERVE = "easyml-server serve\n"

pytestmark = pytest.mark.slow


def blocks(port: int) -> list[str]:
    """What the guide says to type, with a port that nobody has."""
    return [block.replace("50051", str(port)) for block in BLOCK.findall((ROOT / "docs/guides/tls.md").read_text())]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("EASYML_")}
    grpcurl = Path(os.environ.get("GRPCURL") or shutil.which("grpcurl") or "grpcurl")
    path = os.pathsep.join([str(Path(sys.executable).parent), str(grpcurl.parent), os.environ["PATH"]])
    for tool in ("openssl", "grpcurl"):
        if shutil.which(tool, path=path) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{tool} is needed in CI")
            pytest.skip(f"{tool} is not installed")
    return {
        **own,
        "PATH": path,
        "EASYML_DATA_DIR": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


@contextmanager
def beside(commands: str, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A block that serves, in another terminal; what it says."""
    server = subprocess.Popen(
        ["bash", "-euc", commands.replace(SERVE, f"exec {SERVE}")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline()
    finally:
        server.terminate()
        server.stdout.close()
        assert server.wait(60) == 0


def typed(commands: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_guide_works_as_written(tmp_path: Path, environment: dict[str, str]) -> None:
    port = free_port()
    make, serve, login, programs, renew, serve_mutual, certified = blocks(port)
    environment["EASYML_PORT"] = str(port)
    folder = tmp_path / "certificates"
    folder.mkdir()
    typed(make, folder, environment)
    with beside(serve, folder, environment) as ready:
        assert ready == f"READY 127.0.0.1:{port} tls\n"
        # The same shell throughout: what it defined before is defined still.
        shell = make.split("issue server")[0].split("-out ca.pem\n")[1]
        assert f"Signed in to localhost:{port}" in typed(login, folder, environment)
        key = login.splitlines()[0]
        said = typed(f"{key}\n{programs}", folder, environment)
        assert said.count("serving") == 2
        assert '"status": "SERVING"' in said
        said = typed(f"{shell}\n{renew}", folder, environment)
        assert "CN = renewed" in said
        assert "bad" not in said
    with beside(f"{serve.splitlines()[0]}\n{serve_mutual}", folder, environment):
        said = typed(f"{key}\n{shell}\n{certified}", folder, environment)
    assert "wants a certificate of the client" in said
    assert "As expected: no certificate." in said
    assert said.count("owner@localhost") >= 1
    assert '"status": "SERVING"' in said
