"""What is said to need no look would come to nothing, whatever the cluster, and whatever is remembered of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from brain_clusters.domain.choosing import Situation, choose
from brain_clusters.domain.gates import within
from brain_clusters.domain.resting import rests_for, sleeps_on
from brain_clusters.domain.scaling import ClusterView
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import (
    AgentGroup,
    Blueprint,
    Count,
    DestroyRules,
    HibernateRules,
    Lifecycle,
    ReactivateRules,
    ScalingPolicy,
    ScalingSchedule,
)
from brain_clusters.domain.states import AgentRole, ClusterType
from brain_clusters.domain.windows import GroupState

seconds = st.sampled_from((0.0, 1.0, 60.0, 300.0)) | st.floats(0, 1000)
few = st.integers(0, 4)
NOW = 1000.0
NIGHT = (ScalingSchedule("0 3 * * *", "0 4 * * *", 2),)

policies = st.builds(
    ScalingPolicy,
    metric=st.sampled_from(("task_queue_length",) * 3 + ("queue_latency", "cpu_usage", "load_percentage")),
    policy=st.sampled_from(("target", "target", "step")),
    scale_up_threshold=st.sampled_from((-1.0, 0.0, 5.0)),
    scale_down_threshold=st.sampled_from((-1.0, 0.0, 1.0, 5.0)),
    cooldown_seconds=seconds,
    activation_threshold=few,
    hibernate_after_seconds=seconds,
    scale_up_stabilization_seconds=seconds,
    scale_down_stabilization_seconds=st.none() | seconds,
    scale_down_consecutive=st.integers(1, 3),
    tolerance=st.sampled_from((0.0, 0.5)),
    idle_workers=few,
    buffer_workers=few,
    fallback_workers=few,
    fallback_failure_threshold=st.integers(1, 3),
    schedule=st.sampled_from(((), (), NIGHT)),
    paused=st.sampled_from(("no", "no", "in", "out", "both")),
    dry_run=st.booleans(),
)
needs = st.lists(st.tuples(st.floats(0, NOW), st.integers(0, 9)), max_size=3).map(lambda found: tuple(sorted(found)))
states = st.builds(
    GroupState,
    target=st.none() | st.integers(0, 9),
    peaks=needs,
    lows=needs,
    grown=needs,
    votes=st.integers(0, 5),
    panic_until=st.sampled_from((0.0, NOW + 5)),
    hold=seconds,
    shrunk_at=st.none() | st.floats(0, NOW),
)


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    ends = st.tuples(few, few).map(lambda found: Count(found[0], sum(found), scalable=True))
    fixed = few.map(lambda size: Count(size, size, scalable=False))
    sizes = draw(st.lists(ends | fixed, max_size=2))
    groups = [AgentGroup(f"g{number}", AgentRole.WORKER, size) for number, size in enumerate(sizes)]
    groups.insert(0, AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False)))
    low = draw(few)
    lifecycle = Lifecycle(
        hibernate=draw(st.none() | st.builds(HibernateRules, idle_seconds=st.none() | seconds)),
        destroy=DestroyRules(hibernated_seconds=draw(st.none() | seconds)),
        reactivate=ReactivateRules(schedules=draw(st.sampled_from(((), (), ("0 3 * * *",))))),
    )
    return Blueprint(
        "b", "B", "1", ClusterType.PROJECT, low, low + draw(st.integers(0, 12)), low, tuple(groups),
        scaling=draw(policies), lifecycle=lifecycle,
    )  # fmt: skip


def idle_view(blueprint: Blueprint, targets: dict[str, int], idle: float, **fields: Any) -> ClusterView:
    return ClusterView(
        blueprint=blueprint, targets=targets, min_workers=blueprint.min_workers, max_workers=blueprint.max_workers,
        idle_seconds=idle, **fields,
    )  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(blueprints(), st.data())
def test_a_cluster_that_rests_would_be_left_as_it_is_for_so_long(blueprint: Blueprint, data: st.DataObject) -> None:
    policy, persistent = blueprint.scaling, data.draw(st.booleans())
    reserve = max(policy.buffer_workers, policy.idle_workers)
    right = {group.name: within(group, reserve) for group in blueprint.groups}
    # Mostly the counts that such a cluster has when it has come to rest; others, to see that those are looked at.
    targets = right if data.draw(st.integers(0, 3)) else {name: data.draw(few) for name in right}
    bounds = (blueprint.min_workers, blueprint.max_workers)
    limit = rests_for(blueprint, tuple(targets.values()), bounds, persistent=persistent)
    assume(limit is not None and limit > 0)
    assert limit is not None
    idle = data.draw(st.floats(0, min(limit, 1e9), exclude_max=True))
    learned = data.draw(st.builds(dict, service_time=st.none() | seconds, start_time=st.none() | seconds))
    signals = {
        name: GroupSignals(
            ready=0, running=0, agents_ready=count, cpu_percent=data.draw(st.none() | seconds), **learned
        )
        for name, count in targets.items()
    }
    view = idle_view(blueprint, targets, idle, since_change=data.draw(seconds), persistent=persistent)
    state = {name: data.draw(states) for name in targets}
    choice = choose(Situation(view, "settled"), signals, data.draw(st.sampled_from(({}, state))), NOW)
    assert (choice.action, choice.held, choice.groups) == ("none", {}, {})


@settings(max_examples=60)
@given(blueprints(), st.data())
def test_a_cluster_that_sleeps_on_would_be_left_asleep_for_so_long(blueprint: Blueprint, data: st.DataObject) -> None:
    limit = sleeps_on(blueprint)
    assume(limit is not None and limit > 0)
    assert limit is not None
    slept = data.draw(st.floats(0, min(limit, 1e9), exclude_max=True))
    view = idle_view(blueprint, {group.name: 0 for group in blueprint.groups}, 0.0, since_change=data.draw(seconds))
    quiet = {group.name: GroupSignals(ready=0, running=0) for group in blueprint.groups}
    choice = choose(Situation(view, "asleep", hibernated_seconds=slept), quiet, {}, NOW)
    assert (choice.action, choice.held) == ("none", {})


@pytest.mark.parametrize("persistent", [False, True])
def test_what_keeps_a_reserve_or_is_persistent_rests_for_ever(persistent: bool) -> None:
    groups = (AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False)),
              AgentGroup("g", AgentRole.WORKER, Count(0, 9, scalable=True)))  # fmt: skip
    policy = ScalingPolicy(idle_workers=2)
    blueprint = Blueprint("b", "B", "1", ClusterType.PROJECT, 1, 9, 1, groups, scaling=policy)
    assert rests_for(blueprint, (1, 2), (1, 9), persistent=persistent) == float("inf")
    assert rests_for(blueprint, (1, 1), (1, 9), persistent=persistent) is None


def test_nothing_is_known_of_a_sleeper_whose_redis_does_not_answer() -> None:
    boss = AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False))
    lifecycle = Lifecycle(destroy=DestroyRules(hibernated_seconds=60))
    blueprint = Blueprint("b", "B", "1", ClusterType.PROJECT, 1, 9, 1, (boss,), lifecycle=lifecycle)
    situation = Situation(idle_view(blueprint, {"boss": 0}, 0.0, since_change=0.0), "asleep", hibernated_seconds=3600)
    choice = choose(situation, {"boss": GroupSignals(beats_fresh=False)}, {}, NOW)
    assert (choice.action, choice.held["cluster"].gate) == ("hold", "unknown")
    at_last = choose(situation, {"boss": GroupSignals(ready=0, running=0)}, {}, NOW)
    assert at_last.action == "destroy"
