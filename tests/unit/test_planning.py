"""Sharing agents among groups, planning starts and drains, and the table of statuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.domain.planning import (
    RESTART_DELAY_LIMIT_SECONDS,
    AgentView,
    Census,
    Plan,
    cluster_status,
    converged,
    distribute,
    health_score,
    plan,
    restart_delay_seconds,
)
from brain_clusters.domain.specs import AgentGroup, Count
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentRole, AgentStatus, ClusterStatus, Intent
from brain_clusters.shipped import shipped

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fixed(name: str, count: int, role: AgentRole = AgentRole.SPECIALIST) -> AgentGroup:
    return AgentGroup(name, role, Count(count, count, scalable=False))


def scalable(name: str, low: int, high: int) -> AgentGroup:
    return AgentGroup(name, AgentRole.WORKER, Count(low, high, scalable=True))


BOSS = fixed("boss", 1, AgentRole.SUPERVISOR)


@st.composite
def groups(draw: st.DrawFn) -> list[AgentGroup]:
    """A supervisor and up to six groups around it, in any order."""
    found = [BOSS]
    for number in range(draw(st.integers(0, 6))):
        low, more = draw(st.integers(0, 4)), draw(st.integers(0, 6))
        is_fixed = draw(st.booleans())
        found.append(fixed(f"g{number}", low) if is_fixed else scalable(f"g{number}", low, low + more))
    return draw(st.permutations(found))


backlogs = st.dictionaries(st.sampled_from([f"g{number}" for number in range(6)]), st.integers(0, 40))


# --- distribute -------------------------------------------------------------------------------------------------


@given(st.integers(0, 80), groups(), backlogs)
def test_the_sum_is_the_target_or_what_the_groups_can_hold(
    target: int, of: list[AgentGroup], waiting: dict[str, int]
) -> None:
    shared = distribute(target, of, waiting)
    assert sum(shared.values()) == min(target, sum(group.count.maximum for group in of))
    assert all(0 <= shared[group.name] <= group.count.maximum for group in of)
    assert list(shared) == [group.name for group in of]


@given(st.integers(0, 80), groups(), backlogs)
def test_one_more_agent_never_takes_one_from_a_group(
    target: int, of: list[AgentGroup], waiting: dict[str, int]
) -> None:
    fewer, more = distribute(target, of, waiting), distribute(target + 1, of, waiting)
    assert all(more[name] >= fewer[name] for name in fewer)


@given(st.integers(0, 80), groups(), backlogs)
def test_fixed_groups_are_full_before_a_scalable_one_gets_any(
    target: int, of: list[AgentGroup], waiting: dict[str, int]
) -> None:
    shared = distribute(target, of, waiting)
    steady = [group for group in of if not group.count.scalable]
    if any(shared[group.name] < group.count.maximum for group in steady):
        assert not any(shared[group.name] for group in of if group.count.scalable)
    if target:
        assert shared["boss"] == 1


@given(st.integers(0, 80), groups(), backlogs)
def test_no_group_gets_more_than_its_minimum_while_another_lacks_it(
    target: int, of: list[AgentGroup], waiting: dict[str, int]
) -> None:
    shared = distribute(target, of, waiting)
    if any(shared[group.name] < group.count.minimum for group in of):
        assert all(shared[group.name] <= group.count.minimum for group in of)


@given(st.integers(0, 40), st.integers(1, 6))
def test_without_a_backlog_the_rest_is_shared_evenly_in_blueprint_order(rest: int, number: int) -> None:
    workers = [scalable(f"w{place}", 0, 10) for place in range(number)]
    shared = list(distribute(1 + rest, [BOSS, *workers]).values())[1:]
    assert shared == sorted(shared, reverse=True)
    assert max(shared) - min(shared) <= 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 60))
def test_who_has_more_jobs_never_gets_fewer_agents(jobs: list[int], rest: int) -> None:
    workers = [scalable(f"w{place}", 0, 30) for place in range(len(jobs))]
    waiting = {f"w{place}": count for place, count in enumerate(jobs)}
    shared = distribute(1 + rest, [BOSS, *workers], waiting)
    if sum(shared.values()) - 1 <= sum(jobs):  # beyond the jobs the rest is shared evenly
        ordered = sorted(waiting, key=waiting.__getitem__)
        counts = [shared[name] for name in ordered]
        pairs = zip(ordered, counts, ordered[1:], counts[1:], strict=False)
        assert all(few <= many or waiting[one] == waiting[two] for one, few, two, many in pairs)


def test_a_backlog_is_shared_in_proportion() -> None:
    workers = [scalable("pictures", 0, 10), scalable("texts", 0, 10), scalable("figures", 0, 10)]
    shared = distribute(9, [BOSS, *workers], {"pictures": 60, "texts": 20})
    assert shared == {"boss": 1, "pictures": 6, "texts": 2, "figures": 0}


def test_no_group_gets_more_agents_for_its_backlog_than_it_has_jobs() -> None:
    shared = distribute(6, [BOSS, scalable("few", 0, 9), scalable("none", 0, 9)], {"few": 1})
    assert shared == {"boss": 1, "few": 3, "none": 2}


def test_a_target_below_the_fixed_groups_fills_the_supervisor_first() -> None:
    shared = distribute(2, [fixed("a", 2), scalable("w", 1, 5), BOSS])
    assert shared == {"a": 1, "w": 0, "boss": 1}


def test_marketing_with_six_agents_is_one_supervisor_three_specialists_and_two_workers() -> None:
    blueprint = parse_blueprint(Path(shipped("blueprints"), "marketing.yaml").read_text())
    shared = distribute(6, blueprint.groups)
    by_role = {role: sum(shared[group.name] for group in blueprint.groups if group.role is role) for role in AgentRole}
    assert by_role == {AgentRole.SUPERVISOR: 1, AgentRole.LEAD: 0, AgentRole.SPECIALIST: 3, AgentRole.WORKER: 2}


# --- plan -------------------------------------------------------------------------------------------------------


def agent(
    name: str, group: str, status: AgentStatus, *,
    age: float = 100, idle: float | None = None, draining: float | None = None,
) -> AgentView:  # fmt: skip
    """Return an agent; times are seconds ago."""
    idle_since = None if idle is None else NOW - timedelta(seconds=idle)
    draining_since = None if draining is None else NOW - timedelta(seconds=draining)
    return AgentView(name, group, status, NOW - timedelta(seconds=age), idle_since, draining_since)


@st.composite
def live_agents(draw: st.DrawFn) -> list[AgentView]:
    found = draw(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(LIVE_AGENT_STATUSES)), max_size=12))
    return [
        agent(
            f"{group}{place}", group, status, age=draw(st.integers(0, 900)),
            idle=draw(st.integers(0, 900)) if status is AgentStatus.IDLE else None,
            draining=draw(st.none() | st.integers(0, 900)) if status is AgentStatus.DRAINING else None,
        )
        for place, (group, status) in enumerate(found)
    ]  # fmt: skip


desired_counts = st.dictionaries(st.sampled_from("abc"), st.integers(0, 6))


def after(agents: list[AgentView], made: Plan) -> list[AgentView]:
    """Return the agents once the plan's starts are there, and its drains begun and undone."""
    changed = dict.fromkeys(made.drain, AgentStatus.DRAINING) | dict.fromkeys(made.undo, AgentStatus.IDLE)
    there = [agent(one.agent_id, one.group, changed.get(one.agent_id, one.status)) for one in agents]
    new = [agent(f"{g}-new{n}", g, AgentStatus.STARTING) for g, count in made.start.items() for n in range(count)]
    return [*there, *new]


def members(agents: list[AgentView], group: str, *, draining: bool = False) -> list[AgentView]:
    of_group = [one for one in agents if one.group == group]
    return [one for one in of_group if (one.status is AgentStatus.DRAINING) == draining]


@given(desired_counts, live_agents(), st.booleans())
def test_a_plan_brings_every_group_to_its_count_and_does_nothing_more(
    desired: dict[str, int], agents: list[AgentView], busy_may_leave: bool
) -> None:
    made = plan(desired, agents, busy_may_leave=busy_may_leave)
    for group in "abc":
        there, wanted = members(agents, group), desired.get(group, 0)
        kept = 0 if busy_may_leave else sum(one.status is AgentStatus.BUSY for one in there)
        undone = [one for one in agents if one.group == group and one.agent_id in made.undo]
        drained = [one for one in there if one.agent_id in made.drain]
        assert made.start.get(group, 0) + len(undone) == max(0, wanted - len(there))
        assert len(drained) == max(0, len(there) - max(wanted, kept))
    assert len({*made.drain, *made.undo}) == len(made.drain) + len(made.undo)
    again = plan(desired, after(agents, made), busy_may_leave=busy_may_leave)
    assert (dict(again.start), again.drain, again.undo) == ({}, (), ())


@given(desired_counts, live_agents(), st.booleans())
def test_an_agent_that_leaves_already_is_neither_counted_nor_drained_again(
    desired: dict[str, int], agents: list[AgentView], busy_may_leave: bool
) -> None:
    made = plan(desired, agents, busy_may_leave=busy_may_leave)
    leaving = {one.agent_id for one in agents if one.status is AgentStatus.DRAINING}
    assert not leaving & set(made.drain)
    assert set(made.undo) <= leaving


@given(desired_counts, live_agents())
def test_no_agent_is_started_while_a_drain_of_its_group_can_be_undone(
    desired: dict[str, int], agents: list[AgentView]
) -> None:
    made = plan(desired, agents, busy_may_leave=True)
    for group in "abc":
        undoable = [one for one in members(agents, group, draining=True) if one.draining_since is not None]
        undone = [one for one in undoable if one.agent_id in made.undo]
        left = [one for one in undoable if one.agent_id not in made.undo]
        assert not (left and made.start.get(group))
        assert all(one.draining_since >= other.draining_since for one in undone for other in left)
    assert all(one.draining_since is not None for one in agents if one.agent_id in made.undo)


@given(desired_counts, live_agents())
def test_a_busy_agent_is_never_drained_while_one_that_is_not_busy_stays(
    desired: dict[str, int], agents: list[AgentView]
) -> None:
    drained = set(plan(desired, agents, busy_may_leave=True).drain)
    for group in "abc":
        there = members(agents, group)
        if any(one.status is AgentStatus.BUSY and one.agent_id in drained for one in there):
            assert all(one.status is AgentStatus.BUSY for one in there if one.agent_id not in drained)


@given(desired_counts, live_agents())
def test_a_busy_agent_is_never_drained_unless_it_may_be(desired: dict[str, int], agents: list[AgentView]) -> None:
    drained = set(plan(desired, agents, busy_may_leave=False).drain)
    assert not any(one.status is AgentStatus.BUSY for one in agents if one.agent_id in drained)


def test_the_latest_drains_are_undone_and_only_the_rest_is_started() -> None:
    agents = [
        agent("idle", "a", AgentStatus.IDLE, idle=5),
        agent("long", "a", AgentStatus.DRAINING, draining=50),
        agent("late", "a", AgentStatus.DRAINING),
        agent("short", "a", AgentStatus.DRAINING, draining=1),
        agent("elsewhere", "b", AgentStatus.DRAINING, draining=1),
    ]
    assert plan({"a": 2}, agents, busy_may_leave=True) == Plan({}, (), ("short",))
    assert plan({"a": 5}, agents, busy_may_leave=True) == Plan({"a": 2}, (), ("short", "long"))


def test_victims_are_starting_ones_then_the_longest_idle_then_busy_ones() -> None:
    agents = [
        agent("busy", "a", AgentStatus.BUSY),
        agent("idle-short", "a", AgentStatus.IDLE, idle=5),
        agent("idle-long", "a", AgentStatus.IDLE, idle=50),
        agent("starting-old", "a", AgentStatus.STARTING, age=9),
        agent("starting-young", "a", AgentStatus.STARTING, age=1),
    ]
    assert plan({}, agents, busy_may_leave=True).drain == (
        "starting-young",
        "starting-old",
        "idle-long",
        "idle-short",
        "busy",
    )
    assert plan({}, agents, busy_may_leave=False).drain[-1] == "idle-short"


def test_agents_of_a_group_that_is_wanted_no_more_leave() -> None:
    assert plan({"a": 1}, [agent("x", "gone", AgentStatus.IDLE)], busy_may_leave=True).drain == ("x",)


# --- what it adds up to -----------------------------------------------------------------------------------------

censuses = st.builds(Census, starting=st.integers(0, 5), ready=st.integers(0, 5), draining=st.integers(0, 5))


def test_a_census_counts_the_live_only() -> None:
    census = Census.of(list(AgentStatus))
    assert (census.starting, census.ready, census.draining, census.live) == (1, 2, 1, 4)


@pytest.mark.parametrize(
    ("intent", "census", "woken", "planned", "expected"),
    [
        (Intent.RUNNING, Census(0, 0, 0), False, False, ClusterStatus.PLANNING),
        (Intent.RUNNING, Census(3, 0, 0), False, True, ClusterStatus.SPAWNING),
        (Intent.RUNNING, Census(1, 2, 0), False, True, ClusterStatus.SPAWNING),
        (Intent.RUNNING, Census(0, 3, 0), False, True, ClusterStatus.ACTIVE),
        (Intent.RUNNING, Census(0, 3, 0), True, True, ClusterStatus.ACTIVE),
        (Intent.RUNNING, Census(1, 2, 0), True, True, ClusterStatus.SCALING_UP),
        (Intent.RUNNING, Census(0, 2, 0), True, True, ClusterStatus.SCALING_UP),
        (Intent.RUNNING, Census(0, 4, 0), True, True, ClusterStatus.SCALING_DOWN),
        (Intent.RUNNING, Census(1, 3, 1), True, True, ClusterStatus.SCALING_UP),
        (Intent.ASLEEP, Census(0, 1, 2), True, True, ClusterStatus.SCALING_DOWN),
        (Intent.ASLEEP, Census(0, 0, 0), True, True, ClusterStatus.HIBERNATED),
        (Intent.GONE, Census(0, 0, 1), True, True, ClusterStatus.DESTROYING),
        (Intent.GONE, Census(0, 0, 0), True, True, ClusterStatus.DESTROYED),
    ],
)
def test_the_status_table(intent: Intent, census: Census, woken: bool, planned: bool, expected: ClusterStatus) -> None:
    assert cluster_status(intent, 3, census, ready_since_wake=woken, planned=planned) is expected


def test_draining_agents_that_are_left_over_are_a_scaling_down() -> None:
    census = Census(starting=0, ready=3, draining=1)
    status = cluster_status(Intent.RUNNING, 3, census, ready_since_wake=True, planned=True)
    assert status is ClusterStatus.SCALING_DOWN


@given(st.sampled_from(Intent), st.integers(0, 5), censuses, st.booleans())
def test_a_settled_status_says_that_everything_is_as_wanted(
    intent: Intent, target: int, census: Census, woken: bool
) -> None:
    status = cluster_status(intent, target, census, ready_since_wake=woken, planned=True)
    settled = (ClusterStatus.ACTIVE, ClusterStatus.HIBERNATED, ClusterStatus.DESTROYED)
    assert (status in settled) == converged(intent, target, census)


@pytest.mark.parametrize(
    ("intent", "target", "census", "failures", "expected"),
    [
        (Intent.RUNNING, 4, Census(0, 4, 0), 0, 1.0),
        (Intent.RUNNING, 4, Census(4, 0, 0), 0, 0.0),
        (Intent.RUNNING, 4, Census(2, 2, 0), 0, 0.5),
        (Intent.RUNNING, 4, Census(0, 4, 0), 4, 0.5),
        (Intent.RUNNING, 4, Census(0, 6, 2), 0, 1.0),
        (Intent.RUNNING, 0, Census(0, 0, 0), 9, 1.0),
        (Intent.ASLEEP, 4, Census(0, 0, 0), 9, 1.0),
    ],
)
def test_health_is_the_share_that_is_ready_lowered_by_deaths(
    intent: Intent, target: int, census: Census, failures: int, expected: float
) -> None:
    assert health_score(intent, target, census, failures) == expected


@given(st.sampled_from(Intent), st.integers(0, 5), censuses, st.integers(0, 50))
def test_health_stays_between_zero_and_one_and_falls_with_deaths(
    intent: Intent, target: int, census: Census, failures: int
) -> None:
    score = health_score(intent, target, census, failures)
    assert 0 <= health_score(intent, target, census, failures + 1) <= score <= 1


def test_the_first_death_is_replaced_at_once_and_later_ones_ever_later() -> None:
    assert [restart_delay_seconds(count) for count in range(6)] == [0, 0, 0.5, 1, 2, 4]
    assert restart_delay_seconds(500) == RESTART_DELAY_LIMIT_SECONDS
