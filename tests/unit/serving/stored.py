"""Changes to stored models for the tests of `serving`."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from easyml_server.domain.manifest import MANIFEST_FILENAME, dump_manifest, load_manifest
from easyml_server.domain.models import Artifact, ArtifactFormat, ModelManifest


def manifest_of(folder: Path) -> ModelManifest:
    return load_manifest((folder / MANIFEST_FILENAME).read_bytes())


def copy_of(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy with another manifest."""
    shutil.copytree(folder, target)
    (target / MANIFEST_FILENAME).write_text(dump_manifest(replace(manifest_of(folder), **changes)))
    return target


def pipeline_only(folder: Path, target: Path) -> Path:
    """A copy that has no graph."""
    artifacts = tuple(each for each in manifest_of(folder).artifacts if each.format is ArtifactFormat.SKOPS)
    return copy_of(folder, target, artifacts=artifacts)


def with_file(folder: Path, target: Path, format: ArtifactFormat, content: bytes) -> Path:
    """A copy that consists of one file, with its right checksum."""
    artifact = Artifact(format, "model.bin", len(content), hashlib.sha256(content).hexdigest())
    copy_of(folder, target, artifacts=(artifact,))
    (target / "model.bin").write_bytes(content)
    return target
