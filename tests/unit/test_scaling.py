"""A whole cluster's counts: its bounds, schedules, pauses, and the sharing of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from brain_clusters.domain.gates import GroupState
from brain_clusters.domain.scaling import ClusterDecision, ClusterView, decide, held_as_json
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import AgentGroup, Blueprint, Count, ScalingPolicy
from brain_clusters.domain.states import AgentRole, ClusterType

# With a stated window, and by the formula alone; the learned window and the payback have tests of their own.
POLICY = ScalingPolicy(
    scale_up_threshold=10, scale_down_threshold=2, cooldown_seconds=60, payback_seconds=0,
    scale_down_stabilization_seconds=300,
)  # fmt: skip
# Whatever may go down goes down at the first look.
HASTY = replace(POLICY, scale_down_stabilization_seconds=0, scale_down_consecutive=1)
STEP = replace(POLICY, policy="step")
BOSS = AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False))
IDLE = GroupSignals(ready=0, running=0, agents_ready=1)


def seen(ready: int | None = 0, running: int | None = 0, **rest: Any) -> GroupSignals:
    return GroupSignals(ready=ready, running=running, **rest)


def worker_group(name: str, low: int = 0, high: int = 10) -> AgentGroup:
    return AgentGroup(name, AgentRole.WORKER, Count(low, high, scalable=True))


A, B = worker_group("a"), worker_group("b")


def view_of(
    groups: tuple[AgentGroup, ...], targets: Mapping[str, int], *, low: int = 0, high: int = 100,
    policy: ScalingPolicy = HASTY, since: float = 1e9, **rest: Any,
) -> ClusterView:  # fmt: skip
    blueprint = Blueprint("b", "B", "1", ClusterType.PROJECT, low, high, low, groups, scaling=policy)
    return ClusterView(blueprint, targets, low, high, since, idle_seconds=0.0, **rest)


def decided(view: ClusterView, **signals: GroupSignals) -> ClusterDecision:
    """One look at a cluster that has had its counts for long."""
    state = {name: GroupState(target=count) for name, count in view.targets.items()}
    return decide(view, {"boss": IDLE, **signals}, state, 1000.0)


# --- which groups change ----------------------------------------------------------------------------------------


def test_only_groups_whose_count_changes_are_in_a_decision() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 1})
    found = decided(view, a=seen(20, 0, agents_ready=1), b=seen(5, 0, agents_ready=1))
    assert found.groups == {"a": 4}
    assert found.reason == "a: 20 waiting and 0 running jobs: up from 1 to 4"
    assert "b" not in found.held


def test_groups_may_grow_and_shrink_in_one_decision() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 3})
    assert decided(view, a=seen(20, 0, agents_ready=1), b=seen(agents_ready=3)).groups == {"a": 4, "b": 0}


def test_each_held_group_has_its_own_gate() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 3}, policy=POLICY)
    state = {"a": GroupState(target=1), "b": GroupState(target=3)}
    signals = {"boss": IDLE, "a": seen(10, 0, agents_ready=1), "b": seen(agents_ready=3)}
    found = decide(view, signals, state, 1000.0)
    assert {name: gate.gate for name, gate in found.held.items()} == {
        "a": "scale_up_threshold",
        "b": "scale_down.consecutive",
    }
    assert held_as_json(found.held)["a"]["wanted"] == 2


def test_fixed_groups_never_change_and_are_not_remembered() -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 0})
    found = decide(view, {"boss": seen(500, 1, agents_ready=1), "a": seen()}, {}, 0.0)
    assert found.groups == {}
    assert set(found.state) == {"a"}
    found = decide(view_of((BOSS,), {"boss": 1}), {"boss": seen(500, 1, agents_ready=1)}, {}, 0.0)
    assert found.reason == "no group of this blueprint is scalable"


def test_what_is_decided_is_remembered() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 3})
    found = decided(view, a=seen(20, 0, agents_ready=1), b=seen(agents_ready=3))
    assert (found.state["a"].target, found.state["a"].grown) == (4, ((1000.0, 3),))
    assert (found.state["b"].target, found.state["b"].grown, found.state["b"].votes) == (0, (), 0)


# --- the cluster's bounds ---------------------------------------------------------------------------------------


def test_when_the_maximum_cuts_the_group_with_the_fewest_waiting_jobs_per_agent_gives_way() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 1}, high=7)
    found = decided(view, a=seen(50, 0, agents_ready=1), b=seen(25, 0, agents_ready=1))
    assert found.groups == {"a": 4, "b": 2}
    assert {name: (gate.gate, gate.wanted) for name, gate in found.held.items()} == {
        "a": ("max_workers", 10),
        "b": ("max_workers", 5),
    }
    assert found.held["a"].reason == "the cluster's max_workers 7 leave room for 4 of 10 agents"


def test_a_cut_is_not_told_as_a_schedule() -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 2}, high=5, floor=3)
    reason = decided(view, a=seen(50, 0, agents_ready=2)).reason
    assert reason.endswith(", but max_workers 5 of the cluster leave room for 4")


def test_the_minimum_of_the_cluster_keeps_agents_where_they_are() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 0, "b": 3}, low=3)
    assert decided(view, a=seen(), b=seen(agents_ready=3)).groups == {"b": 2}


def test_the_maximum_takes_no_agent_from_a_group_that_nobody_knows_about() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 5, "b": 1}, high=8)
    found = decided(view, a=seen(None, None), b=seen(50, 1, agents_ready=1))
    assert found.groups == {"b": 2}
    assert found.held["a"].gate == "unknown"
    silent = seen(0, 5, agents_ready=5, beats_fresh=False)
    assert decided(view, a=silent, b=seen(50, 1, agents_ready=1)).groups == {"b": 2}


@pytest.mark.parametrize("since", [1.0, 1e9])
def test_the_maximum_moves_no_agent_from_one_group_to_another(since: float) -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 3, "b": 3}, high=7, since=since)
    found = decided(view, a=seen(30, 3, agents_ready=3), b=seen(60, 3, agents_ready=3))
    assert found.groups == {}
    assert {gate.gate for gate in found.held.values()} == {"max_workers"}


def test_a_change_that_the_bounds_make_impossible_is_not_asked_for_at_every_tick() -> None:
    # Three fixed agents and a minimum of two do not fit into a maximum of three.
    crew = AgentGroup("crew", AgentRole.SPECIALIST, Count(2, 2, scalable=False))
    view = view_of((BOSS, crew, worker_group("a", 2, 5)), {"boss": 1, "crew": 2, "a": 0}, high=3)
    found = decided(view, crew=IDLE, a=seen(9, 0))
    assert found.groups == {}
    assert found.held["cluster"].gate == "bounds"


# --- schedules --------------------------------------------------------------------------------------------------


def test_a_schedule_raises_a_cluster_that_has_nothing_to_do() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 0, "b": 1}, floor=5)
    found = decided(view, a=seen(), b=seen(agents_ready=1))
    assert found.groups == {"a": 2, "b": 2}
    assert found.reason == "a: a schedule asks for 2 instead of 0; b: a schedule asks for 2 instead of 1"


def test_a_schedule_keeps_what_it_asked_for_and_no_more_than_the_maximum() -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 7}, floor=5)
    assert decided(view, a=seen(agents_ready=7)).groups == {"a": 4}
    view = view_of((BOSS, A), {"boss": 1, "a": 0}, floor=50, high=4)
    assert decided(view, a=seen()).groups == {"a": 3}


@pytest.mark.parametrize("policy", [HASTY, STEP])
@pytest.mark.parametrize("signals", [seen(5, 1, agents_ready=1), seen(None, None), seen(0, 0, beats_fresh=False)])
def test_neither_thresholds_nor_what_is_unknown_hold_a_schedule_back(
    policy: ScalingPolicy, signals: GroupSignals
) -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 1}, floor=4, policy=policy, since=0.0)
    assert decided(view, a=signals).groups == {"a": 3}


def test_a_schedule_that_the_groups_cannot_meet_raises_them_as_far_as_they_go() -> None:
    for policy in (HASTY, STEP):
        view = view_of((BOSS, worker_group("a", 0, 3)), {"boss": 1, "a": 1}, floor=9, policy=policy)
        assert decided(view, a=seen(5, 1, agents_ready=1)).groups == {"a": 3}
    view = view_of((BOSS, worker_group("a", 0, 3)), {"boss": 1, "a": 3}, floor=9, policy=STEP)
    assert decided(view, a=seen(agents_ready=3)).held["cluster"].gate == "bounds"


# --- paused, dry_run, starting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paused", "ready", "target", "may"),
    [
        ("no", 50, 1, True), ("in", 50, 1, True), ("out", 50, 1, False), ("both", 50, 1, False),
        ("no", 0, 5, True), ("in", 0, 5, False), ("out", 0, 5, True), ("both", 0, 5, False),
    ],
)  # fmt: skip
def test_a_paused_direction_is_held_and_the_other_is_not(paused: Any, ready: int, target: int, may: bool) -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": target}, policy=replace(HASTY, paused=paused))
    found = decided(view, a=seen(ready, 0, agents_ready=target))
    assert bool(found.groups) is may
    assert may or (found.held["a"].gate == "paused" and found.held["a"].reason.startswith("paused: "))


def test_a_pause_holds_one_group_and_lets_another_go_its_way() -> None:
    signals = {"a": seen(20, 0, agents_ready=1), "b": seen(agents_ready=3)}
    targets = {"boss": 1, "a": 1, "b": 3}
    found = decided(view_of((BOSS, A, B), targets, policy=replace(HASTY, paused="in")), **signals)
    assert (found.groups, found.held["b"].gate, found.held["b"].wanted) == ({"a": 4}, "paused", 0)
    found = decided(view_of((BOSS, A, B), targets, policy=replace(HASTY, paused="out")), **signals)
    assert (found.groups, found.held["a"].gate, found.held["a"].wanted) == ({"b": 0}, "paused", 4)


def test_a_pause_that_leaves_an_impossible_rest_leaves_all_as_it_is() -> None:
    # b may only grow into the room that a would give.
    view = view_of((BOSS, A, B), {"boss": 1, "a": 3, "b": 1}, low=5, high=5, policy=replace(HASTY, paused="in"))
    assert decided(view, a=seen(agents_ready=3), b=seen(20, 0, agents_ready=1)).groups == {}


@pytest.mark.parametrize(("ready", "target", "wanted"), [(50, 1, 10), (0, 5, 0)])
def test_a_dry_run_says_what_it_would_do_and_does_nothing(ready: int, target: int, wanted: int) -> None:
    for policy in (replace(HASTY, dry_run=True), replace(HASTY, dry_run=True, paused="both")):
        found = decided(view_of((BOSS, A), {"boss": 1, "a": target}, policy=policy), a=seen(ready, agents_ready=target))
        assert not found.groups
        assert (found.held["a"].gate, found.held["a"].wanted) == ("dry_run", wanted)
        assert found.held["a"].reason.startswith("dry_run: a: ")
        assert (found.state["a"].target, found.state["a"].grown) == (target, ())


@pytest.mark.parametrize("rest", [{"dry_run": True}, {"paused": "in"}])
def test_a_way_down_that_is_held_stays_voted_for(rest: dict[str, Any]) -> None:
    policy = replace(HASTY, scale_down_consecutive=3, **rest)
    view, state, gates = view_of((BOSS, A), {"boss": 1, "a": 5}, policy=policy), {"a": GroupState(target=5)}, []
    for look in range(8):
        found = decide(view, {"boss": IDLE, "a": seen(agents_ready=5)}, state, 1000.0 + 2 * look)
        state = dict(found.state)
        gates.append(found.held["a"].gate)
    assert gates == ["scale_down.consecutive"] * 2 + ["dry_run" if "dry_run" in rest else "paused"] * 6


def test_a_cluster_that_is_being_started_grows_and_does_not_shrink() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 3})
    state = {"a": GroupState(target=1), "b": GroupState(target=3)}
    signals = {"boss": IDLE, "a": seen(20, 0, agents_ready=1), "b": seen(agents_ready=3)}
    found = decide(view, signals, state, 1000.0, starting=True)
    assert found.groups == {"a": 4}
    assert (found.state["a"].target, found.state["b"].target) == (4, 3)


def test_growth_that_needs_the_room_of_others_waits_for_the_start_to_end() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 1, "b": 3}, high=5)
    state = {"a": GroupState(target=1), "b": GroupState(target=3)}
    signals = {"boss": IDLE, "a": seen(20, 0, agents_ready=1), "b": seen(agents_ready=3)}
    found = decide(view, signals, state, 1000.0, starting=True)
    assert found.groups == {}
    assert (found.state["a"].target, found.state["a"].grown, found.state["b"].target) == (1, (), 3)


# --- the step rule ----------------------------------------------------------------------------------------------


def test_a_step_down_that_would_take_a_fixed_agent_is_not_asked_for() -> None:
    crew = AgentGroup("crew", AgentRole.SPECIALIST, Count(3, 3, scalable=False))
    view = view_of((BOSS, crew), {"boss": 1, "crew": 3}, low=1, policy=STEP)
    found = decided(view, crew=seen(agents_ready=3))
    assert found.groups == {}
    assert found.held["cluster"].gate == "busy"


def test_a_step_is_shared_among_the_groups_by_backlog() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 2, "b": 2}, policy=STEP)
    found = decided(view, a=seen(40, 2, agents_ready=2), b=seen(20, 2, agents_ready=2))
    assert found.groups == {"a": 3, "b": 3}  # int(5 * 1.2) + 1 = 7: two more, one each for 42 and 22 jobs


def test_a_step_up_takes_no_agent_from_any_group() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 4, "b": 0}, policy=STEP)
    assert decided(view, a=seen(0, 4, agents_ready=4), b=seen(40, 0)).groups == {"b": 2}


def test_a_step_down_takes_nobody_who_works() -> None:
    view = view_of((BOSS, A, B), {"boss": 1, "a": 5, "b": 4}, policy=STEP)
    found = decided(view, a=seen(0, 4, reserved=1, agents_ready=5), b=seen(0, 1, agents_ready=4))
    assert found.groups == {"b": 2}  # int(10 * 0.8) = 8


def test_a_step_down_waits_for_what_is_unknown() -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 9}, policy=STEP)
    assert decided(view, a=seen(agents_ready=9)).groups == {"a": 7}
    assert decided(view, a=seen(agents_ready=9, beats_fresh=False)).held["cluster"].gate == "unknown"
    assert decided(view, a=seen(None, None)).held["cluster"].gate == "unknown"
    usage = view_of((BOSS, A), {"boss": 1, "a": 9}, policy=replace(STEP, metric="cpu_usage"))
    assert decided(usage, a=seen(cpu_percent=1.0)).groups == {"a": 7}
    assert decided(usage, a=seen(None, None, cpu_percent=1.0)).held["cluster"].gate == "unknown"


def test_a_step_that_the_cooldown_holds_says_what_it_wants() -> None:
    view = view_of((BOSS, A), {"boss": 1, "a": 9}, policy=STEP, since=1.0)
    gate = decided(view, a=seen(agents_ready=9)).held["cluster"]
    assert (gate.gate, gate.wanted) == ("cooldown", 8)


def test_a_step_up_beyond_what_the_groups_hold_is_held_by_their_bounds() -> None:
    view = view_of((BOSS, worker_group("a", 0, 3)), {"boss": 1, "a": 3}, policy=STEP)
    gate = decided(view, a=seen(40, 3, agents_ready=3)).held["cluster"]
    assert (gate.gate, gate.wanted) == ("bounds", 5)


def test_a_step_goes_up_to_its_fallback_after_some_unknown_looks() -> None:
    policy = replace(STEP, fallback_workers=4)
    for ticks, groups in ((1, {}), (2, {"a": 3})):
        view = view_of((BOSS, A), {"boss": 1, "a": 1}, policy=policy, unknown_ticks=ticks)
        assert decided(view, a=seen(None, None)).groups == groups
    assert decided(replace(view, targets={"boss": 1, "a": 6}), a=seen(None, None)).groups == {}
