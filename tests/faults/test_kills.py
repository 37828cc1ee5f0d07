"""The long form of the kills: twenty random moments of each story, with the results written down."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.kills import Trainings, Uploads, moments
from tests.servers import ServerProcess, serving

pytestmark = pytest.mark.faults

KILLS = 20
RESULTS = Path(__file__).with_name("results")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path / "data") as server:
        yield server


@pytest.mark.parametrize("story", [Uploads, Trainings])
def test_a_server_that_is_killed_over_and_over_loses_nothing(
    server: ServerProcess, story: type[Uploads] | type[Trainings]
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 (pytest shows it when the test fails)
    told = story(server)
    kills = [told.killed_at(moment) for moment in moments(told.longest, KILLS, seed)]
    RESULTS.mkdir(exist_ok=True)
    result = {"seed": seed, "longest_seconds": round(told.longest, 3), "kills": [asdict(kill) for kill in kills]}
    (RESULTS / f"{story.__name__.lower()}.json").write_text(json.dumps(result, indent=2) + "\n")
