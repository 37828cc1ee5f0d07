"""Which replicas take much longer for a call than the others of their revision."""

from __future__ import annotations

from math import inf
from uuid import UUID

import pytest

from easyml_server.domain.counters import Histogram
from easyml_server.domain.slowness import FEWEST_CALLS, slower_than_others

BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, inf)
A, B, C, D = (UUID(int=number) for number in range(4))


def taking(seconds: float, calls: int = 2 * FEWEST_CALLS, bounds: tuple[float, ...] = BOUNDS) -> Histogram:
    """All calls took nearly so long, which is one of the bounds."""
    return Histogram(bounds, tuple(calls if seconds <= bound else 0 for bound in bounds))


@pytest.mark.parametrize(
    ("latencies", "slow"),
    [
        ({}, set()),
        ({A: taking(1.0)}, set()),
        ({A: taking(0.01), B: taking(0.01)}, set()),
        ({A: taking(0.01), B: taking(0.2)}, {B}),
        ({A: taking(1.0), B: taking(0.1), C: taking(0.1)}, {A}),
        # Most are slow: then it is the model that is, and not a replica.
        ({A: taking(1.0), B: taking(1.0), C: taking(1.0), D: taking(0.01)}, set()),
        # Ten times as long, and still too quick for anyone to notice.
        ({A: taking(0.005), B: taking(0.05)}, set()),
        ({A: taking(0.1), B: taking(0.2)}, set()),
        ({A: taking(0.01), B: taking(1.0, FEWEST_CALLS - 1)}, set()),
        ({A: taking(0.01, FEWEST_CALLS - 1), B: taking(1.0)}, set()),
        ({A: Histogram(), B: taking(1.0)}, set()),
        ({A: taking(0.01), B: taking(1.0, bounds=(0.01, 1.0, inf))}, set()),
    ],
)
def test_much_longer_than_the_others_is_slow(latencies: dict[UUID, Histogram], slow: set[UUID]) -> None:
    assert slower_than_others(latencies, ()) == slow


def test_one_that_was_slow_is_so_until_it_is_much_less() -> None:
    a_little = {A: taking(0.1), B: taking(0.5)}
    assert slower_than_others(a_little, ()) == set()
    assert slower_than_others(a_little, {B}) == {B}
    assert slower_than_others({A: taking(0.1), B: taking(0.2)}, {B}) == set()
