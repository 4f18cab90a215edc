"""Which host takes which agent, and what is said when none does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.placement import LONG_SECONDS, YIELD_SECONDS, Need, Room, taken_by, why_not

GIB = 1024**3


def needs(count: int, cpu: float = 0.0, gib: float = 0.0, waited: float = 0.0) -> list[Need]:
    return [Need(f"agent-{number}", cpu, int(gib * GIB), waited) for number in range(count)]


def room(name: str = "a", capacity: int = 100, cpus: float | None = None, gib: float | None = None) -> Room:
    return Room(name, capacity, cpus, None if gib is None else int(gib * GIB))


def placed(wanted: Sequence[Need], rooms: Sequence[Room], passed: Sequence[Need] = ()) -> dict[str, list[str]]:
    """Return what every host takes when all look at once."""

    def copies() -> list[Room]:
        return [
            Room(one.host_id, one.capacity, one.cpus, one.memory_bytes, one.agents, one.cpu_used, one.memory_used)
            for one in rooms
        ]

    return {one.host_id: taken_by(one.host_id, wanted, copies(), passed) for one in rooms}


# --- who takes what ---------------------------------------------------------------------------------------------


def test_hosts_of_one_size_share_evenly() -> None:
    assert [len(found) for found in placed(needs(51), [room("a"), room("b"), room("c")]).values()] == [17, 17, 17]


def test_hosts_share_by_their_size_and_by_what_they_run_already() -> None:
    big, small, busy = room("big", 40), room("small", 10), Room("busy", 40, agents=38)
    assert {name: len(found) for name, found in placed(needs(50), [big, small, busy]).items()} == {
        "big": 40, "small": 9, "busy": 1,
    }  # fmt: skip


def test_one_host_takes_all_that_it_has_room_for() -> None:
    assert len(taken_by("a", needs(50), [room("a", 200)])) == 50
    assert len(taken_by("a", needs(50), [room("a", 20)])) == 20


def test_the_scarcest_resource_of_a_host_counts() -> None:
    wide, narrow = room("wide", cpus=64, gib=8), room("narrow", cpus=4, gib=64)
    found = placed(needs(4, cpu=1, gib=1) + needs(2, cpu=2), [wide, narrow])
    assert len(found["wide"]) > len(found["narrow"])


def test_resources_that_are_used_are_not_given_twice() -> None:
    assert len(taken_by("a", needs(9, cpu=0.5), [Room("a", 100, cpus=2.0, cpu_used=0.75)])) == 2
    assert len(taken_by("a", needs(9, gib=1), [room("a", gib=4)])) == 4


def test_ten_tenths_of_a_core_are_a_core() -> None:
    assert len(taken_by("a", needs(11, cpu=0.1), [room("a", cpus=1)])) == 10


def test_agents_that_state_no_resources_count_by_places_alone() -> None:
    assert len(taken_by("a", needs(5), [Room("a", 8, cpus=1.0, memory_bytes=GIB, cpu_used=1.0, memory_used=GIB)])) == 5


def test_what_another_host_should_take_is_taken_once_that_is_late() -> None:
    rooms = [room("a"), room("b")]
    assert len(taken_by("a", needs(10, waited=YIELD_SECONDS + 1), rooms)) == 10


def test_small_ones_pass_a_big_one_that_does_not_fit() -> None:
    big, small = Need("big", cpu=4.0), Need("small", cpu=1.0)
    assert taken_by("a", [big, small], [Room("a", 10, cpus=4.0, cpu_used=2.0)]) == ["small"]


def test_a_host_is_kept_for_one_that_was_passed_for_long_and_the_others_are_not_blocked() -> None:
    big = Need("big", cpu=4.0, waited=LONG_SECONDS + 1)
    rooms = [Room("a", 10, cpus=4.0, cpu_used=2.0), Room("b", 10, cpus=4.0, cpu_used=1.0)]
    found = placed([big, *needs(2, cpu=1.0)], rooms, [big])
    assert found == {"a": ["agent-0", "agent-1"], "b": []}
    unsized = placed([big, *needs(2)], rooms, [big])
    assert sorted(unsized["a"] + unsized["b"]) == ["agent-0", "agent-1"]
    # The one that is kept has become free.
    assert placed([big, *needs(2, cpu=1.0)], [rooms[0], room("b", cpus=4)], [big])["b"] == ["big"]


def test_no_host_is_kept_for_one_that_is_larger_than_any() -> None:
    huge = Need("huge", cpu=16.0, waited=LONG_SECONDS + 1)
    assert taken_by("a", needs(4, cpu=1.0), [room("a", cpus=4)], [huge]) == [f"agent-{number}" for number in range(4)]


sizes = st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0, 4.0]), st.sampled_from([0.0, 0.25, 1.0, 6.0]))
hosts = st.tuples(
    st.integers(1, 6), st.none() | st.sampled_from([0.5, 2.0, 8.0]), st.none() | st.sampled_from([0.5, 4.0, 16.0])
)


@given(st.lists(sizes, max_size=25), st.lists(hosts, min_size=1, max_size=4))
def test_hosts_that_look_at_once_take_each_agent_at_most_once_and_no_more_than_they_have(
    wanted: list[tuple[float, float]], sites: list[tuple[int, float | None, float | None]]
) -> None:
    asked = [Need(str(place), cpu, int(gib * GIB)) for place, (cpu, gib) in enumerate(wanted)]
    rooms = [room(f"host-{place}", *site) for place, site in enumerate(sites)]
    found = placed(asked, rooms)
    times = Counter(agent for agents in found.values() for agent in agents)
    assert all(count == 1 for count in times.values())
    for one in rooms:
        mine = [asked[int(agent)] for agent in found[one.host_id]]
        assert len(mine) <= one.capacity
        assert one.cpus is None or sum(need.cpu for need in mine) <= one.cpus + 1e-6
        assert one.memory_bytes is None or sum(need.memory_bytes for need in mine) <= one.memory_bytes
        for need in mine:
            one.add(need)
    # Nobody waits who fits somewhere.
    assert not any(one.takes(need) for need in asked if need.agent_id not in times for one in rooms)


# --- why not ----------------------------------------------------------------------------------------------------


def test_it_is_said_that_no_host_runs_and_how_to_start_one() -> None:
    assert why_not(Need("x"), "docker", []) == (
        "no host of the driver docker runs: start one with brain-clusters host --driver docker"
    )


def test_it_is_said_what_is_needed_and_what_is_left() -> None:
    rooms = [
        Room("host-1", 10, 8.0, 16 * GIB, cpu_used=7.0, memory_used=15 * GIB),
        Room("host-2", 10, 8.0, 16 * GIB, cpu_used=6.5, memory_used=13 * GIB),
    ]
    assert why_not(Need("x", 4.0, 8 * GIB), "process", rooms) == (
        "no host of the driver process has room: it needs 4 cores and 8 GiB; the roomiest, host-2, has 1.5 cores and "
        "3 GiB left"
    )
    assert why_not(Need("x", 0.0, 8 * GIB), "process", rooms[:1]) == (
        "no host of the driver process has room: it needs 8 GiB; the roomiest, host-1, has 1 GiB left"
    )


def test_it_is_said_that_no_host_is_large_enough() -> None:
    assert why_not(Need("x", 4.0, GIB // 2), "process", [room("small", cpus=1), room("large", cpus=2)]) == (
        "no host of the driver process is large enough: it needs 4 cores and 512 MiB; the largest, large, has 2 cores"
    )


def test_it_is_said_that_all_places_are_taken() -> None:
    full = Room("host-1", 200, agents=200)
    assert why_not(Need("x"), "process", [full]) == (
        "no host of the driver process has room: all 200 places of host-1 are taken; start another host, or raise "
        "BRAIN_HOST_CAPACITY"
    )
    assert "all 300 places of 2 hosts" in str(why_not(Need("x"), "process", [full, Room("b", 100, agents=100)]))


def test_nothing_is_said_of_what_is_about_to_be_placed() -> None:
    assert why_not(Need("x", 1.0), "process", [room(cpus=1)]) is None
