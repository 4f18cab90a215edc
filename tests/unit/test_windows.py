"""The window on the way down where the blueprint states none: it learns from ways down that came too soon."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.gates import Moment, decide_group
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import AgentGroup, Count, ScalingPolicy
from brain_clusters.domain.states import AgentRole
from brain_clusters.domain.windows import (
    HOLD_LEAST_SECONDS,
    HOLD_MOST_SECONDS,
    GroupState,
    hold_seconds,
    peaks_with,
    remembered,
)

POLICY = ScalingPolicy()
WORKERS = AgentGroup("workers", AgentRole.WORKER, Count(0, 20, scalable=True))


def change(state: GroupState, now: float, before: int, after: int) -> GroupState:
    state = replace(state, hold=hold_seconds(POLICY, GroupSignals(), state))
    return remembered(state, now=now, before=before, after=after, period=15.0)


def test_it_begins_with_half_a_minute_or_with_three_starts() -> None:
    assert hold_seconds(POLICY, GroupSignals(), GroupState()) == 30.0
    assert hold_seconds(POLICY, GroupSignals(start_time=2.0), GroupState()) == 30.0
    assert hold_seconds(POLICY, GroupSignals(start_time=20.0), GroupState()) == 60.0
    assert hold_seconds(POLICY, GroupSignals(start_time=1000.0), GroupState()) == 300.0


def test_a_stated_window_is_the_window() -> None:
    stated = replace(POLICY, scale_down_stabilization_seconds=7.0)
    assert hold_seconds(stated, GroupSignals(start_time=20.0), GroupState(hold=90.0)) == 7.0


def test_growth_soon_after_a_way_down_triples_it_once() -> None:
    shrunk = change(GroupState(), 100.0, 5, 2)
    assert (shrunk.hold, shrunk.shrunk_at) == (30.0, 100.0)
    grown = change(shrunk, 190.0, 2, 4)
    assert (grown.hold, grown.shrunk_at) == (90.0, None)
    assert change(grown, 192.0, 4, 6).hold == 90.0
    assert change(shrunk, 190.1, 2, 4).hold == 30.0  # three windows later it is another load


def test_a_way_down_that_stood_for_long_halves_it() -> None:
    wary = replace(change(GroupState(), 0.0, 5, 2), hold=240.0)
    assert change(wary, 1440.1, 2, 1).hold == 120.0
    assert change(wary, 1440.0, 2, 1).hold == 240.0


@given(st.lists(st.tuples(st.floats(0.1, 500), st.integers(0, 9)), max_size=60))
def test_it_stays_between_half_a_minute_and_five(changes: list[tuple[float, int]]) -> None:
    state, now, count = GroupState(), 0.0, 0
    for pause, after in changes:
        now += pause
        state, count = change(state, now, count, after), after
        assert HOLD_LEAST_SECONDS <= hold_seconds(POLICY, GroupSignals(), state) <= HOLD_MOST_SECONDS


def test_between_two_ways_down_lies_one_window() -> None:
    state = GroupState(target=9, peaks=((99.0, 4),), votes=2, hold=30.0, shrunk_at=80.0)
    signals = GroupSignals(ready=0, running=4, agents_ready=9, service_time=1.0)
    early = decide_group(POLICY, WORKERS, signals, Moment(100.0, 9, 20.0), state)
    assert (early.target, early.held) == (9, "scale_down.stabilization")
    assert "20 s ago" in early.reason
    assert decide_group(POLICY, WORKERS, signals, Moment(110.0, 9, 30.0), state).target == 4


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), min_size=1, max_size=50), st.floats(1, 100))
def test_the_first_peak_is_the_highest_need_of_the_window(needs: list[tuple[float, int]], window: float) -> None:
    needs.sort(key=lambda need: need[0])
    peaks: tuple[tuple[float, int], ...] = ()
    for at, count in needs:
        peaks = peaks_with(peaks, at, count, window)
    now = needs[-1][0]
    assert peaks[0][1] == max(count for at, count in needs if at > now - window)
