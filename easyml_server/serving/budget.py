"""What models take in memory, and who makes room for whom within a budget.

The factors are measured: docs/decisions/0031-several-models-in-one-process.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from easyml_server.domain.models import Artifact, ArtifactFormat

AT_LEAST_BYTES: Final = 256 << 10
"""Of any model: its session, signature and buffers."""
BYTES_PER_STORED_BYTE: Final[Mapping[ArtifactFormat, float]] = {ArtifactFormat.ONNX: 8.0, ArtifactFormat.SKOPS: 1.5}
"""Trees take 5.5 to 8.1 times their graph's file, everything else less; pipelines up to 1.3 times theirs."""


class InMemory(NamedTuple):
    """A loaded model: what it takes, when it was asked last (larger is later), and calls that need it now."""

    version: str
    bytes: int
    asked: int
    calls: int


def bytes_in_memory(served: Artifact) -> int:
    """What a model is taken to need, from the file that is loaded."""
    return AT_LEAST_BYTES + int(served.size_bytes * BYTES_PER_STORED_BYTE[served.format])


def who_leaves(loaded: Iterable[InMemory], needed: int, budget: int) -> list[str] | None:
    """The versions whose leaving makes room, those not asked for longest first; None while calls keep too many."""
    models = sorted(loaded, key=lambda model: model.asked)
    free = budget - sum(model.bytes for model in models)
    leaving = []
    for model in models:
        if free >= needed:
            break
        if not model.calls:
            leaving.append(model.version)
            free += model.bytes
    return leaving if free >= needed else None
