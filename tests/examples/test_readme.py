"""Every code block of the README runs as written, against a server of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    return [code for found, code in BLOCK.findall(text) if found == language]


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
    server.terminate()
    assert server.wait(60) == 0
    server.stdout.close()


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_python_block_predicts(environment: dict[str, str]) -> None:
    (code,) = blocks("python")
    output = run([sys.executable, "-c", code], environment)
    assert "finished" in output
    assert re.search(r"\['(Adelie|Gentoo|Chinstrap)'\]", output)


def test_the_commands_predict(environment: dict[str, str]) -> None:
    commands = next(code for code in blocks("bash") if "easyml projects create" in code)
    output = run(["bash", "-euo", "pipefail", "-c", commands], environment)
    assert re.search(r"Adelie|Gentoo|Chinstrap", output.splitlines()[-1] + output)


def test_the_grpcurl_lines_predict(environment: dict[str, str]) -> None:
    if shutil.which("grpcurl", path=environment["PATH"]) is None or shutil.which("jq") is None:
        if os.environ.get("CI"):
            pytest.fail("grpcurl and jq are needed in CI: run `make grpcurl`, install jq")
        pytest.skip("grpcurl or jq is not installed: run `make grpcurl`, install jq")
    lines = next(code for code in blocks("bash") if "grpcurl" in code)
    output = run(["bash", "-euo", "pipefail", "-c", lines], environment)
    assert "finished" in output
    assert re.search(r'"predictions"', output)
