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


def test_a_canary_gets_its_calls_step_by_step_and_none_fails(environment: dict[str, str]) -> None:
    said = run([sys.executable, str(ROOT / "examples/10_deploy_and_canary.py")], environment)
    assert "revision 1 90 %, revision 2 10 %" in said
    assert "revision 1 50 %, revision 2 50 %" in said
    assert "ready: revision 2 100 %" in said
    assert re.search(r"Calls answered: \d+ by version 1, \d+ by version 2; failed: 0\.", said)


def test_the_guide_runs_as_written(environment: dict[str, str]) -> None:
    environment = {**environment, "EASYML_PROJECT": "penguins-guide"}
    run(["bash", "-euo", "pipefail", "-c", BEFORE], environment)
    said = []
    for language, code in BLOCK.findall(GUIDE.read_text()):
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        said.append(run(command, environment))
    (
        deployed,
        revisions,
        endpoints,
        chosen,
        candidates,
        configured,
        predicted,
        token,
        counted,
        logged,
        changed,
        followed,
        tried,
    ) = said
    assert "ready, 1 of 1 replicas, revision 1 answers" in deployed.splitlines()[-1]
    assert "retired" in revisions
    assert endpoints.count("127.0.0.1:") == 2
    assert "penguins-species:1 it is." in chosen
    assert "Would serve penguins-species:1 as revision 4 of penguins, by " in chosen
    assert re.fullmatch(r"1 penguins-species 1 Best accuracy: [\d.]+\n", candidates)
    assert "taken back by 1 % more errors or 2 times the p99" in configured
    assert "Nothing is wrong with it." in configured
    assert "Would serve penguins-species:1 as revision 4 of penguins, by " in configured
    assert re.search(r"Adelie|Gentoo|Chinstrap", predicted)
    assert token.count(".") == 2
    assert counted.splitlines()[0].split("\t")[:3] == ["REVISION", "REQUESTS", "ERRORS"]
    assert "/metrics" in logged
    assert "Stopped penguins." in changed
    assert changed.splitlines()[-1] == "Deleted penguins."
    assert "ready, 1 of 1 replicas, revision 1 answers" in followed
    assert re.search(r"Scaling +1 to 3 replicas for 8 calls in flight each, fewer after 30 s", followed)
    assert "scaling_active" in followed
    assert followed.splitlines()[-1] == "Deleted busy."
    assert "revision 2 answers 10 of 100 calls until" in tried
    assert "Calls of careful: 80 of 100 to revision 1, 20 of 100 to revision 2." in tried
    assert "10% 50% 20% 100%" in tried
    assert tried.splitlines()[-1] == "Deleted careful."
