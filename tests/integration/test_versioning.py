"""Versions in DVC: what a colleague without EasyML pulls, a remote that is away, and what a deletion leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyml.v1 import dataset_service_pb2, dvc_pb2, model_service_pb2
from easyml_client import EasyML, errors
from tests.builders import a_project_of, a_table, upload
from tests.conftest import World
from tests.marks import answers, refuses
from tests.servers import Client, ServerProcess, eventually, refusal, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DVC = str(Path(sys.executable).with_name("dvc"))


@pytest.fixture
def easyml(shared_server: ServerProcess) -> Iterator[EasyML]:
    with EasyML(shared_server.address, shared_server.key) as client:
        yield client


def pull(folder: Path) -> str:
    """`dvc pull` as a colleague types it; what it said."""
    done = subprocess.run([DVC, "pull"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files_of(server: ServerProcess, version_id: str) -> Path:
    (found,) = (server.data / "files").glob(f"*/*/{version_id}")
    return found


@answers("DatasetService/GetDatasetDvcPointer", "ModelService/GetModelVersionDvcPointer")
def test_a_dataset_and_a_model_are_pulled_by_plain_dvc(
    shared_server: ServerProcess, owner: Client, easyml: EasyML, tmp_path: Path
) -> None:
    project_id = a_project_of(owner)
    dataset = easyml.datasets.get(upload(owner, project_id, name="My penguins/../x").id)
    finished = easyml.trainings.start(project_id, dataset=dataset, algorithm="gaussian_nb", target="y").result()
    version = easyml.models.get(finished.model_version_id or "")
    wrote = [easyml.datasets.dvc(dataset, tmp_path), easyml.models.dvc(version, tmp_path)]
    assert wrote[0] == tmp_path / "My-penguins-..-x" / "v1.dvc"
    pull(tmp_path)
    for pointer, version_id in zip(wrote, (dataset.current_version.id, version.id), strict=True):
        there, here = files_of(shared_server, version_id), pointer.with_suffix("")
        assert {path.name: path.read_bytes() for path in here.iterdir()} == {
            path.name: path.read_bytes() for path in there.iterdir()
        }
        # Nothing is stored twice: the server's own files are links into the cache, which is the remote too.
        assert all(path.stat().st_nlink > 1 for path in there.iterdir())
    assert (wrote[0].with_suffix("") / "original").read_bytes() == a_table()
    answer = easyml.datasets.dvc_pointer(dataset)
    assert answer.state == "pushed"
    assert answer.paths == ("v1/original", "v1/table.parquet")
    assert answer.content == wrote[0].read_text()
    assert answer.size_bytes == bytes_below(files_of(shared_server, dataset.current_version.id))
    assert answer.push_time is not None


@refuses("DatasetService/GetDatasetDvcPointer", "ModelService/GetModelVersionDvcPointer")
def test_nobody_else_gets_a_pointer(other: Client, world: World) -> None:
    request = dataset_service_pb2.GetDatasetDvcPointerRequest(dataset_id=world.dataset_id)
    assert refusal(other.datasets.GetDatasetDvcPointer, request).short == ("NOT_FOUND", "NOT_FOUND")
    of_model = model_service_pb2.GetModelVersionDvcPointerRequest(model_version_id=world.model_version_id)
    assert refusal(other.models.GetModelVersionDvcPointer, of_model).short == ("NOT_FOUND", "NOT_FOUND")


def test_a_deletion_frees_what_no_other_version_needs(
    shared_server: ServerProcess, owner: Client, easyml: EasyML, tmp_path: Path
) -> None:
    project_id = a_project_of(owner)
    kept, gone = (easyml.datasets.get(upload(owner, project_id, a_table(rows)).id) for rows in (60, 5_000))
    for each in (kept, gone):
        easyml.datasets.dvc(each, tmp_path)
    remote = shared_server.data / "dvc-remote" / project_id
    before = bytes_below(remote)
    easyml.datasets.delete(gone)
    eventually(lambda: bytes_below(remote) < before - gone.current_version.size_bytes)
    (tmp_path / gone.name / "v1.dvc").unlink()
    pull(tmp_path)
    assert (tmp_path / kept.name / "v1" / "original").read_bytes() == a_table()
    easyml.projects.delete(project_id, force=True)
    eventually(lambda: not remote.exists() and not (shared_server.data / "dvc" / project_id).exists())


def test_versions_follow_the_remote_when_it_changes(tmp_path: Path) -> None:
    old, away, work = tmp_path / "old", tmp_path / "away", tmp_path / "work"
    new = away / "new"
    with (
        serving(tmp_path / "data", DVC_REMOTE=str(old)) as server,
        Client(server.address, server.key) as owner,
        EasyML(server.address, server.key) as easyml,
    ):
        project_id = a_project_of(owner)
        datasets = [easyml.datasets.get(upload(owner, project_id, a_table(rows)).id) for rows in (60, 90)]
        for each in datasets:
            easyml.datasets.dvc(each, work)
    away.write_text("no folder")
    with serving(tmp_path / "data", DVC_REMOTE=str(new)) as server, EasyML(server.address, server.key) as easyml:
        # Nobody is sent where the bytes are not, nor where they are no longer kept up to date.
        for each in datasets:
            with pytest.raises(errors.Unavailable, match="not in the DVC remote yet"):
                easyml.datasets.dvc(each, work, timeout=0)
        waiting = eventually(lambda: found if (found := easyml.datasets.dvc_pointer(datasets[0])).problem else None)
        assert (waiting.state, waiting.remote_url) == ("added", str(new / project_id))
        assert str(old / project_id) in (work / ".dvc" / "config").read_text()
        away.unlink()
        for each in datasets:
            easyml.datasets.dvc(each, work)
            easyml.datasets.dvc(each, tmp_path / "empty")
    shutil.rmtree(old)
    told = [(folder / ".dvc" / "config").read_text() for folder in (work, tmp_path / "empty")]
    assert told[0] == told[1]
    pull(tmp_path / "empty")
    for each in datasets:
        here, there = tmp_path / "empty" / each.name / "v1", files_of(server, each.current_version.id)
        assert {path.name: path.read_bytes() for path in here.iterdir()} == {
            path.name: path.read_bytes() for path in there.iterdir()
        }
    # A start that changes nothing pushes nothing.
    before = {path: path.stat().st_mtime_ns for path in new.rglob("*")}
    with serving(tmp_path / "data", DVC_REMOTE=f"{new}/") as server, EasyML(server.address, server.key) as easyml:
        assert easyml.datasets.dvc_pointer(datasets[0]).state == "pushed"
    assert {path: path.stat().st_mtime_ns for path in new.rglob("*")} == before


def test_a_remote_that_is_away_delays_the_push_and_nothing_else(tmp_path: Path) -> None:
    blocked, remote = tmp_path / "away", tmp_path / "away" / "remote"
    blocked.write_text("no folder")
    with (
        serving(tmp_path / "data", DVC_REMOTE=str(remote)) as server,
        Client(server.address, server.key) as owner,
        EasyML(server.address, server.key) as easyml,
    ):
        dataset = easyml.datasets.get(upload(owner, a_project_of(owner)).id)
        pointer = eventually(lambda: waiting if (waiting := easyml.datasets.dvc_pointer(dataset)).problem else None)
        assert pointer.proto.state == dvc_pb2.DVC_STATE_ADDED
        with pytest.raises(errors.Unavailable, match="not in the DVC remote yet"):
            easyml.datasets.dvc(dataset, tmp_path / "work", timeout=0)
        assert not (tmp_path / "work").exists()
        assert len(easyml.datasets.to_frame(dataset)) == 60
        blocked.unlink()
        easyml.datasets.dvc(dataset, tmp_path / "work")
    pull(tmp_path / "work")
    assert (tmp_path / "work" / dataset.name / "v1" / "original").read_bytes() == a_table()
    assert (remote / dataset.project_id).is_dir()
