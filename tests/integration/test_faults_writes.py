"""The n-th write fails, for n = 1, 2, 3 ... until all pass: it is said, nothing half-written stays, and it goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.plan import FaultPlan
from tests.faults.writes import CASES, ERRORS, Writes
from tests.servers import serving

# Trainings meet both errors at the same places; `make faults` tries them.
IN_EVERY_RUN = [
    (case, error) for case in CASES for error in ERRORS if error == "enospc" or not case.startswith("training")
]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writes]:
    plan = FaultPlan(tmp_path_factory.mktemp("faults") / "plan")
    with serving(plan.path.parent / "data", FAULT=str(plan.path)) as server:
        writes = Writes(server, plan)
        yield writes
        plan.arm()
        writes.client.close()


@pytest.mark.parametrize(("case", "error"), IN_EVERY_RUN)
def test_a_write_that_fails_is_said_and_leaves_nothing_half_written(writes: Writes, case: str, error: str) -> None:
    assert CASES[case](writes, error) > 0
