"""All named points, each with the story in which it strikes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.faults.kills import Deletions, Story, Trainings, Uploads, Versions
from tests.servers import ROOT

SERVER_POINTS: Mapping[tuple[str, str], type[Story]] = {
    ("upload.opened", "upload"): Uploads,
    ("upload.write", "upload"): Uploads,
    ("upload.fsync", "upload"): Uploads,
    ("upload.synced", "upload"): Uploads,
    ("upload.received", "upload"): Uploads,
    ("upload.converted", "upload"): Uploads,
    ("publish.fsync", "upload"): Uploads,
    ("publish.rename", "upload"): Uploads,
    ("publish.renamed", "upload"): Uploads,
    ("upload.published", "upload"): Uploads,
    ("database.commit@2", "upload"): Uploads,
    ("upload.committed", "upload"): Uploads,
    ("files.remove", "upload"): Uploads,
    ("training.claimed", "training"): Trainings,
    ("training.events@2", "training"): Trainings,
    ("training.trained", "training"): Trainings,
    ("publish.fsync", "training"): Trainings,
    ("publish.rename", "training"): Trainings,
    ("publish.renamed", "training"): Trainings,
    ("training.published", "training"): Trainings,
    ("training.committed", "training"): Trainings,
    ("outbox.recorded", "training"): Trainings,
    ("files.remove", "deletion"): Deletions,
    ("version.added", "version"): Versions,
    ("version.pushed", "version"): Versions,
}
"""Where the server is killed."""
IN_EVERY_RUN = (
    ("upload.fsync", "upload"),
    ("upload.converted", "upload"),
    ("upload.published", "upload"),
    ("upload.committed", "upload"),
    ("training.claimed", "training"),
    ("training.trained", "training"),
    ("training.published", "training"),
    ("training.committed", "training"),
    ("files.remove", "deletion"),
    ("version.added", "version"),
)
"""Of these, before and after each promise; `make faults` strikes at all."""
MODEL_POINTS = ("model.write", "model.fsync")
"""Where the worker of a training is killed."""
CONVERTER_POINTS = ("converter.write", "converter.written")
"""Where the worker of an upload is killed."""

DOCUMENT_POINTS = ("documents.apply", "documents.applied")
"""Where a server on MongoDB is killed: between a commit and its apply, and between that and forgetting it."""


def points_in_the_code() -> set[str]:
    """What `fault_point` is called with."""
    texts = [path.read_text() for path in (ROOT / "easyml_server").rglob("*.py")]
    return {point for text in texts for point in re.findall(r'fault_point\("([a-z.]+)"\)', text)}


def points_with_a_test() -> set[str]:
    """The same by what the tests strike at."""
    killed = {fault.partition("@")[0] for fault, _ in SERVER_POINTS}
    return killed | set(MODEL_POINTS) | set(CONVERTER_POINTS) | set(DOCUMENT_POINTS)
