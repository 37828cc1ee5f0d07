"""Servers that share a folder make the DVC repository of one project at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SERVERS = 4
# In a process of its own, as in a server: DVC is imported, then all begin in one moment.
ADD = """
import sys
from pathlib import Path
from easyml_server.versioning.dvc_repository import add
from easyml_server.versioning.messages import Repository
folder, cache, files, number = sys.argv[1:]
made = Repository(folder=folder, cache=cache, remote_name="easyml-1", remote_url=cache, whole=True)
print("ready", flush=True)
sys.stdin.readline()
for version in (1, 2):
    add(made, f"datasets/{number}-{version}", version, Path(files) / str(version))
"""


@pytest.mark.slow
def test_each_of_them_adds_its_versions(tmp_path: Path) -> None:
    folder, cache = tmp_path / "dvc" / "project", tmp_path / "cache"
    started = []
    for number in range(SERVERS):
        files = tmp_path / f"files{number}"
        for version in (1, 2):
            (files / str(version)).mkdir(parents=True)
            (files / str(version) / "table.parquet").write_bytes(f"table {number} {version}".encode())
        command = [sys.executable, "-c", ADD, str(folder), str(cache), str(files), str(number)]
        environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache")}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    for server in started:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
    for server in started:
        assert server.stdin is not None
        server.stdin.write("\n")
        server.stdin.flush()
    for server in started:
        server.communicate(timeout=60)
    assert [server.returncode for server in started] == [0] * SERVERS
    pointers = {str(path.relative_to(folder)) for path in folder.glob("datasets/*/*.dvc")}
    assert pointers == {
        f"datasets/{number}-{version}/v{version}.dvc" for number in range(SERVERS) for version in (1, 2)
    }
    assert not list(folder.parent.glob("*.lock"))
