"""Models from folders and stores: what is not what was asked for is not served."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from easyml_server.serving.known import CannotStart, parse_models
from easyml_server.serving.loading import stored_model
from easyml_server.serving.predictors import CannotLoad
from easyml_server.serving.sources import Source, folder_of, parse_source
from easyml_server.serving.tables import TableLimits
from tests.unit.serving.requests import VERSION

OTHER = "0" * 64


@pytest.fixture
def stored(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "version"))


def digest_of(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def graph_of(folder: Path) -> Path:
    (graph,) = folder.glob("*.onnx")
    return graph


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("s3://bucket/version", "needs the SHA-256 of its manifest.json"),
        ("s3://bucket/version@sha256:123", "64 hexadecimal digits"),
        (f"@sha256:{OTHER}", "not FOLDER"),
        (f"folder@sha256:{'g' * 64}", "64 hexadecimal digits"),
    ],
)
def test_what_is_no_place_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(CannotStart, match=sentence):
        parse_models([f"{VERSION}={text}"])


def test_a_digest_is_told_from_the_place() -> None:
    assert parse_source(f"s3://b/v@sha256:{OTHER.replace('0', 'A')}") == Source("s3://b/v", "a" * 64)
    assert parse_source("a@sha256@b") == Source("a@sha256@b")


def test_a_folder_is_held_to_its_digest(stored: Path) -> None:
    with folder_of(Source(stored, digest_of(stored))) as folder:
        assert folder == stored
    with (
        pytest.raises(CannotLoad, match=f"{digest_of(stored)}, and {OTHER} was asked for"),
        folder_of(Source(stored, OTHER)),
    ):
        pass
    with pytest.raises(CannotLoad, match=r"manifest\.json cannot be read"), folder_of(Source(stored / "no", OTHER)):
        pass


def test_a_version_elsewhere_is_fetched_and_its_copy_goes(stored: Path) -> None:
    source = Source(stored.as_uri(), digest_of(stored))
    with folder_of(source) as copy:
        # The pipeline is not needed where there is a graph.
        assert {path.name for path in copy.iterdir()} == {"manifest.json", graph_of(stored).name}
        assert graph_of(copy).read_bytes() == graph_of(stored).read_bytes()
    assert not copy.exists()
    with stored_model(VERSION, source, TableLimits()) as model:
        assert model.load().version_id == VERSION


def _altered(stored: Path) -> None:
    content = bytearray(graph_of(stored).read_bytes())
    content[-1] ^= 1
    graph_of(stored).write_bytes(content)


def _shortened(stored: Path) -> None:
    graph_of(stored).write_bytes(graph_of(stored).read_bytes()[:-1])


def _outside(stored: Path) -> None:
    manifest = json.loads((stored / "manifest.json").read_text())
    manifest["artifacts"][0]["filename"] = "../model.onnx"
    (stored / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_altered, "is not the file that was stored"),
        (_shortened, "is not the file that was stored"),
        (lambda stored: graph_of(stored).unlink(), "Not all of the version's files are at"),
        (lambda stored: (stored / "manifest.json").write_bytes(b"{}"), "is no manifest"),
        (_outside, "a filename is not plain"),
        (shutil.rmtree, "is it the folder of a version"),
    ],
)
def test_what_is_not_as_stored_is_not_served(stored: Path, damage: object, sentence: str) -> None:
    url = stored.as_uri()
    assert callable(damage)
    damage(stored)
    digest = digest_of(stored) if stored.exists() else OTHER
    source = Source(url, digest)
    with (
        pytest.raises(CannotLoad, match=f"it cannot be fetched: .*{sentence}"),
        stored_model(VERSION, source, TableLimits()) as model,
    ):
        model.load()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (Source("nosuch://place/version", OTHER), "nosuch"),
        (Source("file:///nowhere", OTHER), "is it the folder of a version"),
    ],
)
def test_a_place_that_is_not_there_is_one_line(source: Source, sentence: str) -> None:
    with pytest.raises(CannotLoad, match=sentence), folder_of(source):
        pass


def test_whose_parent_ended_before_it_began_fetches_nothing(stored: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    # As if another process had been waiting for it.
    arguments = ["1", stored.as_uri(), digest_of(stored), str(target)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "easyml_server.artifacts.fetching", *arguments], capture_output=True, check=False
    )
    assert (done.returncode, list(target.iterdir())) == (1, [])
