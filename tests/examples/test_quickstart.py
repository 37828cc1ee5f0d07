"""`make quickstart` does the main job, twice, and leaves nothing running."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_quickstart_runs_twice(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "EASYML_DATA_DIR": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "quickstart.py")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"One row: +\w+", done.stdout)
        assert "As a stream:" in done.stdout
        assert re.search(r"Deployed: +\w+, says revision \d of 'penguins'", done.stdout)
        assert "grpcurl -plaintext" in done.stdout
        assert "inference.GRPCInferenceService/ModelMetadata" in done.stdout
        assert str(tmp_path / "data") in done.stdout
    assert not (tmp_path / "data" / "server.json").exists()
    assert not list((tmp_path / "data" / "deployments").glob("*/*.json"))
