"""What a model server is told of its models, by arguments or by a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easyml_server.domain.errors import NotFound
from easyml_server.serving.known import CannotStart, Known, parse_known, parse_models, read_models_file
from easyml_server.serving.sources import Source

ONE, TWO = (f"00000000-0000-4000-8000-{number:012x}" for number in (10, 11))
DIGEST = "0" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.json"


def write(file: Path, said: Any) -> Path:
    file.write_text(said if isinstance(said, str) else json.dumps(said))
    return file


def test_a_file_says_models_and_names(file: Path) -> None:
    url = f"s3://models/two@sha256:{DIGEST}"
    known = read_models_file(write(file, {"models": {ONE.upper(): "/one", TWO: url}, "names": {"a": ONE, "b": TWO}}))
    assert known.sources == {ONE: Source("/one"), TWO: Source("s3://models/two", DIGEST)}
    assert known.names == {"a": ONE, "b": TWO}
    assert known.only is None


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("{", "is not JSON"),
        (f'{{"models": {{"{ONE}": "/a", "{ONE}": "/b"}}}}', f"'{ONE}' is there twice"),
        ([], "expected is"),
        ({}, "expected is"),
        ({"models": {}}, "expected is"),
        ({"models": {ONE: "/one"}, "aliases": {}}, "expected is"),
        ({"models": [ONE]}, '"models" is to hold texts'),
        ({"models": {ONE: 1}}, '"models" is to hold texts'),
        ({"models": {ONE: "/one"}, "names": ["a"]}, '"names" is to hold texts'),
        ({"models": {"one": "/one"}}, "VERSION_ID=FOLDER with a UUID"),
        ({"models": {ONE: "/one", ONE[:-1] + "A": "/one"}}, "given twice"),
        ({"models": {ONE: ""}}, "is not FOLDER"),
        ({"models": {ONE: "s3://models/one"}}, "needs the SHA-256"),
        ({"models": {ONE: "/one"}, "names": {"a": TWO}}, "NAME=VERSION_ID with the version of a --model"),
        ({"models": {ONE: "/one"}, "names": {ONE: ONE}}, "is the name of a model already"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_its_name_and_the_place(
    file: Path, said: Any, sentence: str
) -> None:
    with pytest.raises(CannotStart) as caught:
        read_models_file(write(file, said))
    assert str(file) in str(caught.value)
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(CannotStart, match=r"cannot be read \(No such file or directory\)"):
        read_models_file(file)


def test_models_come_from_arguments_or_from_a_file(file: Path) -> None:
    assert parse_known([f"{ONE}=/one"], [f"a={ONE}"], None).all_names == {ONE: ONE, "a": ONE}
    with pytest.raises(CannotStart, match="one or the other"):
        parse_known([], [f"a={ONE}"], file)
    with pytest.raises(CannotStart, match="Say what to serve"):
        parse_known([], [], None)
    with pytest.raises(CannotStart, match="given twice"):
        parse_models([f"{ONE}=/one", f"{ONE.upper()}=/two"])


def test_a_model_is_found_by_its_names_and_by_its_version_in_any_case() -> None:
    known = Known({ONE: Source("/one"), TWO: Source("/two")}, {"Penguins": TWO})
    assert [known.version(name) for name in (ONE, ONE.upper(), "Penguins")] == [ONE, ONE, TWO]
    assert known.version("Penguins", TWO.upper()) == TWO
    for name, version in (("penguins", ""), ("Penguins", ONE), ("", "")):
        with pytest.raises(NotFound):
            known.version(name, version)
