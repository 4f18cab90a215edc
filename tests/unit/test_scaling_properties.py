"""What holds for every cluster, by every policy, whatever it sees and in whatever order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from brain_clusters.domain.choosing import Situation, choose
from brain_clusters.domain.gates import GroupState
from brain_clusters.domain.planning import distribute
from brain_clusters.domain.scaling import CLUSTER, ClusterDecision, ClusterView, decide
from brain_clusters.domain.signals import GroupSignals, total
from brain_clusters.domain.sizing import metric_value, needed
from brain_clusters.domain.specs import (
    AgentGroup,
    Blueprint,
    Count,
    DestroyRules,
    HibernateRules,
    Lifecycle,
    ReactivateRules,
    ScalingPolicy,
)
from brain_clusters.domain.states import AgentRole, ClusterType
from brain_clusters.services import ledger

BOSS = AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False))
METRICS = ("task_queue_length",) * 3 + ("queue_latency", "cpu_usage", "load_percentage")

# Few values, and such that lie on edges: what is equal finds more than what is large.
seconds = st.sampled_from((0.0, 1.0, 4.0, 10.0, 60.0)) | st.floats(0, 100)
# Mostly without a window, or no way down would get far.
short = st.sampled_from((0.0, 0.0, 0.0, 4.0, 20.0))
positive = st.sampled_from((1.0, 4.0, 10.0, 60.0)) | st.floats(0.1, 100)
signal_values = st.builds(
    GroupSignals,
    ready=st.integers(0, 3) | st.integers(0, 12) | st.none() | st.integers(0, 500),
    running=st.just(0) | st.integers(0, 4) | st.integers(0, 12) | st.none(),
    reserved=st.just(0) | st.integers(0, 4),
    leaving=st.integers(0, 2),
    held=st.integers(0, 2),
    next_due=st.none() | st.floats(0, 100),
    agents_ready=st.integers(0, 12),
    agents_starting=st.integers(0, 3),
    agents_draining=st.integers(0, 3),
    beats_fresh=st.sampled_from((True, True, True, False)),
    slots=st.integers(1, 4),
    oldest_age=st.none() | seconds,
    arrival_rate=st.floats(0, 20),
    burst_rate=st.floats(0, 50),
    service_time=st.none() | st.floats(0, 20),
    start_time=st.none() | seconds,
    cpu_percent=st.none() | st.floats(0, 200),
)
# Quiet looks, or nothing would ever go down.
quiet_values = st.builds(
    GroupSignals,
    ready=st.integers(0, 1),
    running=st.integers(0, 4),
    reserved=st.integers(0, 1),
    agents_ready=st.integers(4, 12),
    beats_fresh=st.sampled_from((True, True, False)),
    slots=st.integers(1, 2),
    oldest_age=st.just(0.0),
    service_time=st.none() | st.just(0.1),
    cpu_percent=st.just(5.0),
)
looks = quiet_values | quiet_values | signal_values
policies = st.builds(
    ScalingPolicy,
    metric=st.sampled_from(METRICS),
    policy=st.sampled_from(("target",) * 4 + ("step",)),
    scale_up_threshold=st.sampled_from((0.0, 5.0, 50.0)) | st.floats(0, 100),
    scale_down_threshold=st.sampled_from((1.0, 10.0, 100.0)) | st.floats(0, 100),
    cooldown_seconds=short,
    target_latency_seconds=positive,
    target_utilization=st.floats(0.05, 1),
    queue_per_slot=st.integers(1, 6),
    activation_threshold=st.integers(0, 3),
    hibernate_after_seconds=seconds,
    hibernate_eta_horizon_seconds=seconds,
    panic_window_seconds=positive,
    panic_threshold=st.sampled_from((1.0, 2.0, 100.0)),
    tolerance=st.sampled_from((0.0, 0.0, 0.1, 0.5)),
    scale_up_stabilization_seconds=short,
    scale_up_max_percent=st.sampled_from((1.0, 50.0, 100.0, 900.0)),
    scale_up_max_workers=st.integers(1, 4),
    scale_up_period_seconds=positive,
    scale_down_stabilization_seconds=short,
    scale_down_consecutive=st.sampled_from((1, 1, 1, 3)),
    idle_workers=st.sampled_from((0, 0, 2, 7)),
    buffer_workers=st.sampled_from((0, 0, 2, 7)),
    fallback_failure_threshold=st.integers(1, 3),
    fallback_workers=st.integers(0, 5),
    paused=st.sampled_from(("no",) * 9 + ("in", "out", "both")),
    dry_run=st.sampled_from((False,) * 11 + (True,)),
)
counts = st.tuples(st.integers(0, 3), st.integers(0, 12)).map(lambda ends: Count(ends[0], sum(ends), scalable=True))
sizes = st.integers(0, 3).map(lambda size: Count(size, size, scalable=False))


@dataclass
class Tick:
    """One look: what went in and what came out. by_hand: what a person had added to each group just before."""

    view: ClusterView
    signals: Mapping[str, GroupSignals]
    state: Mapping[str, GroupState]
    now: float
    decision: ClusterDecision
    by_hand: Mapping[str, int] = field(default_factory=dict)

    @property
    def after(self) -> dict[str, int]:
        return {**self.view.targets, **self.decision.groups}

    def panics(self, name: str) -> bool:
        return name in self.decision.state and self.decision.state[name].panic_until > self.now


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    groups = [BOSS]
    for number in range(draw(st.integers(1, 2))):
        count = draw(counts if number == 0 else counts | sizes)
        role = AgentRole.WORKER if count.scalable else AgentRole.SPECIALIST
        groups.append(AgentGroup(f"g{number}", role, count))
    least, most = sum(group.count.minimum for group in groups), sum(group.count.maximum for group in groups)
    low = draw(st.integers(0, most)) if draw(st.integers(0, 3)) == 3 else 0
    high = draw(st.integers(max(low, least), most + 3)) if draw(st.integers(0, 3)) == 3 else most + 3
    lifecycle = Lifecycle(
        hibernate=draw(st.none() | st.builds(HibernateRules, idle_seconds=seconds)),
        destroy=DestroyRules(hibernated_seconds=draw(st.none() | seconds)),
        reactivate=ReactivateRules(new_task_received=draw(st.booleans())),
    )
    return Blueprint(
        "b", "B", "1", ClusterType.PROJECT, low, high, low, tuple(groups),
        scaling=draw(policies), lifecycle=lifecycle,
    )  # fmt: skip


def sized(draw: st.DrawFn, blueprint: Blueprint) -> dict[str, int]:
    """Counts as a person could ask for: within all bounds."""
    least = sum(group.count.minimum for group in blueprint.groups)
    most = sum(group.count.maximum for group in blueprint.groups)
    size = draw(st.integers(max(blueprint.min_workers, least), min(blueprint.max_workers, most)))
    return distribute(size, blueprint.groups, {group.name: draw(st.integers(0, 9)) for group in blueprint.groups})


@st.composite
def lives(draw: st.DrawFn) -> list[Tick]:
    """A cluster through some looks: what is decided is done at once, and now and then somebody scales by hand."""
    blueprint = draw(blueprints())
    targets, state, now, changed, unknown = sized(draw, blueprint), dict[str, GroupState](), 1000.0, 0.0, 0
    ticks: list[Tick] = []
    for _ in range(draw(st.integers(1, 8))):
        now, by_hand = now + draw(st.sampled_from((1.0, 2.0, 2.0, 15.0))), {}
        if draw(st.integers(0, 9)) == 0:
            scaled = sized(draw, blueprint)
            by_hand = {name: max(0, count - targets[name]) for name, count in scaled.items()}
            targets, changed = scaled, now
        view = ClusterView(
            blueprint, targets, blueprint.min_workers, blueprint.max_workers, now - changed, draw(seconds),
            unknown_ticks=unknown, floor=draw(st.sampled_from((0,) * 8 + (2, 5))),
        )  # fmt: skip
        signals = {group.name: draw(looks) for group in blueprint.groups if group is not BOSS}
        signals["boss"] = GroupSignals(ready=0, running=0, agents_ready=1, cpu_percent=1.0)
        decision = decide(view, signals, state, now)
        ticks.append(Tick(view, signals, state, now, decision, by_hand))
        unknown = unknown + 1 if any(gate.gate == "unknown" for gate in decision.held.values()) else 0
        if decision.groups:
            targets, changed = ticks[-1].after, now
        state = dict(decision.state)
    return ticks


many = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@many
@given(lives())
def test_no_count_ever_leaves_the_bounds_of_its_group_or_its_cluster(ticks: list[Tick]) -> None:
    for tick in ticks:
        for group in tick.view.blueprint.groups:
            assert group.count.minimum <= tick.after[group.name] <= group.count.maximum
        assert tick.view.min_workers <= sum(tick.after.values()) <= tick.view.max_workers
        assert all(count != tick.view.targets[name] for name, count in tick.decision.groups.items())


def shrunk(tick: Tick) -> list[str]:
    return [name for name, count in tick.decision.groups.items() if count < tick.view.targets[name]]


@many
@given(lives())
def test_nobody_who_is_busy_is_ever_taken_away(ticks: list[Tick]) -> None:
    for tick in ticks:
        for name in shrunk(tick):
            assert tick.after[name] >= tick.signals[name].busy_agents


@many
@given(lives())
def test_what_is_unknown_takes_nobody_away(ticks: list[Tick]) -> None:
    for tick in ticks:
        policy = tick.view.blueprint.scaling
        for name in shrunk(tick):
            seen = tick.signals[name] if policy.policy == "target" else total(tick.signals)
            assert seen.beats_fresh
            assert seen.backlog is not None
            assert metric_value(policy, seen) is not None


@many
@given(lives())
def test_nothing_goes_down_in_panic(ticks: list[Tick]) -> None:
    for tick in ticks:
        assert not [name for name in shrunk(tick) if tick.panics(name)]


@many
@given(lives())
def test_paused_directions_and_dry_runs_change_nothing(ticks: list[Tick]) -> None:
    for tick in ticks:
        policy = tick.view.blueprint.scaling
        grown = set(tick.decision.groups) - set(shrunk(tick))
        assert not (policy.dry_run and tick.decision.groups)
        assert not (policy.paused in ("in", "both") and shrunk(tick))
        assert not (policy.paused in ("out", "both") and grown)


@many
@given(lives())
def test_outside_panic_no_group_grows_faster_than_the_limit(ticks: list[Tick]) -> None:
    policy = ticks[0].view.blueprint.scaling
    assume(policy.policy == "target")
    for number, tick in enumerate(ticks):
        begin = tick.now - policy.scale_up_period_seconds
        within = [one for one in ticks[: number + 1] if one.now > begin]
        if sum(tick.after.values()) <= tick.view.fewest:
            continue  # a minimum or a schedule asks for them
        for name in tick.decision.groups:
            seen = tick.signals[name]
            known = metric_value(policy, seen) is not None and needed(policy, seen) is not None
            if tick.after[name] <= tick.view.targets[name] or tick.panics(name) or not known:
                continue
            first = within[0]
            # The count when the period began, and what somebody else added in it.
            base = first.view.targets[name] + sum(one.by_hand.get(name, 0) for one in within[1:])
            most = max(int(base * (1 + policy.scale_up_max_percent / 100)), base + policy.scale_up_max_workers)
            assert tick.after[name] <= most


@many
@given(lives())
def test_what_is_held_is_told_with_a_gate_a_sentence_and_a_count(ticks: list[Tick]) -> None:
    for tick in ticks:
        names = {group.name for group in tick.view.blueprint.groups} | {CLUSTER}
        assert set(tick.decision.held) <= names
        assert all(gate.gate and gate.reason and gate.wanted >= 0 for gate in tick.decision.held.values())
        assert tick.decision.reason


@many
@given(lives(), st.integers(0, 500))
def test_more_waiting_jobs_never_lead_to_fewer_agents(ticks: list[Tick], more: int) -> None:
    """One group, the same moment, view and memory. A wait that nobody knows holds all, so it is left out."""
    tick = ticks[-1]
    policy, name = tick.view.blueprint.scaling, tick.view.blueprint.groups[1].name
    group, seen = tick.view.blueprint.groups[1], tick.signals[tick.view.blueprint.groups[1].name]
    assume(group.count.scalable and seen.backlog is not None)
    assume(policy.metric != "queue_latency" or seen.oldest_age is not None)
    target, state = tick.view.targets[name], {k: v for k, v in tick.state.items() if k == name}
    # At zero, a panic that somebody's hand cut short is sized by what arrives, not by what once burst in.
    assume(target > 0 or name not in state or state[name].panic_until <= tick.now)
    blueprint = replace(tick.view.blueprint, groups=(BOSS, group), min_workers=0, max_workers=1000)
    view = replace(tick.view, blueprint=blueprint, targets={"boss": 1, name: target}, min_workers=0, max_workers=1000)
    boss = GroupSignals(ready=0, running=0, agents_ready=1)
    found = []
    for ready in (0, seen.ready or 0, (seen.ready or 0) + more):
        decision = decide(view, {"boss": boss, name: replace(seen, ready=ready)}, state, tick.now)
        found.append(decision.groups.get(name, target))
    assert found == sorted(found)


# --- purity and the record --------------------------------------------------------------------------------------


@many
@given(lives())
def test_the_same_look_decides_the_same(ticks: list[Tick]) -> None:
    for tick in ticks:
        assert decide(tick.view, tick.signals, tick.state, tick.now) == tick.decision


@many
@given(
    lives(),
    st.sampled_from(("asleep", "starting", "changing", "settled")),
    st.integers(0, 5),
    st.none() | seconds,
    st.none() | st.just("2026-01-01T00:00:00+00:00"),
    st.none() | seconds,
)
def test_a_choice_can_be_made_again_from_what_the_ledger_keeps(
    ticks: list[Tick], phase: Any, asleep: int, slept: float | None, fired: str | None, rises: float | None
) -> None:
    tick = ticks[-1]
    view = replace(tick.view, next_floor=rises)
    situation = Situation(view, phase, asleep_backlog=asleep, hibernated_seconds=slept, fired=fired)
    stored = json.loads(json.dumps(ledger.inputs(situation, tick.signals, tick.state, tick.now), allow_nan=False))
    choice = choose(situation, tick.signals, tick.state, tick.now)
    assert ledger.choose_again(stored, view.blueprint) == choice
    assert all(count >= 0 for count in choice.after(view.targets).values())
