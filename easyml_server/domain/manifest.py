"""`manifest.json`: the manifest of a stored model as text, and back.

Keys are the fields of `ModelManifest`, enums their values; `format` counts the changes of this form. Reading checks
every field and refuses what it does not know, since a model server acts on what it reads.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, get_args, get_origin, get_type_hints

from easyml_server.domain.models import Artifact, ModelManifest

MANIFEST_FILENAME: Final = "manifest.json"
_FORMAT: Final = 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PLAIN_FILENAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


class BadManifest(ValueError):
    """The text is no manifest; the message names the field."""


def dump_manifest(manifest: ModelManifest) -> str:
    """The manifest as JSON; NaN and infinity have no place in it."""
    return json.dumps(
        {"format": _FORMAT, **dataclasses.asdict(manifest)}, ensure_ascii=False, allow_nan=False, indent=1
    )


def load_manifest(text: str | bytes) -> ModelManifest:
    """The manifest that `dump_manifest` wrote. Raises BadManifest."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadManifest("It is not JSON.") from error
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        raise BadManifest(f"It is not of format {_FORMAT}.")
    manifest: ModelManifest = _read(ModelManifest, document, "manifest")
    for artifact in manifest.artifacts:
        _check(artifact)
    return manifest


def _check(artifact: Artifact) -> None:
    """A name with a separator would leave the version's folder."""
    if not _PLAIN_FILENAME.fullmatch(artifact.filename):
        raise BadManifest("manifest.artifacts: a filename is not plain.")
    if not _SHA256.fullmatch(artifact.sha256) or artifact.size_bytes < 0:
        raise BadManifest("manifest.artifacts: a checksum or size is not one.")


def _read(kind: Any, value: Any, path: str) -> Any:
    """The value as `kind`, a type of the domain's dataclasses; everything is checked."""
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, _expect(value, dict, path), path)
    if get_origin(kind) is not None:
        return _read_generic(kind, value, path)
    if issubclass(kind, StrEnum):
        if value not in {member.value for member in kind}:
            raise BadManifest(f"{path} is not a {kind.__name__}.")
        return kind(value)
    return _read_plain(kind, value, path)


def _read_generic(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        items = _expect(value, list, path)
        return tuple(_read(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is Mapping:
        entries = _expect(value, dict, path)
        return {name: _read(arguments[1], item, f"{path}.{name}") for name, item in entries.items()}
    raise BadManifest(f"{path} is of a kind that cannot be read.")


def _read_fields(kind: Any, entries: dict[str, Any], path: str) -> Any:
    hints = get_type_hints(kind)
    if unknown := set(entries) - set(hints):
        raise BadManifest(f"{path} has unknown fields: {', '.join(sorted(unknown))}.")
    required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    if missing := required - set(entries):
        raise BadManifest(f"{path} lacks {', '.join(sorted(missing))}.")
    return kind(**{name: _read(hints[name], value, f"{path}.{name}") for name, value in entries.items()})


def _read_plain(kind: Any, value: Any, path: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise BadManifest(f"{path} is not finite.")
        return float(value)
    return _expect(value, kind, path)


def _expect(value: Any, kind: type[Any], path: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadManifest(f"{path} is not a {kind.__name__}.")
    return value
