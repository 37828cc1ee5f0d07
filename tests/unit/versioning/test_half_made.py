"""A DVC repository whose maker was killed is made again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# In a process of its own, as in the server: DVC is slow to import, and warns of what it imports.
ADD = """
import sys
from pathlib import Path
from easyml_server.versioning.dvc_repository import add
from easyml_server.versioning.messages import Repository
folder, cache, files = sys.argv[1:]
made = Repository(folder=folder, cache=cache, remote_name="easyml-1", remote_url=cache, whole=True)
add(made, "datasets/one", 1, Path(files))
"""


def test_an_empty_configuration_is_written_again(tmp_path: Path) -> None:
    folder, cache, files = (tmp_path / name for name in ("dvc", "cache", "files"))
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").touch()
    files.mkdir()
    (files / "table.parquet").write_bytes(b"table")
    subprocess.run([sys.executable, "-c", ADD, str(folder), str(cache), str(files)], check=True, timeout=60)
    assert (folder / "datasets" / "one" / "v1.dvc").exists()
