"""When a cluster falls asleep and when it wakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from brain_clusters.domain.scaling import ClusterView
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.sleeping import Sleep, Wake, hibernation, soonest, waking
from brain_clusters.domain.specs import (
    AgentGroup,
    Blueprint,
    Count,
    HibernateRules,
    Lifecycle,
    ReactivateRules,
    ScalingPolicy,
)
from brain_clusters.domain.states import AgentRole, ClusterType

# With a stated window, and by the formula alone; the learned window and the payback have tests of their own.
POLICY = ScalingPolicy(
    scale_up_threshold=10, scale_down_threshold=2, cooldown_seconds=60, payback_seconds=0,
    scale_down_stabilization_seconds=300,
)  # fmt: skip
BOSS = AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False))
A = AgentGroup("a", AgentRole.WORKER, Count(0, 10, scalable=True))
B = AgentGroup("b", AgentRole.WORKER, Count(2, 5, scalable=True))
IDLE = GroupSignals(ready=0, running=0, agents_ready=1)
NOBODY = GroupSignals(ready=0, running=0)


def view_of(policy: ScalingPolicy, lifecycle: Lifecycle, idle: float | None = 0.0, **rest: Any) -> ClusterView:
    groups = (BOSS, A, B)
    blueprint = Blueprint("b", "B", "1", ClusterType.PROJECT, 0, 100, 1, groups, scaling=policy, lifecycle=lifecycle)
    return ClusterView(blueprint, {"boss": 1, "a": 0, "b": 0}, 0, 100, 1e9, idle, **rest)


def sleep(
    rules: HibernateRules | None = None, idle: float | None = 1e9, *, policy: ScalingPolicy = POLICY,
    view: Mapping[str, Any] | None = None, **signals: Any,
) -> Sleep:  # fmt: skip
    seen = GroupSignals(**{"ready": 0, "running": 0, **signals})
    found = view_of(policy, Lifecycle(hibernate=rules), idle, **(view or {}))
    return hibernation(found, {"boss": IDLE, "a": seen, "b": NOBODY})


def gate(found: Sleep) -> str | None:
    assert not found.sleeps
    return found.held.gate if found.held else None


# --- hibernation ------------------------------------------------------------------------------------------------


def test_an_idle_cluster_sleeps_after_the_time_that_its_rules_state() -> None:
    rules = HibernateRules(idle_seconds=60)
    found = sleep(rules, 59.9)
    assert not found.sleeps
    assert found.reason == "no job for 60 s; it sleeps after 60 s"
    assert sleep(rules, 60.0).sleeps


@pytest.mark.parametrize(
    "signals",
    [
        {"ready": 1}, {"running": 1}, {"reserved": 1}, {"leaving": 1}, {"ready": None}, {"running": None},
        {"agents_ready": 1, "beats_fresh": False},
    ],
)  # fmt: skip
def test_work_and_whatever_is_unknown_keep_a_cluster_awake(signals: dict[str, Any]) -> None:
    assert not sleep(HibernateRules(), **signals).sleeps


def test_a_missing_beat_is_a_gate_named_unknown() -> None:
    assert gate(sleep(agents_ready=1, beats_fresh=False)) == "unknown"


def test_an_unknown_idle_time_keeps_a_cluster_awake() -> None:
    assert not sleep(HibernateRules(), None).sleeps


def test_a_load_must_be_strictly_below_what_the_rules_state() -> None:
    assert sleep(HibernateRules(load_below_percent=10), 0.0).sleeps
    assert gate(sleep(HibernateRules(load_below_percent=0), 0.0)) == "load_below"


def test_without_rules_a_cluster_sleeps_after_the_default_and_a_persistent_one_never() -> None:
    after = POLICY.hibernate_after_seconds
    assert not sleep(None, after - 1).sleeps
    assert sleep(None, after).sleeps
    assert not sleep(None, 1e9, view={"persistent": True}).sleeps
    assert sleep(HibernateRules(idle_seconds=5), 5, view={"persistent": True}).sleeps


@pytest.mark.parametrize("reserve", [{"idle_workers": 1}, {"buffer_workers": 1}])
def test_a_cluster_that_keeps_a_reserve_sleeps_only_by_its_own_rules(reserve: dict[str, Any]) -> None:
    policy = replace(POLICY, **reserve)
    assert not sleep(policy=policy).sleeps
    assert sleep(HibernateRules(idle_seconds=5), policy=policy).sleeps


def test_a_job_that_is_due_within_the_horizon_keeps_a_cluster_awake() -> None:
    assert gate(sleep(held=1, next_due=59.9)) == "eta_horizon"
    assert sleep(held=1, next_due=60.0).sleeps
    assert sleep(held=1, next_due=9.0, policy=replace(POLICY, hibernate_eta_horizon_seconds=5)).sleeps


def test_a_schedule_keeps_a_cluster_awake_and_so_does_one_that_is_about_to_begin() -> None:
    assert gate(sleep(view={"floor": 1})) == "schedule"
    assert gate(sleep(view={"next_floor": 30.0})) == "eta_horizon"
    assert sleep(view={"next_floor": 61.0}).sleeps


@pytest.mark.parametrize(
    ("rest", "held"),
    [
        ({}, None), ({"paused": "in"}, "paused"), ({"paused": "out"}, None), ({"paused": "both"}, "paused"),
        ({"dry_run": True}, "dry_run"), ({"dry_run": True, "paused": "in"}, "dry_run"),
    ],
)  # fmt: skip
def test_falling_asleep_is_a_way_down(rest: dict[str, Any], held: str | None) -> None:
    found = sleep(policy=replace(POLICY, **rest))
    assert (found.sleeps, found.held.gate if found.held else None) == (held is None, held)


# --- waking -----------------------------------------------------------------------------------------------------


def wake(
    a: GroupSignals = NOBODY, b: GroupSignals = NOBODY, *, policy: ScalingPolicy = POLICY,
    reactivate: ReactivateRules | None = None, asleep: int = 0, fired: str | None = None, ahead: float = 2.0,
    **view: Any,
) -> Wake:  # fmt: skip
    found = view_of(policy, Lifecycle(reactivate=reactivate or ReactivateRules()), None, **view)
    signals = {"boss": NOBODY, "a": a, "b": b}
    return waking(found, signals, asleep_backlog=asleep, look_ahead=ahead, fired=fired)


def waits(ready: int, **rest: Any) -> GroupSignals:
    return GroupSignals(ready=ready, running=0, **rest)


def test_a_job_wakes_its_cluster_with_what_each_group_needs() -> None:
    found = wake(waits(1))
    assert (found.wakes, found.groups, found.reason) == (True, {"a": 1}, "1 jobs wait for a sleeping cluster")
    assert wake(waits(11), waits(1)).groups == {"a": 3, "b": 2}  # b has at least two
    assert wake(waits(500)).groups == {"a": 10}
    assert not wake().wakes


def test_jobs_that_waited_when_sleep_was_asked_for_do_not_count() -> None:
    assert not wake(waits(3), asleep=3).wakes
    assert wake(waits(4), asleep=3).wakes


def test_jobs_wake_nobody_whose_triggers_leave_them_out() -> None:
    rules = ReactivateRules(new_task_received=False)
    found = wake(waits(9, held=1, next_due=0.0), reactivate=rules)
    assert (found.wakes, found.wake_in, found.held) == (False, None, {})
    assert wake(reactivate=rules, fired="0 8 * * *").wakes


def test_the_activation_threshold_is_strict() -> None:
    policy = replace(POLICY, activation_threshold=3)
    found = wake(waits(3), policy=policy)
    assert (found.wakes, found.held["cluster"].gate, found.held["cluster"].wanted) == (False, "activation_threshold", 1)
    assert wake(waits(4), policy=policy).wakes
    assert wake(waits(5), policy=policy, asleep=2).held["cluster"].gate == "activation_threshold"


def test_a_job_with_an_eta_wakes_its_group_at_the_due_time_less_the_start_time() -> None:
    found = wake(NOBODY, waits(0, held=1, next_due=10.0, start_time=4.0))
    assert (found.wakes, found.wake_in) == (False, 6.0)
    found = wake(NOBODY, waits(0, held=1, next_due=6.0, start_time=4.0))
    assert (found.wakes, found.groups, found.reason) == (True, {"b": 2}, "a job is due in 6.0 s")  # its minimum
    assert wake(waits(0, held=1, next_due=2.3)).wakes  # a start of 0.3 s is assumed until one was measured
    assert not wake(waits(0, held=1, next_due=2.4)).wakes
    assert wake(waits(0, held=1, next_due=2.4), ahead=2.2).wakes


def test_the_soonest_of_all_groups_and_schedules_wakes() -> None:
    late, soon = waits(0, held=1, next_due=100.0, start_time=1.0), waits(0, held=1, next_due=50.0, start_time=5.0)
    assert wake(late, soon).wake_in == 45.0
    assert wake(late, soon, next_floor=30.0).wake_in == 25.0  # less the longest start
    assert soonest(None, 3.0, 2.0) == 2.0
    assert soonest(None) is None


def test_a_job_that_is_due_is_worth_waking_for_below_the_activation_threshold() -> None:
    found = wake(waits(1), waits(0, held=1, next_due=1.0), policy=replace(POLICY, activation_threshold=3))
    assert (found.wakes, found.groups) == (True, {"a": 1, "b": 2})


def test_a_schedule_wakes_a_start_before_it_begins() -> None:
    assert wake(floor=2).wakes
    assert wake(next_floor=2.0).wakes
    assert wake(next_floor=2.3).wakes
    assert not wake(next_floor=2.4).wakes


def test_a_fired_cron_wakes() -> None:
    found = wake(fired="2026-01-05T08:00:00+00:00")
    assert (found.wakes, found.reason) == (True, "a schedule of reactivate_triggers fired at 2026-01-05T08:00:00+00:00")


@pytest.mark.parametrize("other", [{"fired": "0 8 * * *"}, {"floor": 1}, {"next_floor": 1.0}])
def test_jobs_below_the_activation_threshold_let_no_schedule_be_missed(other: dict[str, Any]) -> None:
    assert wake(waits(2), policy=replace(POLICY, activation_threshold=3), **other).wakes


@pytest.mark.parametrize(
    ("rest", "held"),
    [
        ({}, None), ({"paused": "in"}, None), ({"paused": "out"}, "paused"), ({"paused": "both"}, "paused"),
        ({"dry_run": True}, "dry_run"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cause", [{"a": waits(11)}, {"fired": "x"}, {"floor": 1}, {"a": waits(0, next_due=0.0)}])
def test_waking_is_a_way_up(rest: dict[str, Any], held: str | None, cause: dict[str, Any]) -> None:
    found = wake(**cause, policy=replace(POLICY, **rest))
    assert (found.wakes, found.held["cluster"].gate if found.held else None) == (held is None, held)


@given(
    st.integers(0, 20), st.integers(0, 20), st.none() | st.floats(0, 100), st.none() | st.floats(0, 10),
    st.integers(0, 5), st.integers(0, 5), st.none() | st.just("x"), st.integers(0, 2),
    st.none() | st.floats(0, 100), st.floats(0.5, 5),
)  # fmt: skip
def test_no_wake_up_is_ever_lost(
    ready: int, other: int, due: float | None, start: float | None, asleep: int, threshold: int, fired: str | None,
    floor: int, rises: float | None, ahead: float,
) -> None:  # fmt: skip
    a, b = waits(ready, next_due=due, start_time=start), waits(other, start_time=start)
    policy = replace(POLICY, activation_threshold=threshold)
    found = wake(a, b, policy=policy, asleep=asleep, fired=fired, ahead=ahead, floor=floor, next_floor=rises)
    causes = (
        ready + other - asleep > threshold,
        due is not None and due - (0.3 if start is None else start) <= ahead,
        fired is not None,
        floor > 0,
        rises is not None and rises - (0.3 if start is None else start) <= ahead,
    )
    assert found.wakes == any(causes)
    # What is known to come and is not due yet is announced for a later look.
    if due is not None or rises is not None:
        assert found.wake_in is not None
        assume(not found.wakes)
        assert found.wake_in > ahead
