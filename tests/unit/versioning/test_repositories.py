"""A DVC repository whose maker was killed is made again, and one that was moved goes on where it is."""

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
folder, cache, files, remote, place = sys.argv[1:]
made = Repository(folder=folder, cache=cache, remote_name="easyml-1", remote_url=remote, whole=True)
add(made, place, 1, Path(files))
"""


def add(folder: Path, cache: Path, files: Path, remote: Path, place: str = "datasets/one") -> None:
    arguments = [str(each) for each in (folder, cache, files, remote, place)]
    subprocess.run([sys.executable, "-c", ADD, *arguments], check=True, timeout=60)


def test_an_empty_configuration_is_written_again(tmp_path: Path) -> None:
    folder, cache, files = (tmp_path / name for name in ("dvc", "cache", "files"))
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").touch()
    files.mkdir()
    (files / "table.parquet").write_bytes(b"table")
    add(folder, cache, files, remote=cache)
    assert (folder / "datasets" / "one" / "v1.dvc").exists()


def test_a_repository_that_was_moved_keeps_its_files_beside_it(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for name, content in (("first", b"first"), ("second", b"second")):
        (here / name).mkdir(parents=True)
        (here / name / "table.parquet").write_bytes(content)
    add(here / "dvc", here / "cache", here / "first", tmp_path / "remote")
    here.rename(there)
    add(there / "dvc", there / "cache", there / "second", tmp_path / "remote", "datasets/two")
    assert not here.exists()
    kept = {path.read_bytes() for path in (there / "cache").rglob("*") if path.is_file()}
    assert {b"first", b"second"} <= kept
