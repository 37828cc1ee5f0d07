"""What follows from two readings of counters."""

from __future__ import annotations

from math import inf

import pytest

from easyml_server.domain.counters import Counters, Histogram

BOUNDS = (0.1, 0.2, 0.5, inf)


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ((10, 10, 10, 10), 0.5, 0.05),
        ((0, 10, 10, 10), 0.5, 0.15),
        ((50, 90, 100, 100), 0.99, 0.47),
        ((50, 90, 100, 100), 0.9, 0.2),
        ((0, 0, 0, 4), 0.5, 0.5),
        ((98, 98, 98, 100), 0.99, 0.5),
    ],
)
def test_quantiles_are_those_of_prometheus(counts: tuple[int, ...], share: float, value: float) -> None:
    assert Histogram(BOUNDS, counts).quantile(share) == pytest.approx(value)


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram(BOUNDS, (0, 0, 0, 0)).quantile(0.5) is None


def test_histograms_of_other_bounds_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="other bounds"):
        Histogram(BOUNDS, (1, 1, 1, 1)) + Histogram((0.1, inf), (1, 1))


def test_what_came_between_two_readings() -> None:
    earlier = Counters({"OK": 2}, Histogram(BOUNDS, (1, 2, 2, 2)), answered=2, runs=1, rows=4, cpu_seconds=1.5)
    later = Counters({"OK": 5, "Internal": 1}, Histogram(BOUNDS, (2, 4, 5, 6)), 5, 3, 9, 2.0)
    between = later - earlier
    assert between == Counters({"OK": 3, "Internal": 1}, Histogram(BOUNDS, (1, 2, 3, 4)), 3, 2, 5, 0.5)
    assert between + earlier == later


def test_a_refusal_is_an_answer_and_who_left_was_not_failed() -> None:
    answered = {"OK": 5, "InvalidArgument": 3, "Unauthenticated": 1, "NotFound": 1, "Cancelled": 2}
    failed = {"Internal": 1, "Unknown": 1, "Unavailable": 1, "DeadlineExceeded": 1, "ResourceExhausted": 1}
    counters = Counters({**answered, **failed})
    assert (counters.requests, counters.errors) == (17, 5)
