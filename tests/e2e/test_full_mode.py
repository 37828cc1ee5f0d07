"""The quickstart's story on PostgreSQL and MongoDB with two servers, one of which is killed in the middle of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.replicas import replicas
from tests.mongodb import mongodb
from tests.postgresql import postgresql
from tests.servers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_quickstart_goes_on_when_a_server_is_killed(tmp_path: Path) -> None:
    with postgresql(tmp_path / "postgresql") as postgres, mongodb(tmp_path / "mongodb") as mongo:
        url = postgres.database_url(asyncio.run(postgres.create_database()))
        with replicas(tmp_path, url, MONGODB_URL=mongo.database_url(mongo.new_name())) as pair:
            first, second = pair.servers
            story = subprocess.Popen(
                [sys.executable, "-u", str(ROOT / "examples" / "01_quickstart.py")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=tmp_path,
                env={
                    **os.environ,
                    "EASYML_TARGET": f"ipv4:{first.address},{second.address}",
                    "EASYML_TOKEN": first.key,
                },
            )
            with story:
                assert story.stdout is not None
                said = []
                for line in story.stdout:
                    said.append(line)
                    if "logistic_regression: done" in line and first.process is not None:
                        first.kill()
            assert story.returncode == 0, "".join(said)
            assert first.process is None, "it was not killed"
            assert "Done in" in said[-1]
            assert any(line.startswith("Deployed: ") for line in said), "".join(said)
            # Its replica ends with it.
            second.interrupt()
            assert [state for (state,) in pair.execute("SELECT state FROM ml_experiments")] == ["succeeded"] * 3
