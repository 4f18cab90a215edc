"""What one look saw, what a cluster's groups are together, and what two looks teach."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brain_clusters.domain.signals import GroupSignals, Learned, as_inputs, from_inputs, learn, total

WINDOWS = (60.0, 6.0)


def seen(ready: int | None = 0, running: int | None = 0, **rest: Any) -> GroupSignals:
    return GroupSignals(ready=ready, running=running, **rest)


# --- sums -------------------------------------------------------------------------------------------------------


def test_a_cluster_is_the_sum_of_its_groups_and_as_late_as_the_latest() -> None:
    whole = total(
        {
            "a": seen(3, 1, agents_ready=2, slots=4, oldest_age=2.0, cpu_percent=50.0, held=1, next_due=9.0),
            "b": seen(
                4, 2, reserved=5, leaving=1, agents_ready=2, agents_starting=1, agents_draining=1, slots=2,
                oldest_age=7.0, cpu_percent=100.0, held=2, next_due=3.0, beats_age=0.5,
            ),
        }
    )  # fmt: skip
    assert (whole.ready, whole.running, whole.agents_ready, whole.agents_starting) == (7, 3, 4, 1)
    assert (whole.reserved, whole.leaving, whole.agents_draining, whole.backlog) == (5, 1, 1, 15)
    assert (whole.slots, whole.oldest_age, whole.cpu_percent) == (3, 7.0, 75.0)
    assert (whole.held, whole.next_due, whole.beats_age) == (3, 3.0, 0.5)
    assert whole.beats_fresh


def test_one_unknown_group_makes_the_sum_unknown_and_so_does_none_at_all() -> None:
    assert total({"a": seen(3, 1), "b": seen(None, 1)}).backlog is None
    assert total({"a": seen(3, 1), "b": seen(3, None)}).backlog is None
    assert not total({"a": seen(), "b": seen(beats_fresh=False)}).beats_fresh
    assert total({}).backlog is None


def test_what_runs_and_is_reserved_needs_so_many_agents_and_what_leaves_needs_none() -> None:
    assert seen(9, 3, reserved=2, leaving=7, slots=2).busy_agents == 3
    assert seen(9, 3, reserved=2, leaving=7).backlog == 14


# --- rates ------------------------------------------------------------------------------------------------------


def steady(rate: int, seconds: int, before: Learned | None = None, begin: int = 0) -> Learned:
    """Look every 2 s while ``rate`` jobs a second come and as many end."""
    jobs = before.jobs if before else 0
    found = before or learn(None, begin, jobs, 0, WINDOWS, None)
    for now in range(begin + 2, begin + seconds + 1, 2):
        found = learn(found, now, jobs, 2 * rate, WINDOWS, None)
    return found


def test_the_first_look_learns_no_rate() -> None:
    assert learn(None, 5.0, 7, 0, WINDOWS, None) == Learned(5.0, 5.0, 7)


def test_arrivals_are_the_growth_of_what_is_there_and_what_has_ended() -> None:
    found = learn(Learned(0.0, 0.0, 10), 2.0, 14, 6, WINDOWS, None)
    assert (found.stable, found.burst, found.jobs, found.begun) == (5.0, 5.0, 14, 0.0)


def test_a_queue_that_shrinks_faster_than_jobs_end_has_no_negative_arrivals() -> None:
    assert learn(Learned(0.0, 0.0, 10), 2.0, 0, 3, WINDOWS, None).stable == 0.0


def test_a_young_memory_is_a_plain_mean() -> None:
    found = learn(learn(Learned(0.0, 0.0, 0), 2.0, 20, 0, WINDOWS, None), 4.0, 20, 0, WINDOWS, None)
    assert found.stable == pytest.approx(5.0)  # 20 jobs in 4 s
    assert found.burst == pytest.approx(5.0)


def test_a_steady_rate_is_learned_over_both_windows() -> None:
    found = steady(3, 300)
    assert found.stable == pytest.approx(3.0)
    assert found.burst == pytest.approx(3.0)


def test_the_short_window_follows_a_burst_at_once_and_the_long_one_slowly() -> None:
    found = steady(20, 6, steady(0, 300), begin=300)
    assert found.burst == pytest.approx(20 * (1 - math.exp(-6 / 6)))
    assert found.stable == pytest.approx(20 * (1 - math.exp(-6 / 60)))


def test_the_service_time_is_kept_while_nobody_states_one() -> None:
    found = learn(None, 0.0, 0, 0, WINDOWS, 1.5)
    for now in (2.0, 4.0, 4000.0):
        found = learn(found, now, 0, 0, WINDOWS, None)
    assert found.service_time == 1.5
    assert learn(found, 4000.0, 0, 0, WINDOWS, None).service_time == 1.5
    assert learn(found, 4002.0, 0, 0, WINDOWS, 2.5).service_time == 2.5


def test_a_clock_that_is_set_back_teaches_nothing_and_breaks_nothing() -> None:
    found = learn(Learned(100.0, 100.0, 5, 2.0, 3.0, 1.0), 50.0, 9, 0, WINDOWS, None)
    assert (found.at, found.jobs, found.stable, found.burst, found.service_time) == (50.0, 9, 2.0, 3.0, 1.0)
    found = learn(found, 100.0, 9, 100, WINDOWS, None)
    assert found.stable == pytest.approx(2.0)  # 100 jobs in the 50 s that are known


@example([(0.0, 0, 0, None), (2.225073858507e-311, 1, 0, None)])
@given(
    st.lists(
        st.tuples(st.floats(-10, 1000), st.integers(0, 10_000), st.integers(0, 10_000), st.none() | st.floats(0, 1e4))
    )
)
def test_rates_stay_finite_and_never_become_negative(looks: list[tuple[float, int, int, float | None]]) -> None:
    found, now = None, 0.0
    for seconds, jobs, ended, service in looks:
        now += seconds
        found = learn(found, now, jobs, ended, WINDOWS, service)
        assert math.isfinite(found.stable)
        assert min(found.stable, found.burst) >= 0.0
        assert found.begun <= found.at == now


# --- the record -------------------------------------------------------------------------------------------------

signal_values = st.builds(
    GroupSignals,
    ready=st.none() | st.integers(0, 500),
    running=st.none() | st.integers(0, 50),
    reserved=st.integers(0, 50),
    leaving=st.integers(0, 50),
    held=st.integers(0, 50),
    next_due=st.none() | st.floats(0, 1e6),
    agents_ready=st.integers(0, 20),
    agents_starting=st.integers(0, 5),
    agents_draining=st.integers(0, 5),
    beats_fresh=st.booleans(),
    beats_age=st.none() | st.floats(0, 1e6),
    slots=st.integers(1, 8),
    oldest_age=st.none() | st.floats(0, 1e6),
    arrival_rate=st.floats(0, 1e4),
    burst_rate=st.floats(0, 1e4),
    service_time=st.none() | st.floats(0, 1e5),
    start_time=st.none() | st.floats(0, 1e3),
    cpu_percent=st.none() | st.floats(0, 800),
)


@given(st.dictionaries(st.text(max_size=5), signal_values, max_size=3))
def test_inputs_are_json_that_says_what_is_unknown(signals: dict[str, GroupSignals]) -> None:
    stored = json.loads(json.dumps(as_inputs(signals), allow_nan=False))
    assert from_inputs(stored) == signals


def test_inputs_leave_out_what_says_nothing_and_what_another_version_wrote() -> None:
    assert as_inputs({"a": seen(0, None)}) == {"a": {"ready": 0}}
    assert from_inputs({"a": {"ready": 0, "phase_of_the_moon": 3}}) == {"a": seen(0, None)}
