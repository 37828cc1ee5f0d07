from __future__ import annotations

from pathlib import Path

import pytest

from easyml.v1 import dvc_pb2
from easyml_client import dvc_files, errors
from easyml_client.resources.dvc import DvcPointer

REMOTE = "['remote \"easyml-1\"']\n    url = s3://bucket/1\n"


def a_pointer(**changes: str) -> DvcPointer:
    values = {
        "file_name": "v3.dvc",
        "content": "outs:\n- path: v3\n",
        "remote_name": "easyml-1",
        "remote_url": "s3://bucket/1",
        **changes,
    }
    return DvcPointer.of(dvc_pb2.DvcPointer(state=dvc_pb2.DVC_STATE_PUSHED, **values))


def test_a_plain_folder_becomes_a_repository_without_git(tmp_path: Path) -> None:
    path = dvc_files.write(a_pointer(), "penguins", tmp_path)
    assert path == tmp_path / "penguins" / "v3.dvc"
    assert path.read_text() == "outs:\n- path: v3\n"
    assert (tmp_path / ".dvc" / "config").read_text() == f"[core]\n    remote = easyml-1\n    no_scm = True\n{REMOTE}"
    assert not (path.parent / ".gitignore").exists()


def test_in_git_the_remote_is_at_its_root_and_the_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "data" / "penguins").mkdir(parents=True)
    (tmp_path / "data" / "penguins" / ".gitignore").write_text("/v2\n")
    for _ in range(2):
        path = dvc_files.write(a_pointer(), "penguins", tmp_path / "data")
    assert (path.parent / ".gitignore").read_text() == "/v2\n/v3\n"
    assert (tmp_path / ".dvc" / ".gitignore").read_text() == "/config.local\n/tmp\n/cache\n"
    assert (tmp_path / ".dvc" / "config").read_text() == f"[core]\n    remote = easyml-1\n{REMOTE}"


def test_the_settings_of_a_repository_stay(tmp_path: Path) -> None:
    config = tmp_path / ".dvc" / "config"
    config.parent.mkdir()
    config.write_text("# ours\n[core]\n    remote = mine\n['remote \"mine\"']\n    url = /mnt/mine\n")
    before = config.read_text()
    for _ in range(2):
        dvc_files.write(a_pointer(), "penguins", tmp_path / "below")
    assert config.read_text() == before + REMOTE


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", ".hidden", "a b\n", "-rf", "…"])
def test_a_name_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    path = dvc_files.write(a_pointer(), name, tmp_path)
    assert path.parent.parent == tmp_path
    assert not path.parent.name.startswith((".", "-"))


@pytest.mark.parametrize("file_name", ["../v1.dvc", "/tmp/v1.dvc", "config", "v1.dvc\n", ""])
def test_a_server_cannot_say_where_a_file_goes(tmp_path: Path, file_name: str) -> None:
    with pytest.raises(errors.InvalidInput, match="nothing was written"):
        dvc_files.write(a_pointer(file_name=file_name), "penguins", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = dvc_files.write(a_pointer(), "penguins", tmp_path)
    with pytest.raises(errors.InvalidInput, match="says something else"):
        dvc_files.write(a_pointer(content="other"), "penguins", tmp_path)
    assert path.read_text() == a_pointer().content


def test_a_remote_that_the_server_moved_is_followed(tmp_path: Path) -> None:
    config = tmp_path / ".dvc" / "config"
    config.parent.mkdir()
    before, after = ("['remote \"easyml-2\"']\n    url = /2\n", "['remote \"easyml-3\"']\n    url = /3\n")
    ours = "['remote \"easyml-1\"']\n    profile = me\n    url = {url}\n    region = eu\n"
    config.write_text(f"# ours\n{before}{ours.format(url='s3://old/1')}{after}")
    dvc_files.write(a_pointer(), "penguins", tmp_path)
    assert config.read_text() == f"# ours\n{before}{ours.format(url='s3://bucket/1')}{after}"


def test_a_remote_of_somebody_else_is_not_moved(tmp_path: Path) -> None:
    dvc_files.write(a_pointer(remote_name="mine"), "penguins", tmp_path)
    before = (tmp_path / ".dvc" / "config").read_text()
    with pytest.raises(errors.InvalidInput, match="has another URL for the remote mine"):
        dvc_files.write(a_pointer(remote_name="mine", remote_url="s3://other"), "penguins", tmp_path)
    assert (tmp_path / ".dvc" / "config").read_text() == before


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "penguins").write_text("a file")
    with pytest.raises(errors.InvalidInput, match="cannot be written"):
        dvc_files.write(a_pointer(), "penguins", tmp_path)


@pytest.mark.parametrize("url", ["s3://bucket/1\n[core]\n", "x\ny"])
def test_a_url_of_several_lines_is_no_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(errors.InvalidInput, match="nothing was written"):
        dvc_files.write(a_pointer(remote_url=url), "penguins", tmp_path)
    assert list(tmp_path.iterdir()) == []
