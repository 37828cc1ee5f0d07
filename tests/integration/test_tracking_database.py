"""MLflow's database is whole or not there, whoever makes it and whatever becomes of them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MAKE = (
    "import sys, pathlib; from easyml_server.tracking.mlflow_place import database; database(pathlib.Path(sys.argv[1]))"
)


def making(folder: Path, scratch: Path) -> subprocess.Popen[bytes]:
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(scratch), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return subprocess.Popen([sys.executable, "-c", MAKE, str(folder)], env=environment, stderr=subprocess.DEVNULL)


def check_whole(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT count(*) FROM alembic_version").fetchall() == [(1,)]
        columns = {row[1] for row in database.execute("PRAGMA table_info(runs)")}
    assert "deleted_time" in columns


def test_two_servers_that_make_it_at_once_use_the_same(tmp_path: Path) -> None:
    processes = [making(tmp_path, tmp_path / f"scratch{number}") for number in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    check_whole(tmp_path)


def test_half_of_one_is_never_used(tmp_path: Path) -> None:
    process = making(tmp_path, tmp_path / "scratch")
    eventually(lambda: [path for path in (tmp_path / "scratch").glob("*/mlflow.db") if path.stat().st_size])
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    assert making(tmp_path, tmp_path / "scratch").wait() == 0
    check_whole(tmp_path)
