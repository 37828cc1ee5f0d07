"""The guide of deployments, followed word for word."""

from __future__ import annotations

import re
import sys

import pytest

from tests.examples.blocks import BLOCK, ROOT, run

GUIDE = ROOT / "docs/guides/deployments.md"
BEFORE = """
easyml projects create penguins-guide
easyml datasets upload examples/data/penguins.csv
easyml train logistic_regression --dataset penguins --target species --watch
easyml models alias set penguins-species:1 champion
"""

pytestmark = pytest.mark.slow


def test_the_guide_runs_as_written(environment: dict[str, str]) -> None:
    environment = {**environment, "EASYML_PROJECT": "penguins-guide"}
    run(["bash", "-euo", "pipefail", "-c", BEFORE], environment)
    said = []
    for language, code in BLOCK.findall(GUIDE.read_text()):
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        said.append(run(command, environment))
    deployed, revisions, endpoints, predicted, token, changed = said
    assert "ready, 1 of 1 replicas, revision 1 answers" in deployed.splitlines()[-1]
    assert "retired" in revisions
    assert endpoints.count("127.0.0.1:") == 2
    assert re.search(r"Adelie|Gentoo|Chinstrap", predicted)
    assert token.count(".") == 2
    assert "Stopped penguins." in changed
    assert changed.splitlines()[-1] == "Deleted penguins."
