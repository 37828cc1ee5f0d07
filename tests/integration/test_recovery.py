"""A server that is killed, stopped, or cannot start. `tests/faults` has the long form of the kills."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kills import Kill, Trainings, Uploads, moments
from tests.servers import ServerProcess, serving

pytestmark = pytest.mark.slow

KILLS = 5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path / "data") as server:
        yield server


@pytest.fixture
def seed() -> int:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


def told(kills: list[Kill]) -> None:
    for kill in kills:
        print(kill)  # noqa: T201 (pytest shows it when the test fails)


def test_a_killed_server_loses_no_upload(server: ServerProcess, seed: int) -> None:
    uploads = Uploads(server)
    told([uploads.killed_at(moment) for moment in moments(uploads.longest, KILLS, seed)])


def test_a_killed_server_loses_no_training(server: ServerProcess, seed: int) -> None:
    trainings = Trainings(server)
    told([trainings.killed_at(moment) for moment in moments(trainings.longest, KILLS, seed)])
