"""What the idle server has imported: nothing that only workers, model servers and the tracking process need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import a_project_of
from tests.servers import Client, environment

HEAVY = {
    "sklearn", "pandas", "numpy", "scipy", "pyarrow", "mlflow", "dvc", "kubernetes", "skops", "onnx", "onnxruntime",
    "skl2onnx", "lightgbm", "xgboost", "matplotlib", "alembic", "distributed", "motor", "asyncpg",
    "fsspec", "s3fs", "aiobotocore", "botocore",
}  # fmt: skip
SERVE_AND_TELL = """
import asyncio, sys
from easyml_server.app import serve
from easyml_server.observability.logs import configure_logging
from easyml_server.settings import Settings

def tell():
    asyncio.get_running_loop().remove_reader(sys.stdin)
    print(*sorted(sys.modules), flush=True)

def ready(running):
    print(running.address, flush=True)
    asyncio.get_running_loop().add_reader(sys.stdin, tell)

configure_logging("warning", "console")
asyncio.run(serve(Settings(), ready))
"""


@pytest.mark.slow
def test_the_idle_server_has_not_imported_what_only_workers_need(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = environment({"PORT": "0", "DATA_DIR": str(data), "PRELOAD": "true"})
    for start in ("first", "second"):
        with subprocess.Popen(
            [sys.executable, "-c", SERVE_AND_TELL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=settings,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with Client(address, (data / "owner.key").read_text().strip()) as client:
                a_project_of(client)
            process.stdin.write("tell\n")
            process.stdin.flush()
            modules = {name.partition(".")[0] for name in process.stdout.readline().split()}
            process.terminate()
        # The first start migrates the new database.
        assert modules & HEAVY == ({"alembic"} if start == "first" else set())
        assert "easyml_server" in modules
