"""How many replicas calls need: more at once, fewer after a while, never outside the bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyml_server.domain.scaling import AVERAGED_LOOKS, TOLERANCE, Autoscaling, Demand, Recommendation

SCALING = Autoscaling(min_replicas=1, max_replicas=5, target_requests_in_flight=10, cooldown_seconds=30)
TO_ZERO = Autoscaling(min_replicas=0, max_replicas=5, target_requests_in_flight=10, cooldown_seconds=30)

scalings = st.builds(
    lambda bounds, target, cooldown: Autoscaling(min(bounds), max(1, *bounds), target, cooldown_seconds=cooldown),
    st.tuples(st.integers(0, 20), st.integers(0, 20)),
    st.integers(1, 50),
    st.integers(1, 20),
)
looks = st.lists(st.floats(0, 500, allow_nan=False), max_size=40)


def looked(demand: Demand, *in_flight: float, since: int = 0) -> int:
    """A look each second; the time of the last one."""
    for second, calls in enumerate(in_flight, since + 1):
        demand.looked(calls, second)
    return since + len(in_flight)


def replicas(demand: Demand, current: int, now: float) -> int:
    return demand.recommend(current, now).replicas


def test_more_calls_need_more_replicas_at_once() -> None:
    demand = Demand(SCALING, 0)
    now = looked(demand, 25, 25, 25)
    assert demand.recommend(1, now) == Recommendation(3, 25.0)


def test_one_look_does_not_decide() -> None:
    demand = Demand(SCALING, 0)
    now = looked(demand, 0, 0, 27)
    assert replicas(demand, 1, now) == 1
    now = looked(demand, 27, 27, since=now)
    assert replicas(demand, 1, now) == 3


def test_what_wavers_by_less_than_a_tenth_of_a_replica_needs_no_further_one() -> None:
    assert [SCALING.needed(calls) for calls in (0, 0.01, 10, 11, 11.2, 20.9, 21.1)] == [0, 1, 1, 1, 2, 2, 3]


def test_fewer_replicas_come_once_fewer_were_enough_for_all_of_the_cooldown() -> None:
    demand = Demand(SCALING, 0)
    now = looked(demand, *[45] * 40)
    assert replicas(demand, 5, now) == 5
    now = looked(demand, *[15] * 30, since=now)
    assert replicas(demand, 5, now) == 5
    now = looked(demand, *[15] * 3, since=now)
    assert replicas(demand, 5, now) == 2


def test_the_most_of_the_cooldown_counts_however_short_it_was() -> None:
    demand = Demand(SCALING, 0)
    now = looked(demand, *[5] * 40, 30, 30, 30, *[5] * 20)
    assert replicas(demand, 3, now) == 3
    assert replicas(demand, 3, looked(demand, *[5] * 15, since=now)) == 1


def test_nothing_is_taken_away_before_a_whole_cooldown_was_seen() -> None:
    demand = Demand(SCALING, 100)
    assert replicas(demand, 4, 129.9) == 4
    assert replicas(demand, 4, 130) == 1


def test_none_runs_once_no_call_came_for_the_cooldown_and_a_call_that_waits_needs_one() -> None:
    demand = Demand(TO_ZERO, 0)
    now = looked(demand, 0.001, *[0] * 25)
    assert replicas(demand, 1, now) == 1
    now = looked(demand, *[0] * 10, since=now)
    assert replicas(demand, 1, now) == 0
    demand.called(now)
    assert replicas(demand, 0, now) == 1
    assert replicas(demand, 1, now + 30) == 1
    assert replicas(demand, 1, now + 31) == 0


def test_the_bound_is_said_where_it_keeps_from_more() -> None:
    demand = Demand(SCALING, 0)
    assert demand.recommend(1, looked(demand, 80, 80, 80)) == Recommendation(5, 80.0, limited=True)
    again = Demand(SCALING, 0)
    assert not again.recommend(1, looked(again, 50, 50, 50)).limited


@pytest.mark.parametrize(("scaling", "running", "begins"), [(SCALING, 0, 1), (TO_ZERO, 0, 1), (SCALING, 9, 5)])
def test_a_new_revision_begins_with_what_ran_and_with_one_at_least(
    scaling: Autoscaling, running: int, begins: int
) -> None:
    assert scaling.beginning(running) == begins


@given(scalings, looks, st.integers(0, 20))
def test_it_is_what_all_looks_of_the_cooldown_say_together(
    scaling: Autoscaling, in_flight: list[float], running: int
) -> None:
    demand, current = Demand(scaling, 0), scaling.within(running)
    averages = []
    for second, calls in enumerate(in_flight, 1):
        demand.looked(calls, second)
        averages.append(sum(in_flight[max(0, second - AVERAGED_LOOKS) : second]) / AVERAGED_LOOKS)
        largest = max(averages[max(0, second - 1 - scaling.cooldown_seconds) :])
        needed = max(1, math.ceil(largest / scaling.target_requests_in_flight - TOLERANCE)) if largest else 0
        found = demand.recommend(current, second)
        assert scaling.min_replicas <= found.replicas <= scaling.max_replicas
        assert found.in_flight == pytest.approx(largest)
        if second < scaling.cooldown_seconds:
            needed = max(needed, current)
        assert found.replicas == scaling.within(needed)
        current = found.replicas
