"""Every code block of the README runs as written, against a server of its own."""

from __future__ import annotations

import os
import re
import shutil
import sys

import pytest

from tests.examples.blocks import ROOT, blocks, run

README = ROOT / "README.md"

pytestmark = pytest.mark.slow


def test_the_python_block_predicts(environment: dict[str, str]) -> None:
    (code,) = blocks(README, "python")
    output = run([sys.executable, "-c", code], environment)
    assert "finished" in output
    assert re.search(r"\['(Adelie|Gentoo|Chinstrap)'\]", output)


def test_the_commands_predict(environment: dict[str, str]) -> None:
    commands = next(code for code in blocks(README, "bash") if "easyml projects create" in code)
    output = run(["bash", "-euo", "pipefail", "-c", commands], environment)
    assert re.search(r"Adelie|Gentoo|Chinstrap", output.splitlines()[-1] + output)


def test_the_grpcurl_lines_predict(environment: dict[str, str]) -> None:
    if shutil.which("grpcurl", path=environment["PATH"]) is None or shutil.which("jq") is None:
        if os.environ.get("CI"):
            pytest.fail("grpcurl and jq are needed in CI: run `make grpcurl`, install jq")
        pytest.skip("grpcurl or jq is not installed: run `make grpcurl`, install jq")
    lines = next(code for code in blocks(README, "bash") if "grpcurl" in code)
    output = run(["bash", "-euo", "pipefail", "-c", lines], environment)
    assert "finished" in output
    assert re.search(r'"predictions"', output)
