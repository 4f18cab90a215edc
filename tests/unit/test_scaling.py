"""The autoscaler's decisions: the formula, the gates, the step rule, the bounds and hibernation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.scaling import (
    ClusterDecision,
    ClusterView,
    Decision,
    GroupSignals,
    as_inputs,
    decide,
    decide_group,
    decide_step,
    hibernation,
    metric_value,
    needed,
    total,
)
from brain_clusters.domain.specs import AgentGroup, Blueprint, Count, HibernateRules, Lifecycle, ScalingPolicy
from brain_clusters.domain.states import AgentRole, ClusterType

POLICY = ScalingPolicy(scale_up_threshold=10, scale_down_threshold=2, cooldown_seconds=60)
BOSS = AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False))
WORKERS = AgentGroup("workers", AgentRole.WORKER, Count(0, 20, scalable=True))
IDLE = GroupSignals(ready=0, running=0, agents_ready=1)


def seen(ready: int | None = 0, running: int | None = 0, **rest: Any) -> GroupSignals:
    return GroupSignals(ready=ready, running=running, **rest)


def decided(signals: GroupSignals, target: int, *, since: float = 1e9, policy: ScalingPolicy = POLICY) -> Decision:
    return decide_group(policy, WORKERS, signals, target=target, since_change=since)


# --- the formula ------------------------------------------------------------------------------------------------


def test_while_the_service_time_is_unknown_slots_and_queue_per_slot_size_the_group() -> None:
    assert needed(POLICY, seen(11, 0)) == 3  # ceil(11 / (1 * 5))
    assert needed(POLICY, seen(11, 4, slots=3)) == 1  # ceil(15 / (3 * 5))
    assert needed(replace(POLICY, queue_per_slot=1), seen(11, 4)) == 15


def test_with_a_known_service_time_the_backlog_is_drained_within_the_target_latency() -> None:
    # tau = max(30 - 0.5, 15, 1) = 29.5; need = ceil(1 * (2 + 295 / 29.5) / 0.8) = 15
    assert needed(POLICY, seen(295, 0, service_time=1.0, start_time=0.5, arrival_rate=2.0)) == 15


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


def test_what_runs_keeps_its_agents() -> None:
    assert needed(POLICY, seen(0, 7, service_time=0.01)) == 7
    assert needed(POLICY, seen(0, 7, service_time=0.01, slots=2)) == 4


@pytest.mark.parametrize("signals", [seen(None, 0), seen(0, None), seen(None, None), seen(None, 0, service_time=1.0)])
def test_an_unknown_backlog_needs_an_unknown_number(signals: GroupSignals) -> None:
    assert signals.backlog is None
    assert needed(POLICY, signals) is None


def test_usage_metrics_aim_midway_between_the_thresholds() -> None:
    policy = ScalingPolicy(metric="cpu_usage", scale_up_threshold=80, scale_down_threshold=20)
    assert needed(policy, seen(0, 0, agents_ready=4, cpu_percent=100.0)) == 8  # ceil(4 * 100 / 50)
    assert needed(policy, seen(0, 0, agents_ready=3, agents_starting=1, cpu_percent=25.0)) == 2
    assert needed(policy, seen(0, 0, agents_ready=4)) is None
    assert needed(replace(policy, scale_up_threshold=0, scale_down_threshold=0), seen(cpu_percent=1.0)) is None


def test_load_is_the_share_of_slots_that_have_work() -> None:
    assert seen(2, 4, agents_ready=3, slots=4).load_percent == 50.0
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


# --- one group --------------------------------------------------------------------------------------------------


def test_up_needs_a_metric_strictly_above_its_threshold() -> None:
    assert decided(seen(10, 0, agents_ready=1), 1) == Decision(
        1, "2 agents would be needed, but task_queue_length 10 is not above 10", held="scale_up_threshold"
    )
    assert decided(seen(11, 0, agents_ready=1), 1) == Decision(3, "11 jobs wait and 0 run: up from 1 to 3 agents")


def test_a_job_that_waits_longer_than_the_target_latency_opens_the_gate_too() -> None:
    assert decided(seen(6, 0, agents_ready=1, oldest_age=30.0), 1).held == "scale_up_threshold"
    assert decided(seen(6, 0, agents_ready=1, oldest_age=30.1), 1).target == 2


def test_down_needs_a_metric_strictly_below_its_threshold() -> None:
    assert decided(seen(2, 0, agents_ready=5), 5).held == "scale_down_threshold"
    assert decided(seen(1, 0, agents_ready=5), 5).target == 1


def test_down_waits_for_the_cooldown_and_up_does_not() -> None:
    hasty = replace(POLICY, scale_down_stabilization_seconds=0)
    assert decided(seen(0, 0, agents_ready=5), 5, since=59.9, policy=hasty).held == "cooldown"
    assert decided(seen(0, 0, agents_ready=5), 5, since=60.0, policy=hasty).target == 0
    assert decided(seen(50, 0, agents_ready=1), 1, since=0.0).target == 10


def test_down_waits_for_the_stabilization_window_too() -> None:
    assert decided(seen(0, 0, agents_ready=5), 5, since=299.9).held == "cooldown"
    assert decided(seen(0, 0, agents_ready=5), 5, since=300.0).target == 0


def test_from_zero_one_job_wakes_the_group_whatever_the_threshold() -> None:
    assert decided(seen(1, 0), 0).target == 1
    assert decided(seen(11, 0), 0).target == 3
    assert decided(seen(0, 0), 0) == Decision(0, "0 agents are right for 0 waiting and 0 running jobs")


def test_from_zero_the_activation_threshold_is_strict() -> None:
    policy = replace(POLICY, activation_threshold=3)
    assert decided(seen(3, 0), 0, policy=policy).target == 0
    assert decided(seen(4, 0), 0, policy=policy).target == 1


def test_from_zero_the_group_gets_at_least_its_minimum() -> None:
    group = replace(WORKERS, count=Count(2, 5, scalable=True))
    assert decide_group(POLICY, group, seen(1, 0), target=0, since_change=0).target == 2


def test_unknown_changes_nothing() -> None:
    assert decided(seen(None, None), 5) == Decision(5, "task_queue_length is unknown, so nothing changes", "unknown")
    assert decided(seen(0, None), 5).target == 5
    assert decided(seen(None, None), 0).target == 0
    assert decided(seen(0, 0, agents_ready=5, beats_fresh=False), 5).held == "unknown"


def test_a_missing_beat_does_not_hold_back_growth() -> None:
    assert decided(seen(50, 0, agents_ready=1, beats_fresh=False), 1).target == 10


def test_agents_that_leave_and_still_work_do_not_turn_a_way_down_into_one_up() -> None:
    # Two stay and have work, two more finish theirs before they leave.
    found = decided(seen(0, 4, agents_ready=2), 2)
    assert found.target == 2


signal_values = st.builds(
    GroupSignals,
    ready=st.none() | st.integers(0, 500),
    running=st.none() | st.integers(0, 50),
    agents_ready=st.integers(0, 20),
    agents_starting=st.integers(0, 5),
    beats_fresh=st.booleans(),
    slots=st.integers(1, 8),
    oldest_age=st.none() | st.floats(0, 1e6),
    arrival_rate=st.floats(0, 1e4),
    service_time=st.none() | st.floats(0, 1e5),
    start_time=st.none() | st.floats(0, 1e3),
    cpu_percent=st.none() | st.floats(0, 800),
)
policies = st.builds(
    ScalingPolicy,
    metric=st.sampled_from(("task_queue_length", "queue_latency", "cpu_usage", "load_percentage")),
    policy=st.sampled_from(("target", "step")),
    scale_up_threshold=st.floats(0, 100),
    scale_down_threshold=st.floats(0, 100),
    cooldown_seconds=st.floats(0, 100),
    activation_threshold=st.integers(0, 5),
)
counts = st.tuples(st.integers(0, 4), st.integers(0, 6)).map(lambda ends: Count(ends[0], sum(ends), scalable=True))


@given(policies, counts, signal_values, st.integers(0, 10), st.floats(0, 1000))
def test_a_group_stays_within_its_count_and_is_never_shrunk_by_what_is_unknown(
    policy: ScalingPolicy, count: Count, signals: GroupSignals, more: int, since: float
) -> None:
    target = min(count.minimum + more, count.maximum)
    found = decide_group(policy, replace(WORKERS, count=count), signals, target=target, since_change=since)
    assert count.minimum <= found.target <= count.maximum
    if found.target < target:
        assert signals.beats_fresh
        assert metric_value(policy, signals) is not None
        assert since >= policy.cooldown_seconds
        assert found.target * signals.slots >= (signals.running or 0)
    if found.held:
        assert found.target == target


@given(signal_values, st.integers(0, 500), st.integers(0, 50), st.integers(1, 400))
def test_more_waiting_jobs_never_need_fewer_agents(signals: GroupSignals, ready: int, running: int, more: int) -> None:
    known = replace(signals, ready=ready, running=running)
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
    assert decide_step(POLICY, 11, 5, (0, 99), 59.9) == Decision(5, "the cooldown lasts 0 s more", "cooldown")
    assert decide_step(POLICY, 1, 5, (0, 99), 59.9).held == "cooldown"
    assert decide_step(POLICY, None, 5, (0, 99), 60).held == "unknown"


@given(st.floats(0, 100) | st.none(), st.integers(0, 30), st.integers(0, 20), st.integers(0, 20))
def test_a_step_leads_into_the_bounds_or_nowhere(value: float | None, n: int, low: int, more: int) -> None:
    found = decide_step(POLICY, value, n, (low, low + more), 60)
    assert found.target == n or low <= found.target <= low + more


# --- a whole cluster --------------------------------------------------------------------------------------------


def view_of(
    groups: tuple[AgentGroup, ...], targets: Mapping[str, int], *, low: int = 0, high: int = 100,
    policy: ScalingPolicy = POLICY, since: float = 1e9, lifecycle: Lifecycle | None = None, **rest: Any,
) -> ClusterView:  # fmt: skip
    blueprint = Blueprint(
        id="b", name="B", version="1", cluster_type=ClusterType.PROJECT, min_workers=low, max_workers=high,
        default_workers=low, groups=groups, scaling=policy, lifecycle=lifecycle or Lifecycle(),
    )  # fmt: skip
    rest.setdefault("idle_seconds", 0.0)
    return ClusterView(blueprint, targets, low, high, since, **rest)


def worker_group(name: str, low: int = 0, high: int = 10) -> AgentGroup:
    return AgentGroup(name, AgentRole.WORKER, Count(low, high, scalable=True))


A, B = worker_group("a"), worker_group("b")


def test_only_groups_whose_count_changes_are_in_a_decision() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 1})
    found = decide(view, {"boss": IDLE, "a": seen(20, 0, agents_ready=1), "b": seen(5, 0, agents_ready=1)})
    assert found.groups == {"a": 4}
    assert found.reason == "a: 20 jobs wait and 0 run: up from 1 to 4 agents"
    assert "b" not in found.held


def test_fixed_groups_never_change() -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 0})
    assert decide(view, {"boss": seen(500, 1, agents_ready=1), "a": seen()}).groups == {}


def test_when_the_maximum_cuts_the_group_with_the_fewest_waiting_jobs_per_agent_gives_way() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 1}, high=7)
    found = decide(view, {"boss": IDLE, "a": seen(50, 0, agents_ready=1), "b": seen(25, 0, agents_ready=1)})
    assert found.groups == {"a": 4, "b": 2}


def test_the_minimum_of_the_cluster_keeps_agents_where_they_are() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 0, "b": 3}, low=3)
    found = decide(view, {"boss": IDLE, "a": seen(), "b": seen(0, 0, agents_ready=3)})
    assert found.groups == {"b": 2}


def test_the_maximum_takes_no_agent_from_a_group_that_nobody_knows_about() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 5, "b": 1}, high=8)
    signals = {"boss": IDLE, "a": seen(None, None), "b": seen(50, 1, agents_ready=1)}
    assert decide(view, signals).groups == {"b": 2}
    silent = {**signals, "a": seen(0, 5, agents_ready=5, beats_fresh=False)}
    assert decide(view, silent).groups == {"b": 2}


def test_during_the_cooldown_the_maximum_moves_no_agent_from_one_group_to_another() -> None:
    signals = {"boss": IDLE, "a": seen(30, 3, agents_ready=3), "b": seen(60, 3, agents_ready=3)}
    targets = {"boss": 1, "a": 3, "b": 3}
    assert decide(view_of((BOSS, A, B), targets, high=7, since=1.0), signals).groups == {}
    assert decide(view_of((BOSS, A, B), targets, high=7), signals).groups == {"a": 2, "b": 4}


def test_a_change_that_the_bounds_make_impossible_is_not_asked_for_at_every_tick() -> None:
    # Three fixed agents and a minimum of two do not fit into a maximum of three.
    crew = AgentGroup("crew", AgentRole.SPECIALIST, Count(2, 2, scalable=False))
    view = view_of((BOSS, crew, worker_group("a", 2, 5)), {"boss": 1, "crew": 2, "a": 0}, high=3)
    found = decide(view, {"boss": IDLE, "crew": IDLE, "a": seen(9, 0)})
    assert found.groups == {}
    assert "cluster" in found.held


def test_a_step_down_that_would_take_a_fixed_agent_is_not_asked_for() -> None:
    crew = AgentGroup("crew", AgentRole.SPECIALIST, Count(3, 3, scalable=False))
    view = view_of((BOSS, crew), {"boss": 1, "crew": 3}, low=1, policy=replace(POLICY, policy="step"))
    assert decide(view, {"boss": IDLE, "crew": seen(0, 0, agents_ready=3)}).groups == {}


def test_a_step_is_shared_among_the_groups_by_backlog() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 2, "b": 2}, policy=replace(POLICY, policy="step"))
    found = decide(view, {"boss": IDLE, "a": seen(40, 2, agents_ready=2), "b": seen(20, 2, agents_ready=2)})
    assert found.groups == {"a": 3, "b": 3}  # int(5 * 1.2) + 1 = 7: two more, one each for 42 and 22 jobs


def test_a_step_up_takes_no_agent_from_any_group() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 4, "b": 0}, policy=replace(POLICY, policy="step"))
    found = decide(view, {"boss": IDLE, "a": seen(0, 4, agents_ready=4), "b": seen(40, 0)})
    assert found.groups == {"b": 2}


def test_a_step_down_waits_for_missing_beats() -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 9}, policy=replace(POLICY, policy="step"))
    assert decide(view, {"boss": IDLE, "a": seen(0, 0, agents_ready=9)}).groups == {"a": 7}
    assert decide(view, {"boss": IDLE, "a": seen(0, 0, agents_ready=9, beats_fresh=False)}).groups == {}


@st.composite
def clusters(draw: st.DrawFn) -> tuple[ClusterView, dict[str, GroupSignals]]:
    """A cluster as the services would leave it: counts within the bounds, fixed groups first."""
    from brain_clusters.domain.planning import distribute

    groups = [BOSS]
    for number in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 3)):
            groups.append(replace(WORKERS, name=f"g{number}", count=draw(counts)))
        else:
            size = draw(st.integers(0, 3))
            groups.append(AgentGroup(f"g{number}", AgentRole.SPECIALIST, Count(size, size, scalable=False)))
    capacity = sum(group.count.maximum for group in groups)
    low = draw(st.integers(0, capacity))
    high = draw(st.integers(max(1, low), 30 + low))
    waiting = {group.name: draw(st.integers(0, 9)) for group in groups}
    targets = distribute(draw(st.integers(low, min(high, capacity) or 1)), groups, waiting)
    view = view_of(tuple(groups), targets, low=low, high=high, policy=draw(policies), since=draw(st.floats(0, 200)))
    return view, {group.name: draw(signal_values) for group in groups}


@given(clusters())
def test_what_is_decided_can_be_carried_out(found: tuple[ClusterView, dict[str, GroupSignals]]) -> None:
    view, signals = found
    decision = decide(view, signals)
    if not decision.groups:
        return
    ranges = {group.name: group.count for group in view.blueprint.groups}
    for name, count in decision.groups.items():
        assert ranges[name].minimum <= count <= ranges[name].maximum
        assert count != view.targets[name]
    assert view.min_workers <= sum({**view.targets, **decision.groups}.values()) <= view.max_workers


@given(clusters())
def test_no_cluster_shrinks_while_a_beat_is_missing(found: tuple[ClusterView, dict[str, GroupSignals]]) -> None:
    view, signals = found
    silent = {name: replace(one, beats_fresh=False) for name, one in signals.items()}
    decision = decide(view, silent)
    assert all(count > view.targets[name] for name, count in decision.groups.items())


# --- sleep ------------------------------------------------------------------------------------------------------


def sleeps(view: ClusterView, **signals: Any) -> bool:
    return hibernation(view, total({"boss": IDLE, "a": seen(**signals)})) is not None


def sleeper(rules: HibernateRules | None, idle: float | None, *, persistent: bool = False) -> ClusterView:
    lifecycle = Lifecycle(hibernate=rules)
    return view_of((BOSS, A), {"boss": 1}, lifecycle=lifecycle, idle_seconds=idle, persistent=persistent)


def test_an_idle_cluster_sleeps_after_the_time_that_its_rules_state() -> None:
    rules = HibernateRules(idle_seconds=60)
    assert not sleeps(sleeper(rules, 59.9))
    assert sleeps(sleeper(rules, 60.0))


@pytest.mark.parametrize(
    "signals",
    [{"ready": 1}, {"running": 1}, {"ready": None}, {"running": None}, {"agents_ready": 1, "beats_fresh": False}],
)
def test_work_and_whatever_is_unknown_keep_a_cluster_awake(signals: dict[str, Any]) -> None:
    assert not sleeps(sleeper(HibernateRules(), 1e9), **signals)


def test_an_unknown_idle_time_keeps_a_cluster_awake() -> None:
    assert not sleeps(sleeper(HibernateRules(), None))


def test_a_load_must_be_strictly_below_what_the_rules_state() -> None:
    assert sleeps(sleeper(HibernateRules(load_below_percent=10), 0.0))
    assert not sleeps(sleeper(HibernateRules(load_below_percent=0), 0.0))


def test_without_rules_a_cluster_sleeps_after_the_default_and_a_persistent_one_never() -> None:
    after = POLICY.hibernate_after_seconds
    assert not sleeps(sleeper(None, after - 1))
    assert sleeps(sleeper(None, after))
    assert not sleeps(sleeper(None, 1e9, persistent=True))
    assert sleeps(sleeper(HibernateRules(idle_seconds=5), 5, persistent=True))


# --- sums -------------------------------------------------------------------------------------------------------


def test_a_cluster_is_the_sum_of_its_groups_and_as_late_as_the_latest() -> None:
    whole = total(
        {
            "a": seen(3, 1, agents_ready=2, slots=4, oldest_age=2.0, cpu_percent=50.0),
            "b": seen(4, 2, agents_ready=2, agents_starting=1, slots=2, oldest_age=7.0, cpu_percent=100.0),
        }
    )
    assert (whole.ready, whole.running, whole.agents_ready, whole.agents_starting) == (7, 3, 4, 1)
    assert (whole.slots, whole.oldest_age, whole.cpu_percent) == (3, 7.0, 75.0)
    assert whole.beats_fresh


def test_one_unknown_group_makes_the_sum_unknown_and_so_does_none_at_all() -> None:
    assert total({"a": seen(3, 1), "b": seen(None, 1)}).backlog is None
    assert not total({"a": seen(), "b": seen(beats_fresh=False)}).beats_fresh
    assert total({}).backlog is None


@given(st.dictionaries(st.text(max_size=5), signal_values, max_size=3))
def test_inputs_are_json_that_says_what_is_unknown(signals: dict[str, GroupSignals]) -> None:
    stored = json.loads(json.dumps(as_inputs(signals), allow_nan=False))
    assert {name: GroupSignals(**found) for name, found in stored.items()} == signals
    assert all(math.isfinite(found["arrival_rate"]) for found in stored.values())


@pytest.mark.parametrize(
    ("paused", "ready", "targets", "may"),
    [
        ("no", 50, 1, True), ("in", 50, 1, True), ("out", 50, 1, False), ("both", 50, 1, False),
        ("no", 0, 5, True), ("in", 0, 5, False), ("out", 0, 5, True), ("both", 0, 5, False),
    ],
)  # fmt: skip
def test_a_paused_direction_is_held_and_the_other_is_not(paused: str, ready: int, targets: int, may: bool) -> None:
    found = _one_group(replace(POLICY, paused=paused), ready, targets)  # type: ignore[arg-type]
    assert bool(found.groups) is may
    assert may or found.held["cluster"].startswith("paused: ")


def test_a_dry_run_says_what_it_would_do_and_does_nothing() -> None:
    found = _one_group(replace(POLICY, dry_run=True), 50, 1)
    assert not found.groups
    assert found.held["cluster"].startswith("dry_run: ")


def _one_group(policy: ScalingPolicy, ready: int, target: int) -> ClusterDecision:
    head = AgentGroup("Head", AgentRole.SUPERVISOR, Count(1, 1, scalable=False))
    hands = AgentGroup("Hands", AgentRole.WORKER, Count(0, 20, scalable=True))
    blueprint = Blueprint("b", "B", "1", ClusterType.PROJECT, 0, 30, 1, (head, hands), scaling=policy)
    view = ClusterView(blueprint, {"Head": 1, "Hands": target}, 0, 30, since_change=1e9, idle_seconds=0.0)
    signals = {"Head": seen(0, 0, agents_ready=1), "Hands": seen(ready, 0, agents_ready=target)}
    return decide(view, signals)
