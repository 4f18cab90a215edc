"""One look at one cluster: what its phase allows, what is a hold, and what comes after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from brain_clusters.domain.budgets import Spent
from brain_clusters.domain.choosing import Choice, Situation, choose
from brain_clusters.domain.gates import GroupState
from brain_clusters.domain.scaling import ClusterView, Gate
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import (
    AgentGroup,
    Blueprint,
    Budget,
    Count,
    DestroyRules,
    HibernateRules,
    Lifecycle,
    ScalingPolicy,
)
from brain_clusters.domain.states import AgentRole, ClusterStatus, ClusterType, Intent
from brain_clusters.services.observation import SeenCluster

POLICY = ScalingPolicy(
    scale_up_threshold=10, scale_down_threshold=2, cooldown_seconds=0, scale_down_stabilization_seconds=0,
    scale_down_consecutive=1,
)  # fmt: skip
LIFECYCLE = Lifecycle(hibernate=HibernateRules(idle_seconds=60), destroy=DestroyRules(hibernated_seconds=100))
BOSS = AgentGroup("boss", AgentRole.SUPERVISOR, Count(1, 1, scalable=False))
A = AgentGroup("a", AgentRole.WORKER, Count(0, 10, scalable=True))
B = AgentGroup("b", AgentRole.WORKER, Count(0, 10, scalable=True))
IDLE = GroupSignals(ready=0, running=0, agents_ready=1)


def seen(ready: int | None = 0, running: int | None = 0, **rest: Any) -> GroupSignals:
    return GroupSignals(ready=ready, running=running, **rest)


def chosen(
    phase: Any, a: GroupSignals, target: int = 0, *, b: GroupSignals | None = None, idle: float = 0.0,
    policy: ScalingPolicy = POLICY, high: int = 30, floor: int = 0, **rest: Any,
) -> Choice:  # fmt: skip
    groups = (BOSS, A) if b is None else (BOSS, A, B)
    blueprint = Blueprint("b", "B", "1", ClusterType.PROJECT, 0, high, 1, groups, scaling=policy, lifecycle=LIFECYCLE)
    targets = {"boss": 1, "a": target, **({} if b is None else {"b": b.agents_ready})}
    view = ClusterView(blueprint, targets, 0, high, 1e9, idle, floor=floor)
    signals = {"boss": IDLE, "a": a, **({} if b is None else {"b": b})}
    state = {name: GroupState(target=count) for name, count in targets.items() if name != "boss"}
    return choose(Situation(view, phase, **rest), signals, state, 1000.0)


# --- awake ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["starting", "changing", "settled"])
def test_a_cluster_grows_in_every_phase_but_sleep(phase: str) -> None:
    found = chosen(phase, seen(50, 0, agents_ready=1), 1)
    assert (found.action, found.groups, found.state["a"].target) == ("scale", {"a": 10}, 10)


@pytest.mark.parametrize(("phase", "action"), [("starting", "none"), ("changing", "scale"), ("settled", "scale")])
def test_a_cluster_that_is_being_started_does_not_shrink(phase: str, action: str) -> None:
    assert chosen(phase, seen(agents_ready=5), 5).action == action


def test_a_cluster_that_is_being_started_still_grows_where_another_group_would_shrink() -> None:
    found = chosen("starting", seen(50, 0, agents_ready=1), 1, b=seen(agents_ready=4))
    assert (found.action, found.groups) == ("scale", {"a": 10})
    assert {name: one.target for name, one in found.state.items()} == {"a": 10, "b": 4}


@pytest.mark.parametrize(("phase", "action"), [("starting", "none"), ("changing", "none"), ("settled", "hibernate")])
def test_only_a_settled_cluster_falls_asleep(phase: str, action: str) -> None:
    assert chosen(phase, seen(), idle=60.0).action == action


def test_falling_asleep_comes_before_any_change_and_forgets_what_was_remembered() -> None:
    found = chosen("settled", seen(agents_ready=5), 5, idle=60.0)
    assert (found.action, found.groups, found.state) == ("hibernate", {}, {})


def test_none_is_nothing_to_do_and_hold_is_something_held_back() -> None:
    found = chosen("settled", seen(0, 1, agents_ready=1), 1)
    assert (found.action, found.held) == ("none", {})
    assert found.reason == "a: 1 agents are right for 0 waiting and 1 running jobs"
    found = chosen("settled", seen(9, 0, agents_ready=1), 1)
    assert (found.action, found.groups, found.held["a"].gate) == ("hold", {}, "scale_up_threshold")
    assert found.reason.startswith("a: 2 agents are needed for 9 waiting")


def test_a_sleep_that_is_held_is_a_hold_of_the_cluster() -> None:
    found = chosen("settled", seen(next_due=1.0, held=1), idle=60.0)
    assert (found.action, found.held["cluster"].gate) == ("hold", "eta_horizon")
    found = chosen("settled", seen(), idle=60.0, policy=replace(POLICY, dry_run=True))
    assert (found.action, found.held["cluster"].gate) == ("hold", "dry_run")


def test_a_change_keeps_the_gates_that_held_other_groups() -> None:
    found = chosen("settled", seen(50, 0, agents_ready=1), 1, b=seen(9, 0, agents_ready=1))
    assert (found.action, set(found.groups), found.held["b"].gate) == ("scale", {"a"}, "scale_up_threshold")


# --- asleep -----------------------------------------------------------------------------------------------------


def test_a_sleeping_cluster_wakes_by_its_jobs_and_is_not_scaled() -> None:
    found = chosen("asleep", seen(11, 0), 5)
    assert (found.action, found.groups, found.state) == ("reactivate", {"a": 3}, {})
    assert chosen("asleep", seen(11, 0), asleep_backlog=11).action == "none"
    assert chosen("asleep", seen(), fired="0 8 * * *").action == "reactivate"
    assert chosen("asleep", seen(), floor=1).action == "reactivate"


def test_a_sleeping_cluster_says_when_it_has_to_start() -> None:
    found = chosen("asleep", seen(held=1, next_due=50.0, start_time=2.0))
    assert (found.action, found.wake_in) == ("none", 48.0)
    assert chosen("settled", seen(held=1, next_due=50.0)).wake_in is None


@pytest.mark.parametrize("rest", [{"dry_run": True}, {"paused": "out"}])
def test_a_wake_up_that_is_held_is_a_hold_of_the_cluster(rest: dict[str, Any]) -> None:
    found = chosen("asleep", seen(11, 0), policy=replace(POLICY, **rest))
    assert (found.action, found.groups, found.held["cluster"].wanted) == ("hold", {}, 3)


def test_a_cluster_that_slept_for_long_is_given_up_unless_it_wakes_or_holds_jobs() -> None:
    assert chosen("asleep", seen(), hibernated_seconds=99.9).action == "none"
    assert chosen("asleep", seen(), hibernated_seconds=None).action == "none"
    found = chosen("asleep", seen(), hibernated_seconds=100.0)
    assert (found.action, found.reason) == ("destroy", "it slept for 100 s, as destroy_conditions ask for")
    assert chosen("asleep", seen(1), hibernated_seconds=100.0).action == "reactivate"
    assert chosen("asleep", seen(held=1, next_due=1e6), hibernated_seconds=100.0).action == "none"
    assert chosen("settled", seen(), hibernated_seconds=100.0).action != "destroy"


@pytest.mark.parametrize("rest", [{"policy": replace(POLICY, paused="out")}, {"asleep_backlog": 1},
                                  {"policy": replace(POLICY, activation_threshold=5)}])  # fmt: skip
def test_a_cluster_for_which_jobs_wait_is_not_given_up_though_they_do_not_wake_it(rest: dict[str, Any]) -> None:
    assert chosen("asleep", seen(1), hibernated_seconds=100.0, **rest).action in ("hold", "none")


def test_a_dry_run_gives_no_cluster_up() -> None:
    found = chosen("asleep", seen(), hibernated_seconds=100.0, policy=replace(POLICY, dry_run=True))
    assert (found.action, found.held["cluster"].gate) == ("hold", "dry_run")


def test_what_a_dry_run_holds_is_said_once_for_all_groups() -> None:
    waits = seen(50, 0, agents_ready=1)
    found = chosen("settled", waits, 1, b=waits, policy=replace(POLICY, dry_run=True))
    assert set(found.held) == {"a", "b"}
    assert found.reason.count("dry_run") == 1
    assert found.reason.startswith("dry_run: a: ")


# --- after ------------------------------------------------------------------------------------------------------

BEFORE = {"boss": 1, "a": 2, "b": 3}


def test_after_a_change_are_the_new_counts_and_those_that_stay() -> None:
    held = {"b": Gate("cooldown", "", 0)}
    assert Choice("scale", "", {"a": 5}, held).after(BEFORE) == {"boss": 1, "a": 5, "b": 3}
    assert Choice("reactivate", "", {"a": 5}).after(BEFORE) == {"boss": 1, "a": 5, "b": 3}
    assert Choice("none", "").after(BEFORE) == BEFORE


@pytest.mark.parametrize("action", ["hibernate", "destroy"])
def test_after_the_end_there_is_nobody(action: Any) -> None:
    assert Choice(action, "").after(BEFORE) == {"boss": 0, "a": 0, "b": 0}


def test_after_a_hold_is_what_there_would_be_without_its_gates() -> None:
    held = {"b": Gate("cooldown", "", 0), "cluster": Gate("bounds", "", 9)}
    assert Choice("hold", "", {}, held).after(BEFORE) == {"boss": 1, "a": 2, "b": 0}


def test_a_cluster_whose_agents_never_come_is_not_made_smaller_before_its_operation_is_late() -> None:
    blueprint = Blueprint("b", "B", "1", ClusterType.TEAM, 0, 10, 1, (BOSS, A))

    def phase(since_change: float) -> str:
        cluster = SeenCluster(
            "c", ClusterType.TEAM, ClusterStatus.SPAWNING, Intent.RUNNING, blueprint, {"boss": 1, "a": 1},
            min_workers=0, max_workers=10, generation=1, asleep_backlog=0, load_percentage=0.0,
            since_change=since_change, idle_seconds=since_change, hibernated_seconds=None, unknown_ticks=0,
            wake_at=None, health_score=1.0, budget=Budget(), spent=Spent(), at=1000.0,
        )  # fmt: skip
        return cluster.situation(60.0, 2.0, None).phase

    # The look right after the deadline belongs to whoever ends the operation.
    assert [phase(59.0), phase(61.9), phase(62.1)] == ["starting", "starting", "changing"]
