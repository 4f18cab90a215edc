"""How agents are replaced by those of another version: single steps, and whole rollouts with chance in them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.planning import AgentView, Plan
from brain_clusters.domain.rollouts import (
    Pace,
    Standing,
    failure,
    is_healthy,
    moved_targets,
    parse_max_parallel,
    standing,
    step,
)
from brain_clusters.domain.specs import AgentGroup, RolloutPolicy, parse_count
from brain_clusters.domain.states import AgentRole, AgentStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
IDLE, BUSY, STARTING, DRAINING = AgentStatus.IDLE, AgentStatus.BUSY, AgentStatus.STARTING, AgentStatus.DRAINING


def agent(
    name: str, status: AgentStatus = IDLE, *, new: bool = False, ready: float = 3600, group: str = "w"
) -> AgentView:
    ready_at = None if status is STARTING else NOW - timedelta(seconds=ready)
    leaving = NOW if status is DRAINING else None
    return AgentView(name, group, status, LONG_AGO, None, leaving, ready_at, new)


def olds(count: int) -> list[AgentView]:
    return [agent(f"o{number}") for number in range(count)]


def pace(parallel: int = 1, most: int = 100, healthy: float = 10, *, held: bool = False) -> Pace:
    return Pace(parallel, most, healthy, held)


def retiring(name: str, status: AgentStatus = IDLE) -> AgentView:
    return replace(agent(name, status), retiring=True)


def test_one_that_somebody_wants_out_leaves_when_another_is_healthy() -> None:
    team = [retiring("r"), agent("a", new=True), agent("b", new=True)]
    first = step({"w": 3}, team, pace(), NOW, busy_may_leave=True)
    assert (first.start, first.drain) == ({"w": 1}, ())
    young = step({"w": 3}, [*team, agent("n", new=True, ready=9)], pace(), NOW, busy_may_leave=True)
    assert (young.start, young.drain) == ({}, ())
    assert step({"w": 3}, [*team, agent("n", new=True)], pace(), NOW, busy_may_leave=True).drain == ("r",)


def test_without_room_one_that_somebody_wants_out_leaves_first() -> None:
    team = [retiring("r", BUSY), agent("a", new=True)]
    assert step({"w": 2}, team, pace(most=2), NOW, busy_may_leave=True).drain == ("r",)
    leaving = [retiring("r", DRAINING), agent("a", new=True)]
    assert step({"w": 2}, leaving, pace(most=2), NOW, busy_may_leave=True).start == {}
    assert step({"w": 2}, leaving, pace(most=3), NOW, busy_may_leave=True).start == {"w": 1}
    assert step({"w": 2}, leaving[1:], pace(most=2), NOW, busy_may_leave=True).start == {"w": 1}


def test_a_drain_that_somebody_asked_for_is_not_undone_for_a_larger_team() -> None:
    team = [retiring("r", DRAINING), agent("a", DRAINING, new=True)]
    plan = step({"w": 2}, team, pace(), NOW, busy_may_leave=True)
    assert (plan.undo, plan.start) == (("a",), {"w": 1})


def test_while_a_rollout_is_held_single_ones_are_replaced_all_the_same() -> None:
    team = [*olds(2), retiring("r")]
    first = step({"w": 3}, team, pace(held=True), NOW, busy_may_leave=True)
    assert (first.start, first.drain) == ({"w": 1}, ())
    after = step({"w": 3}, [*team, agent("n", new=True)], pace(held=True), NOW, busy_may_leave=True)
    assert (after.start, after.drain) == ({}, ("r",))
    assert step({"w": 3}, [*olds(2), agent("n", new=True)], pace(held=True), NOW, busy_may_leave=True) == Plan({}, ())


def test_with_room_new_agents_start_beside_the_old() -> None:
    plan = step({"w": 4}, olds(4), pace(2), NOW, busy_may_leave=True)
    assert (plan.start, plan.drain) == ({"w": 2}, ())


def test_without_room_old_agents_leave_first_and_new_ones_start_when_they_are_gone() -> None:
    first = step({"w": 4}, olds(4), pace(2, most=4), NOW, busy_may_leave=True)
    assert (first.start, len(first.drain)) == ({}, 2)
    leaving = [agent("o0", DRAINING), agent("o1", DRAINING), *olds(4)[2:]]
    assert step({"w": 4}, leaving, pace(2, most=4), NOW, busy_may_leave=True).start == {}
    assert step({"w": 4}, leaving[1:], pace(2, most=4), NOW, busy_may_leave=True).start == {"w": 1}


def test_an_old_agent_leaves_only_when_a_new_one_was_ready_for_long_enough() -> None:
    for status, seconds, leaving in [(STARTING, 0, 0), (IDLE, 9, 0), (IDLE, 10, 1), (BUSY, 10, 1)]:
        plan = step({"w": 2}, [*olds(2), agent("n", status, new=True, ready=seconds)], pace(), NOW, busy_may_leave=True)
        assert len(plan.drain) == leaving
        assert plan.start == {}


def test_idle_ones_leave_before_busy_ones_and_busy_ones_leave_too() -> None:
    team = [agent("busy", BUSY), agent("idle"), agent("n", new=True)]
    assert step({"w": 2}, team, pace(), NOW, busy_may_leave=False).drain == ("idle",)
    team = [agent("busy", BUSY), agent("n", new=True), agent("n2", new=True)]
    assert step({"w": 2}, team, pace(), NOW, busy_may_leave=False).drain == ("busy",)


def test_an_old_agent_makes_room_for_a_new_one_that_no_host_has_a_place_for() -> None:
    for seconds, placed, leaving in [(9, False, 0), (10, False, 1), (10, True, 0)]:
        new = replace(agent("n", STARTING, new=True), placed=placed, spawned_at=NOW - timedelta(seconds=seconds))
        assert len(step({"w": 2}, [*olds(2), new], pace(), NOW, busy_may_leave=True).drain) == leaving
        team = [agent("o0", DRAINING), agent("o1"), new]
        assert step({"w": 2}, team, pace(), NOW, busy_may_leave=True).drain == ()


def test_one_that_drains_counts_as_being_replaced_until_it_is_gone() -> None:
    team = [agent("o0", DRAINING), agent("o1"), agent("n", new=True)]
    assert step({"w": 2}, team, pace(), NOW, busy_may_leave=True).start == {}
    assert step({"w": 2}, team, pace(2), NOW, busy_may_leave=True).start == {"w": 1}


def test_old_ones_that_were_never_ready_are_replaced_at_once() -> None:
    plan = step({"w": 3}, [agent(f"o{n}", STARTING) for n in range(3)], pace(most=3), NOW, busy_may_leave=True)
    assert (plan.start, len(plan.drain)) == ({"w": 3}, 3)


def test_drains_of_old_agents_are_never_undone_and_those_of_new_ones_are() -> None:
    team = [agent("o", DRAINING), agent("n", DRAINING, new=True)]
    plan = step({"w": 2}, team, pace(), NOW, busy_may_leave=True)
    assert plan.undo == ("n",)
    assert plan.start == {"w": 1}


def test_agents_of_a_group_that_is_no_more_leave_at_once() -> None:
    team = [agent("o0", group="gone"), agent("o1", BUSY, group="gone"), agent("n", new=True)]
    plan = step({"w": 1}, team, pace(), NOW, busy_may_leave=True)
    assert (plan.start, set(plan.drain)) == ({}, {"o0", "o1"})


def test_a_group_that_is_new_starts_whole() -> None:
    assert step({"w": 1, "x": 3}, olds(1), pace(), NOW, busy_may_leave=True).start == {"x": 3}


def test_while_it_is_held_none_is_replaced_but_the_dead_are() -> None:
    assert step({"w": 3}, olds(2), pace(held=True), NOW, busy_may_leave=True).start == {"w": 1}
    assert step({"w": 2}, olds(2), pace(held=True), NOW, busy_may_leave=True) == step(
        {"w": 2}, [replace(one, current=True) for one in olds(2)], pace(), NOW, busy_may_leave=True
    )


def test_a_scale_down_takes_old_agents_first() -> None:
    team = [*olds(3), agent("n", new=True)]
    assert set(step({"w": 2}, team, pace(), NOW, busy_may_leave=True).drain) == {"o0", "o1"}


def test_all_of_a_sleeping_cluster_leaves() -> None:
    team = [agent("o", BUSY), agent("n", new=True, ready=0)]
    assert set(step({}, team, pace(), NOW, busy_may_leave=True).drain) == {"o", "n"}


# --- whole rollouts ---------------------------------------------------------------------------------------------


@dataclass
class World:
    """A cluster whose agents start, work, finish and die by chance, and a clock."""

    desired: dict[str, int]
    pace: Pace
    agents: list[AgentView]
    now: datetime = NOW
    made: int = 0

    def step(self) -> None:
        plan = step(self.desired, self.agents, self.pace, self.now, busy_may_leave=True)
        kept = []
        for one in self.agents:
            if one.agent_id in plan.drain and one.status is STARTING:
                continue
            if one.agent_id in plan.drain:
                one = replace(one, status=DRAINING, draining_since=self.now)
            elif one.agent_id in plan.undo:
                assert one.current
                one = replace(one, status=IDLE, draining_since=None)
            kept.append(one)
        for group, count in plan.start.items():
            for _ in range(count):
                self.made += 1
                kept.append(AgentView(f"n{self.made}", group, STARTING, self.now))
        self.agents = kept

    def pass_time(self, chance: random.Random, *, deaths: bool = False) -> None:
        self.now += timedelta(seconds=chance.choice([0, 1, 5, 20]))
        for one in list(self.agents):
            happens = chance.randint(0, 9)
            self.agents.remove(one)
            if deaths and happens == 9:
                continue
            if one.status is DRAINING and happens < 4:
                continue
            if one.status is STARTING and happens < 6:
                one = replace(one, status=IDLE, ready_at=self.now)
            elif one.status in (IDLE, BUSY):
                one = replace(one, status=BUSY if happens < 5 else IDLE)
            self.agents.append(one)

    def available(self, group: str) -> int:
        ready = [one for one in self.agents if one.group == group and one.status in (IDLE, BUSY)]
        return sum(not one.current or is_healthy(one, self.pace, self.now) for one in ready)

    @property
    def standing(self) -> Standing:
        return standing(self.desired, self.agents, self.pace, self.now)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    desired = {"w": draw(st.integers(1, 6)), "x": draw(st.integers(0, 3))}
    total = sum(desired.values())
    made = Pace(draw(st.integers(1, 4)), total + draw(st.integers(0, 4)), draw(st.sampled_from([0.0, 3.0, 10.0])))
    before = [agent(f"{name}{n}", group=name) for name, count in desired.items() for n in range(count)]
    before += [agent(f"v{n}", group="vanishes") for n in range(draw(st.integers(0, 2)))]
    return World(desired, made, before)


@given(worlds(), st.integers(0, 10**9).map(random.Random))
def test_a_rollout_keeps_its_bounds_and_ends(world: World, chance: random.Random) -> None:
    vanishing = sum(one.group == "vanishes" for one in world.agents)
    for _ in range(400):
        before = {name: world.available(name) for name in world.desired}
        world.step()
        lacking = 0
        for name, want in world.desired.items():
            lacking += max(0, want - world.available(name))
            assert world.available(name) >= min(before[name], want - world.pace.parallel)
        assert lacking <= world.pace.parallel
        assert len(world.agents) <= world.pace.most + vanishing
        assert len(world.agents) <= sum(world.desired.values()) + world.pace.parallel + vanishing
        if world.standing.done:
            return
        world.pass_time(chance)
    pytest.fail("it never ended")


@given(worlds(), st.integers(0, 10**9).map(random.Random))
def test_deaths_hold_a_rollout_up_and_never_have_more_replaced_at_once(world: World, chance: random.Random) -> None:
    for _ in range(30):
        ready = {name: world.available(name) for name in world.desired}
        if all(one.current for one in world.agents):
            break  # from here on it is planning as ever
        world.step()
        lost = sum(max(0, min(ready[n], world.desired[n]) - world.available(n)) for n in ready)
        assert lost <= world.pace.parallel
        world.pass_time(chance, deaths=True)
        world.desired["w"] = chance.randint(0, world.pace.most - world.desired["x"])
    for _ in range(400):
        world.step()
        if world.standing.done:
            return
        world.pass_time(chance)
    pytest.fail("it never ended")


@given(worlds(), st.integers(0, 10**9).map(random.Random))
def test_going_back_in_the_middle_ends_too(world: World, chance: random.Random) -> None:
    for _ in range(chance.randint(0, 8)):
        world.step()
        world.pass_time(chance)
    world.agents = [replace(one, current=not one.current) for one in world.agents]
    world.desired = {**world.desired, "vanishes": 1}
    for _ in range(400):
        lacking = {name: max(0, want - world.available(name)) for name, want in world.desired.items()}
        world.step()
        for name, want in world.desired.items():
            assert want - world.available(name) <= max(lacking[name], world.pace.parallel)
        if world.standing.done:
            return
        world.pass_time(chance)
    pytest.fail("it never ended")


# --- verdicts ---------------------------------------------------------------------------------------------------

POLICY = RolloutPolicy(progress_deadline_seconds=60)


@pytest.mark.parametrize(
    ("standing", "deaths", "waited", "failed"),
    [
        (Standing(old=2, new=1, healthy=0), 0, 60, False),
        (Standing(old=2, new=1, healthy=0), 0, 61, True),
        (Standing(old=2, new=1, healthy=1), 0, 1e6, False),  # an old one takes its time
        (Standing(old=0, new=1, healthy=1, lacking=1), 0, 61, True),
        (Standing(old=2, new=1, healthy=0), 2, 0, False),
        (Standing(old=2, new=1, healthy=0), 3, 0, True),
    ],
)
def test_a_version_fails_by_deaths_or_when_it_makes_no_progress(
    standing: Standing, deaths: int, waited: float, failed: bool
) -> None:
    assert (failure(POLICY, standing, deaths=deaths, waited_seconds=waited) is not None) is failed


@pytest.mark.parametrize(("stated", "total", "parallel"), [(3, 100, 3), ("25%", 8, 2), ("25%", 3, 1), ("100%", 5, 5)])
def test_the_number_at_once_is_a_number_or_a_share(stated: int | str, total: int, parallel: int) -> None:
    assert Pace.of(RolloutPolicy(max_parallel=stated), total, 100).parallel == parallel
    assert parse_max_parallel(stated) == stated


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "0%", "101%", "many", "3", None])
def test_other_numbers_at_once_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_max_parallel(wrong)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)), st.integers(0, 20), st.integers(0, 20),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3),
)  # fmt: skip
def test_moved_counts_lie_within_all_bounds_that_can_be_met(
    targets: dict[str, int], low: int, more: int, ranges: list[tuple[int, int]]
) -> None:
    groups = [
        AgentGroup(name="abc"[n], role=AgentRole.WORKER, count=parse_count(f"{first}-{first + room}"))
        for n, (first, room) in enumerate(ranges)
    ]
    found = moved_targets(targets, groups, low, low + more)
    needed, capacity = sum(a for a, _ in ranges), sum(a + b for a, b in ranges)
    assert all(group.count.minimum <= found[group.name] <= group.count.maximum for group in groups)
    if needed <= low + more and low <= capacity:
        assert low <= sum(found.values()) <= low + more
