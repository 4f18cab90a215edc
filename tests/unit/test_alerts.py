"""When an alert fires and when it is over: each told once, unknown moves nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.alerts import AlertRule, AlertState, close, default_name, step
from brain_clusters.domain.conditions import parse_condition

START = datetime(2025, 1, 31, 8, tzinfo=UTC)
RULE = AlertRule("errors", parse_condition("error_rate > 10%"), ("notify_admin",), for_seconds=10)
Course = list[tuple[float, float | None]]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def run(rule: AlertRule, course: Course, state: AlertState | None = None) -> tuple[AlertState, list[tuple[float, str]]]:
    """Go through (second, value) pairs; return the last state and what was told when."""
    state, told = state or AlertState(), []
    for second, value in course:
        state, transition = step(rule, state, {"error_rate": value}, at(second))
        told += [(second, str(transition))] if transition else []
    return state, told


def test_a_condition_that_holds_for_long_enough_fires_once() -> None:
    state, told = run(RULE, [(0, 20), (9, 20), (10, 20), (11, 30), (500, 30)])
    assert told == [(10, "firing")]
    assert state == AlertState("firing", since=at(10), fired_at=at(10), value=30)


def test_without_for_it_fires_at_once_and_without_resolve_after_it_is_over_at_once() -> None:
    rule = replace(RULE, for_seconds=0, resolve_after_seconds=0)
    assert run(rule, [(0, 20), (1, 0), (2, 20)])[1] == [(0, "firing"), (1, "resolved"), (2, "firing")]


def test_a_condition_that_is_false_in_between_begins_anew() -> None:
    state, told = run(RULE, [(0, 20), (9, 10), (10, 20), (19, 20)])
    assert told == []
    assert (state.state, state.since) == ("pending", at(10))
    assert run(RULE, [(0, 20), (9, 10)])[0] == AlertState()


def test_it_is_over_when_the_value_came_back_by_a_tenth_for_long_enough() -> None:
    firing, _ = run(RULE, [(0, 20), (10, 20)])
    assert run(RULE, [(20, 9.5), (500, 9.5)], firing)[1] == []
    clearing, told = run(RULE, [(20, 9), (79, 9)], firing)
    assert (clearing.state, clearing.since, told) == ("clearing", at(20), [])
    state, told = run(RULE, [(80, 8), (90, 8)], clearing)
    assert told == [(80, "resolved")]
    assert state == AlertState("resolved", at(80), fired_at=at(10), resolved_at=at(80), value=8)


def test_a_value_that_goes_up_again_while_clearing_keeps_it_firing() -> None:
    firing, _ = run(RULE, [(0, 20), (10, 20)])
    state, told = run(RULE, [(20, 0), (70, 9.5), (75, 0), (80, 0), (134, 0)], firing)
    assert (state.state, state.since, told) == ("clearing", at(75), [])
    again, told = run(RULE, [(134.5, 20)], state)
    assert (again.state, again.since, told) == ("firing", at(10), [])


def test_an_explicit_resolve_says_when_it_is_over() -> None:
    rule = replace(RULE, resolve=parse_condition("error_rate < 2%"))
    firing, _ = run(rule, [(0, 20), (10, 20)])
    assert run(rule, [(20, 5), (200, 5)], firing)[1] == []
    assert run(rule, [(20, 1), (80, 1)], firing)[1] == [(80, "resolved")]


def test_a_resolve_that_holds_together_with_the_condition_ends_nothing() -> None:
    rule = replace(RULE, resolve=parse_condition("running == 0"), for_seconds=0)
    state, _ = step(rule, AlertState(), {"error_rate": 20, "running": 0}, START)
    for second in (1, 100):
        state, told = step(rule, state, {"error_rate": 20, "running": 0}, at(second))
        assert (state.state, told) == ("firing", None)


@pytest.mark.parametrize("course", [[], [(0, 20.0)], [(0, 20.0), (10, 20.0)], [(0, 20.0), (10, 20.0), (20, 0.0)],
                                    [(0, 20.0), (10, 20.0), (20, 0.0), (80, 0.0)]])  # fmt: skip
def test_an_unknown_value_moves_nothing(course: Course) -> None:
    state, _ = run(RULE, course)
    assert run(RULE, [(200, None), (10_000, None)], state) == (state, [])


def test_an_alert_that_was_over_stays_known_and_may_fire_again() -> None:
    over, _ = run(RULE, [(0, 20), (10, 20), (20, 0), (80, 0)])
    assert run(RULE, [(100, 20), (105, 0)], over)[0] == replace(over, value=20)
    state, told = run(RULE, [(100, 20), (110, 20)], over)
    assert told == [(110, "firing")]
    assert (state.fired_at, state.resolved_at) == (at(110), None)


def test_the_end_of_its_cluster_ends_an_alert() -> None:
    firing, _ = run(RULE, [(0, 20), (10, 20)])
    state, told = close(firing, at(11))
    assert (state.state, state.resolved_at, told) == ("resolved", at(11), "resolved")
    assert close(state, at(12)) == (state, None)
    pending, _ = run(RULE, [(0, 20)])
    assert close(pending, at(1)) == (AlertState(), None)


def test_a_clock_that_goes_back_fires_nothing_early() -> None:
    assert run(RULE, [(0, 20), (-100, 20), (9, 20), (10, 20)])[1] == [(10, "firing")]


def test_an_alert_without_a_name_is_called_by_what_it_says() -> None:
    assert default_name(RULE.condition, ("scale_up", "notify_admin")) == "error_rate > 10%: scale_up, notify_admin"


VALUES = st.one_of(st.none(), st.sampled_from([0.0, 8.9, 9.5, 10.0, 11.0, 100.0]))


@given(st.lists(st.tuples(st.integers(0, 40), VALUES), max_size=60), st.sampled_from([0, 10]), st.sampled_from([0, 60]))
def test_firing_and_resolved_take_turns_and_each_has_its_reason(
    looks: list[tuple[int, float | None]], wait: float, resolve_after: float
) -> None:
    rule = replace(RULE, for_seconds=wait, resolve_after_seconds=resolve_after)
    state, second, told = AlertState(), 0.0, []
    for pause, value in looks:
        second += pause
        before = state
        state, transition = step(rule, state, {"error_rate": value}, at(second))
        if transition:
            told.append(transition)
            assert value is not None
            assert value > 10 if transition == "firing" else value <= 9
        assert before.is_firing == state.is_firing or transition
    assert told == [("firing", "resolved")[index % 2] for index in range(len(told))]
