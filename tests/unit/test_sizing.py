"""How many agents a group needs: the target formula, the metrics and the step rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.engines import default_start_seconds
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.sizing import Sized, decide_step, metric_value, needed, start_seconds
from brain_clusters.domain.specs import MAX_COUNT, ScalingPolicy

# With a stated window, and by the formula alone; the learned window and the payback have tests of their own.
POLICY = ScalingPolicy(
    scale_up_threshold=10, scale_down_threshold=2, cooldown_seconds=60, payback_seconds=0,
    scale_down_stabilization_seconds=300,
)  # fmt: skip


def seen(ready: int | None = 0, running: int | None = 0, **rest: Any) -> GroupSignals:
    return GroupSignals(ready=ready, running=running, **rest)


# --- the formula ------------------------------------------------------------------------------------------------


def test_while_the_service_time_is_unknown_slots_and_queue_per_slot_size_the_group() -> None:
    assert needed(POLICY, seen(11, 0)) == 3  # ceil(11 / (1 * 5))
    assert needed(POLICY, seen(11, 4, slots=3)) == 1  # ceil(15 / (3 * 5))
    assert needed(replace(POLICY, queue_per_slot=1), seen(11, 4)) == 15
    assert needed(replace(POLICY, queue_per_slot=1), seen(11, 3, reserved=1)) == 15


def test_with_a_known_service_time_the_backlog_is_drained_within_the_target_latency() -> None:
    # tau = max(30 - 0.5, 15, 1) = 29.5; need = ceil(1 * (2 + 295 / 29.5) / 0.8) = 15
    assert needed(POLICY, seen(295, 0, service_time=1.0, start_time=0.5, arrival_rate=2.0)) == 15
    assert needed(POLICY, seen(200, 0, reserved=95, service_time=1.0, start_time=0.5, arrival_rate=2.0)) == 95
    assert needed(POLICY, seen(285, 0, reserved=10, service_time=1.0, start_time=0.5, arrival_rate=2.0)) == 15


def test_jobs_that_are_late_do_not_wait_for_agents_that_are_busy_with_longer_ones() -> None:
    stuck = {"service_time": 0.5, "start_time": 0.3, "agents_ready": 4}
    assert needed(POLICY, seen(20, 4, oldest_age=30.0, **stuck)) == 4
    assert needed(POLICY, seen(20, 4, oldest_age=30.1, **stuck)) == 5  # 4 + ceil(0.5 * 20 / 29.7 / 0.8)
    assert needed(POLICY, seen(20, 5, oldest_age=60.0, **stuck)) == 6  # as long as they are late
    assert needed(POLICY, seen(1, 0, oldest_age=60.0, **stuck)) == 1


def test_another_rate_replaces_the_one_of_the_signals() -> None:
    found = seen(295, 0, service_time=1.0, start_time=0.5, arrival_rate=2.0, burst_rate=10.0)
    assert needed(POLICY, found, found.burst_rate) == 25  # ceil(1 * (10 + 10) / 0.8)


def test_a_service_time_beyond_the_target_latency_is_the_horizon() -> None:
    # tau = S = 100; need = ceil(100 * (0 + 8 / 100) / 0.8) = 10, cap = 8: there are no more jobs than that
    assert needed(POLICY, seen(8, 0, service_time=100.0)) == 8


def test_a_slow_start_takes_at_most_half_of_the_target_latency() -> None:
    # tau = max(30 - 29, 15, 1) = 15; need = ceil(1 * 120 / 15 / 0.8) = 10
    assert needed(POLICY, seen(120, 0, service_time=1.0, start_time=29.0)) == 10


def test_never_more_agents_than_jobs_that_they_could_do() -> None:
    assert needed(POLICY, seen(3, 0, service_time=1000.0)) == 3
    assert needed(POLICY, seen(3, 0, service_time=1000.0, slots=2)) == 2
    # cap = ceil(3 + 4 * 0.5): those that arrive while an agent starts count
    assert needed(POLICY, seen(3, 0, service_time=1000.0, arrival_rate=4.0, start_time=0.5)) == 5


def test_what_runs_or_is_reserved_keeps_its_agents() -> None:
    assert needed(POLICY, seen(0, 7, service_time=0.01)) == 7
    assert needed(POLICY, seen(0, 7, service_time=0.01, slots=2)) == 4
    assert needed(POLICY, seen(0, 4, reserved=3, service_time=0.01)) == 7


def test_a_rate_that_has_all_but_died_away_is_no_agent() -> None:
    assert needed(POLICY, seen(0, 0, service_time=1.0, arrival_rate=1e-9)) == 0


def test_no_rate_asks_for_more_agents_than_a_count_can_be() -> None:
    assert needed(POLICY, seen(0, 0, service_time=1e5, arrival_rate=1e6)) == MAX_COUNT


@pytest.mark.parametrize("signals", [seen(None, 0), seen(0, None), seen(None, None), seen(None, 0, service_time=1.0)])
def test_an_unknown_backlog_needs_an_unknown_number(signals: GroupSignals) -> None:
    assert signals.backlog is None
    assert needed(POLICY, signals) is None


def test_waiting_work_pays_for_agents_that_the_target_would_not_ask_for() -> None:
    burst = seen(100, 0, service_time=1.0, start_time=0.5)
    assert needed(POLICY, burst) == 5  # ceil(100 / 29.5 / 0.8): the target latency alone
    assert needed(replace(POLICY, payback_seconds=9.5), burst) == 10  # 100 s of work, one agent for each 0.5 + 9.5 s
    assert needed(replace(POLICY, payback_seconds=9.5), replace(burst, start_time=20.5)) == 9  # ceil(100 / 15 / 0.8)
    assert needed(replace(POLICY, payback_seconds=0.5), replace(burst, ready=3)) == 3  # never more than there are jobs


def test_while_the_service_time_is_unknown_it_is_as_long_as_jobs_have_run_so_far() -> None:
    # tau = 30 s; need = ceil(60 * 3 / 60 / 0.8), and by length ceil(4 / 5) = 1
    assert needed(POLICY, seen(3, 1, running_age=60.0)) == 4
    assert needed(POLICY, seen(3, 1, running_age=0.1)) == 1
    assert needed(POLICY, seen(3, 1, running_age=60.0, service_time=0.1)) == 1


def test_held_jobs_that_are_due_soon_count_like_waiting_ones() -> None:
    assert needed(POLICY, seen(0, 0, held=300, due_soon=100)) == 20  # ceil(100 / 5)
    assert needed(POLICY, seen(0, 0, held=300)) == 0


def test_usage_metrics_aim_midway_between_the_thresholds() -> None:
    policy = ScalingPolicy(metric="cpu_usage", scale_up_threshold=80, scale_down_threshold=20)
    assert needed(policy, seen(0, 0, agents_ready=4, cpu_percent=100.0)) == 8  # ceil(4 * 100 / 50)
    assert needed(policy, seen(0, 0, agents_ready=3, agents_starting=1, cpu_percent=25.0)) == 2
    assert needed(policy, seen(0, 0, agents_ready=4)) is None
    assert needed(replace(policy, scale_up_threshold=0, scale_down_threshold=0), seen(cpu_percent=1.0)) is None
    load = replace(policy, metric="load_percentage")
    assert needed(load, seen(2, 4, agents_ready=3, slots=4)) == 3  # ceil(3 * 50 / 50)
    assert needed(load, seen(None, 4, agents_ready=3)) is None


# --- the metrics ------------------------------------------------------------------------------------------------


def test_load_is_the_share_of_slots_that_have_work() -> None:
    assert seen(2, 4, agents_ready=3, slots=4).load_percent == 50.0
    assert seen(1, 3, reserved=2, agents_ready=3, slots=4).load_percent == 50.0
    assert seen(1, 0).load_percent == 100.0
    assert seen(0, 0).load_percent == 0.0
    assert seen(None, 0, agents_ready=1).load_percent is None


def test_each_metric_reads_its_own_signal() -> None:
    signals = seen(6, 2, agents_ready=4, oldest_age=3.5, cpu_percent=42.0)
    found = {
        name: metric_value(ScalingPolicy(metric=name), signals)  # type: ignore[arg-type]
        for name in ("task_queue_length", "queue_latency", "cpu_usage", "load_percentage")
    }
    assert found == {"task_queue_length": 6, "queue_latency": 3.5, "cpu_usage": 42.0, "load_percentage": 200.0}
    latency = ScalingPolicy(metric="queue_latency")
    assert metric_value(latency, seen(0, 0)) == 0.0
    assert metric_value(latency, seen(5, 0)) is None  # messages without a stamp have no age


@given(
    st.integers(0, 500),
    st.integers(0, 50),
    st.integers(0, 20),
    st.integers(1, 400),
    st.integers(1, 8),
    st.none() | st.floats(0, 1e5),
    st.floats(0, 1e4),
)
def test_more_waiting_jobs_never_need_fewer_agents(
    ready: int, running: int, reserved: int, more: int, slots: int, service: float | None, rate: float
) -> None:
    known = seen(ready, running, reserved=reserved, slots=slots, service_time=service, arrival_rate=rate)
    few, many = needed(POLICY, known), needed(POLICY, replace(known, ready=ready + more))
    assert few is not None
    assert many is not None
    assert few <= many


# --- the step rule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 31))
def test_the_step_rule_is_the_reference_rule_exactly(n: int) -> None:
    assert decide_step(POLICY, 11, n, (0, 1000), 60).target == int(n * 1.2) + 1
    assert decide_step(POLICY, 1, n, (0, 1000), 60).target == int(n * 0.8)


def test_a_step_compares_strictly_and_waits_for_the_cooldown_both_ways() -> None:
    for value in (2, 5, 10):
        assert decide_step(POLICY, value, 5, (0, 99), 60).target == 5
    found = decide_step(POLICY, 11, 5, (0, 99), 50.0)
    assert found == Sized(5, "7 agents are wanted, but the cooldown lasts 10 s more", "cooldown")
    assert decide_step(POLICY, 11, 5, (0, 99), 59.9).held == "cooldown"
    assert decide_step(POLICY, 1, 5, (0, 99), 59.9).held == "cooldown"
    assert decide_step(POLICY, None, 5, (0, 99), 60).held == "unknown"


def test_a_step_that_its_bounds_forbid_is_no_change_that_a_gate_holds() -> None:
    found = decide_step(POLICY, 11, 5, (0, 5), 0.0)
    assert (found.target, found.held) == (5, None)
    assert "5 is the limit already" in found.reason


@given(st.floats(0, 100) | st.none(), st.integers(0, 30), st.integers(0, 20), st.integers(0, 20))
def test_a_step_leads_into_the_bounds_or_nowhere(value: float | None, n: int, low: int, more: int) -> None:
    found = decide_step(POLICY, value, n, (low, low + more), 60)
    assert found.target == n or low <= found.target <= low + more


def test_before_starts_were_measured_the_engine_tells_how_long_they_take() -> None:
    assert start_seconds(GroupSignals()) == default_start_seconds("process")
    pod = GroupSignals(usual_start=default_start_seconds("kubernetes"))
    assert start_seconds(pod) == default_start_seconds("kubernetes") > default_start_seconds("docker")
    assert start_seconds(replace(pod, start_time=9.0)) == 9.0
