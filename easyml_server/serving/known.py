"""Which models a model server is told of, and by which names they are asked: by its arguments, or by a file.

The file is JSON: {"models": {"VERSION_ID": "FOLDER, or URL@sha256:DIGEST"}, "names": {"NAME": "VERSION_ID"}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from easyml_server.domain.errors import NotFound
from easyml_server.serving import faults
from easyml_server.serving.sources import Source, parse_source

MODELS: Final = "models"
NAMES: Final = "names"


class CannotStart(Exception):
    """The model server was told something that cannot be; the sentence says what."""


class Known:
    """Models by version id, and the further names that some have. It never changes; another takes its place."""

    def __init__(self, sources: Mapping[str, Source], names: Mapping[str, str]) -> None:
        self.sources = dict(sources)
        self.names = dict(names)

    @cached_property
    def all_names(self) -> Mapping[str, str]:
        """Version ids by everything that a model is called, its version id included."""
        return {version: version for version in self.sources} | self.names

    @cached_property
    def only(self) -> str | None:
        """The one version, where there is one."""
        return next(iter(self.sources)) if len(self.sources) == 1 else None

    def version_id(self, version: str) -> str:
        """A version by its id. Raises NotFound."""
        if version not in self.sources:
            raise NotFound.of("model version", faults.shortened(version))
        return version

    def version(self, name: str, version: str = "") -> str:
        """The version that a name means, which `version` may say too. Raises NotFound."""
        found = self.all_names.get(name) or self.all_names.get(name.lower())
        if found is None:
            raise NotFound.of("model", faults.shortened(name))
        if version and version.lower() != found:
            raise NotFound.of("model version", faults.shortened(version))
        return found


def parse_models(arguments: Iterable[str]) -> dict[str, Source]:
    """Where versions are, from VERSION_ID=FOLDER or VERSION_ID=URL@sha256:DIGEST. Raises CannotStart."""
    models: dict[str, Source] = {}
    for argument in arguments:
        version, _, place = argument.partition("=")
        try:
            identity = str(UUID(version))
        except ValueError as error:
            raise CannotStart(f"--model {argument} is not VERSION_ID=FOLDER with a UUID.") from error
        if identity in models:
            raise CannotStart(f"--model {version} is given twice; name each version once.")
        try:
            models[identity] = parse_source(place)
        except ValueError as error:
            raise CannotStart(f"--model {version}: {error}") from error
    return models


def parse_names(arguments: Iterable[str], models: Mapping[str, Source]) -> dict[str, str]:
    """Version ids by name from NAME=VERSION_ID. Raises CannotStart."""
    names: dict[str, str] = {}
    for argument in arguments:
        name, _, version = argument.rpartition("=")
        if not name or version.lower() not in models:
            raise CannotStart(f"--name {argument} is not NAME=VERSION_ID with the version of a --model.")
        if name in names or name.lower() in models:
            raise CannotStart(f"--name {argument}: {name} is the name of a model already.")
        names[name] = version.lower()
    return names


def parse_known(models: Iterable[str], names: Iterable[str], file: Path | None) -> Known:
    """From --model and --name, or from --models. Raises CannotStart."""
    models, names = list(models), list(names)
    if file is None:
        if not models:
            raise CannotStart("Say what to serve: with --model VERSION_ID=FOLDER, or with --models FILE.")
        sources = parse_models(models)
        return Known(sources, parse_names(names, sources))
    if models or names:
        raise CannotStart("--models says what is served in place of --model and --name; give one or the other.")
    return read_models_file(file)


def read_models_file(file: Path) -> Known:
    """What a file of models says. Raises CannotStart with a sentence that names the file and the place in it."""
    try:
        said = json.loads(file.read_bytes(), object_pairs_hook=_each_once)
    except OSError as error:
        raise CannotStart(f"--models: {file} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise CannotStart(f"--models: {file} is not JSON as it is to be: {error}.") from error
    try:
        return _from_json(said)
    except CannotStart as error:
        raise CannotStart(f"{file}: {error}") from error


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object; JSON has the last of two values win, without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _from_json(said: Any) -> Known:
    if not isinstance(said, dict) or set(said) - {MODELS, NAMES} or not said.get(MODELS):
        raise CannotStart('expected is {"models": {"VERSION_ID": "FOLDER"}, "names": {"NAME": "VERSION_ID"}}.')
    models, names = said[MODELS], said.get(NAMES, {})
    for field, given in ((MODELS, models), (NAMES, names)):
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise CannotStart(f'"{field}" is to hold texts by their names.')
    sources = parse_models(f"{version}={place}" for version, place in models.items())
    return Known(sources, parse_names((f"{name}={version}" for name, version in names.items()), sources))
