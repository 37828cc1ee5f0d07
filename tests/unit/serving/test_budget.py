"""What models take, and who makes room for whom."""

from __future__ import annotations

import pytest

from easyml_server.domain.models import Artifact, ArtifactFormat
from easyml_server.serving.budget import AT_LEAST_BYTES, InMemory, bytes_in_memory, who_leaves


def a_model(version: str, asked: int, size: int = 10, calls: int = 0) -> InMemory:
    return InMemory(version, size, asked, calls)


@pytest.mark.parametrize(
    ("format", "stored", "taken"),
    [(ArtifactFormat.ONNX, 0, 0), (ArtifactFormat.ONNX, 1_000, 8_000), (ArtifactFormat.SKOPS, 1_000, 1_500)],
)
def test_a_model_takes_a_multiple_of_its_file(format: ArtifactFormat, stored: int, taken: int) -> None:
    assert bytes_in_memory(Artifact(format, "model", stored, "")) == AT_LEAST_BYTES + taken


@pytest.mark.parametrize(
    ("loaded", "needed", "leaving"),
    [
        ([], 30, []),
        ([a_model("a", 1), a_model("b", 2)], 10, []),
        ([a_model("a", 3), a_model("b", 1), a_model("c", 2)], 10, ["b"]),
        ([a_model("a", 3), a_model("b", 1), a_model("c", 2)], 20, ["b", "c"]),
        ([a_model("a", 3), a_model("b", 1, calls=1), a_model("c", 2)], 10, ["c"]),
        ([a_model("a", 1, 5), a_model("b", 2, 20)], 10, ["a"]),
        ([a_model("a", 1, 5), a_model("b", 2, 20)], 11, ["a", "b"]),
        ([a_model("a", 1, calls=1), a_model("b", 2, calls=2), a_model("c", 3)], 20, None),
        ([a_model("a", 1, 40, calls=1)], 10, None),
    ],
)
def test_those_not_asked_for_longest_leave_but_none_with_a_call(
    loaded: list[InMemory], needed: int, leaving: list[str] | None
) -> None:
    assert who_leaves(loaded, needed, budget=30) == leaving
