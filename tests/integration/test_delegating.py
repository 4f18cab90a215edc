"""Handing work down and going on, step by step on a real Redis. What agents do, the tests do by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from brain_clusters.agent.delegation import Delegating, DelegationRefused, Team, child_id
from brain_clusters.agent.errors import JobCancelled
from brain_clusters.broker import names
from brain_clusters.broker.client import connect
from brain_clusters.broker.delegating import Child, Handed, Join, Joins, Parent
from brain_clusters.broker.jobs import Delivery, JobRecords, JobReport
from brain_clusters.broker.messages import Messages
from brain_clusters.broker.restore import restore
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.jobs import JobOptions, Priority
from brain_clusters.domain.specs import Tree
from brain_clusters.domain.states import JobStatus

HEAD, HANDS = names.group_queue("c", "head"), names.group_queue("c", "hands")


@dataclass
class Floor:
    """Two groups' queues, and whoever takes from them."""

    client: redis.Redis
    records: JobRecords = field(init=False)
    joins: Joins = field(init=False)

    def __post_init__(self) -> None:
        self.records, self.joins = JobRecords(self.client), Joins(self.client)

    def send(self, job_id: str, queue: str = HEAD, priority: Priority = Priority.NORMAL) -> None:
        child = Child(job_id, "Head", queue, {"of": job_id}, {}, priority)
        low = names.kombu_lists(queue)[2]
        listed = {Priority.HIGH: names.high_list(queue), Priority.NORMAL: queue, Priority.LOW: low}[priority]
        self.client.lpush(listed, Messages(queue).build(child, 1.0))

    def take(self, owner: str, queue: str = HEAD) -> Held | None:
        """Take the next message as the transport does, and begin its job."""
        for name in names.priority_lists(queue):
            raw: Any = self.client.rpop(name)
            if raw is None:
                continue
            message = json.loads(raw)
            tag = message["properties"]["delivery_tag"]
            listed = name if name == names.high_list(queue) else queue
            self.client.hset(names.unacked_key(owner), tag, f'[{raw.decode()},"",{json.dumps(listed)}]')
            begun = self.records.begin(message["headers"]["id"], owner)
            return Held(owner, message, Delivery(begun.attempt, begun.deaths, begun.cancelled, tag, queue))
        return None

    def ack(self, held: Held) -> None:
        self.client.hdel(names.unacked_key(held.owner), held.delivery.tag)

    def hand_down(self, held: Held, *payloads: Any, number: int = 1, state: Any = None, most: int = 100) -> Handed:
        options = JobOptions.from_header(held.headers[names.OPTIONS_HEADER])
        team = Team(spec(), held.id, options, held.delivery)
        delegation = team.delegate("Hands", payloads, state=state, timeout=None, max_attempts=None, priority=None)
        parent = Parent(held.id, "c", "Head", held.owner, options, held.delivery, number, 1.0)
        return self.joins.hand_down(parent, team.children(delegation, number), state, most=most)

    def finish(self, held: Held, result: Any = None, status: JobStatus = JobStatus.SUCCEEDED) -> None:
        error = None if status is JobStatus.SUCCEEDED else {"type": "Oops", "message": "no"}
        report = JobReport(held.id, "c", "g", held.owner, status, held.delivery.attempt, 1.0, 2.0, result, error)
        parent = JobOptions.from_header(held.headers[names.OPTIONS_HEADER]).parent_id
        self.records.finish(report, held.delivery, parent_id=parent)

    def record(self, job_id: str) -> dict[str, str]:
        found: Any = self.client.hgetall(names.job_key(job_id))
        return {key.decode(): value.decode() for key, value in found.items()}

    def length(self, queue: str) -> int:
        return sum(int(self.client.llen(name)) for name in names.priority_lists(queue))  # type: ignore[arg-type]


@dataclass
class Held:
    owner: str
    message: dict[str, Any]
    delivery: Delivery

    @property
    def headers(self) -> dict[str, Any]:
        found: dict[str, Any] = self.message["headers"]
        return found

    @property
    def id(self) -> str:
        return str(self.headers["id"])

    @property
    def goes_on(self) -> bool:
        return names.JOINED_HEADER in self.headers


def spec(**fields: Any) -> AgentSpec:
    below = {
        "Hands": {"queue": HANDS, "capabilities": ["packing", "carrying"]},
        "Fast Hands": {"queue": names.group_queue("c", "fast-hands"), "capabilities": ["carrying", "running"]},
    }
    given = {"agent_id": "a", "cluster_id": "c", "group_name": "Head", "role": "supervisor", "queue": HEAD}
    return AgentSpec(**{**given, "delegates": below, **fields})


@pytest.fixture
def floor(redis_url: str) -> Floor:
    client = connect(redis_url)
    client.flushdb()
    return Floor(client)


def taken(floor: Floor, owner: str = "boss", queue: str = HEAD) -> Held:
    found = floor.take(owner, queue)
    assert found is not None
    return found


# --- going on ---------------------------------------------------------------------------------------------------


def test_a_job_goes_on_once_when_the_last_of_its_children_has_ended(floor: Floor) -> None:
    floor.send("job")
    boss = taken(floor)
    assert floor.hand_down(boss, "one", "two", "three", state={"kept": 1}) == ("waits", 3)
    assert floor.client.hlen(names.unacked_key("boss")) == 0
    assert floor.take("boss") is None, "it waits where no agent has it"
    assert floor.record("job")["waiting_for"] == "3"
    hands = [taken(floor, f"hand-{n}", HANDS) for n in range(3)]
    assert [held.id for held in hands] == [child_id("job", 1, n) for n in range(3)]
    floor.finish(hands[2], "c")
    floor.finish(hands[0], None, JobStatus.FAILED)
    assert floor.take("boss") is None
    floor.finish(hands[1], {"b": [1]})
    again = taken(floor)
    assert (again.id, again.goes_on, again.delivery.attempt, again.delivery.deaths) == ("job", True, 1, 0)
    assert again.headers["redelivered"] is True, "its age is no waiting"
    join = floor.joins.read("job")
    assert join is not None
    assert (join.round, join.state, join.started_at) == (1, {"kept": 1}, 1.0)
    assert join.results == [
        {"id": hands[0].id, "status": "failed", "result": None, "error": {"type": "Oops", "message": "no"}},
        {"id": hands[1].id, "status": "succeeded", "result": {"b": [1]}, "error": None},
        {"id": hands[2].id, "status": "succeeded", "result": "c", "error": None},
    ]
    floor.finish(again, "done")
    assert floor.take("boss") is None
    assert not floor.client.exists(names.join_key("job"))
    assert floor.record("job")["status"] == "succeeded"


def test_no_children_are_waited_for_by_nobody(floor: Floor) -> None:
    floor.send("job")
    assert floor.hand_down(taken(floor)) == ("waits", 0)
    assert taken(floor).goes_on
    join = floor.joins.read("job")
    assert join is not None
    assert join.results == []


def test_a_job_may_hand_down_several_times(floor: Floor) -> None:
    floor.send("job")
    for number in (1, 2, 3):
        assert floor.hand_down(taken(floor), number, number=number) == ("waits", 1)
        hand = taken(floor, "hand", HANDS)
        assert hand.id == child_id("job", number, 0)
        floor.finish(hand, number)
        join = floor.joins.read("job")
        assert join is not None
        assert (join.round, [found["result"] for found in join.results]) == (number, [number])
    last = taken(floor)
    assert last.delivery.attempt == 1
    floor.finish(last)
    assert floor.client.hlen(names.tree_key("job")) == 3


@pytest.mark.parametrize("priority", list(Priority))
def test_a_job_goes_back_to_the_list_that_it_came_from_as_the_next(floor: Floor, priority: Priority) -> None:
    floor.send("job", priority=priority)
    floor.hand_down(taken(floor), "one")
    floor.send("other", priority=priority)
    floor.finish(taken(floor, "hand", HANDS))
    assert taken(floor).id == "job"


def test_an_agent_that_dies_in_the_continuation_counts_as_an_attempt_and_loses_nothing(floor: Floor) -> None:
    floor.send("job")
    floor.hand_down(taken(floor), "one")
    floor.finish(taken(floor, "hand", HANDS), "kept")
    taken(floor)
    assert restore(floor.client, "boss") == 1
    again = taken(floor)
    assert (again.goes_on, again.delivery.attempt, again.delivery.deaths) == (True, 2, 1)
    join = floor.joins.read("job")
    assert join is not None
    assert join.results[0]["result"] == "kept"


# --- twice ------------------------------------------------------------------------------------------------------


def test_a_second_attempt_hands_down_the_same_children_and_none_twice(floor: Floor) -> None:
    floor.send("job")
    floor.send("job")  # a message that was published twice
    first, second = taken(floor, "boss"), taken(floor, "boss-2")
    assert floor.hand_down(first, "one", "two") == ("waits", 2)
    assert floor.hand_down(second, "one", "two") == ("over", 0)
    assert floor.length(HANDS) == 2
    assert floor.client.hlen(names.unacked_key("boss-2")) == 0
    floor.send("job")
    third = taken(floor)
    assert third.delivery.attempt == 0, "one that waits is not begun by another delivery"
    floor.ack(third)
    for _ in range(2):
        floor.finish(taken(floor, "hand", HANDS))
    assert taken(floor).goes_on
    assert floor.take("boss") is None


def test_a_child_that_ends_twice_is_counted_once(floor: Floor) -> None:
    floor.send("job")
    floor.hand_down(taken(floor), "one", "two")
    hand = taken(floor, "hand", HANDS)
    floor.finish(hand)
    floor.finish(hand)
    assert floor.record("job")["waiting_for"] == "1"
    assert floor.take("boss") is None


def test_an_agent_that_lost_its_message_hands_nothing_down(floor: Floor) -> None:
    floor.send("job")
    lost = taken(floor)
    restore(floor.client, "boss")
    assert floor.hand_down(lost, "one") == ("gone", 0)
    assert floor.length(HANDS) == 0
    assert floor.length(HEAD) == 1


def test_after_a_loss_in_redis_the_root_hands_the_same_down_again(floor: Floor) -> None:
    floor.send("job")
    floor.hand_down(taken(floor), "one", "two")
    first = taken(floor, "hand", HANDS)
    floor.client.flushdb()
    floor.send("job")
    floor.finish(first, "early")  # its agent knew nothing of the loss
    assert floor.hand_down(taken(floor), "one", "two") == ("waits", 1)
    second = taken(floor, "hand", HANDS)
    assert second.id == child_id("job", 1, 1)
    floor.finish(second, "late")
    assert taken(floor).goes_on
    join = floor.joins.read("job")
    assert join is not None
    assert [found["result"] for found in join.results] == ["early", "late"]


def test_a_child_that_failed_is_handed_down_anew_when_its_parent_is_tried_again(floor: Floor) -> None:
    floor.send("job")
    floor.hand_down(taken(floor), "one", "two")
    floor.finish(taken(floor, "hand", HANDS), "good")
    floor.finish(taken(floor, "hand", HANDS), None, JobStatus.FAILED)
    floor.finish(taken(floor), None, JobStatus.FAILED)
    floor.client.delete(names.job_key("job"))  # as who retries it does
    floor.send("job")
    assert floor.hand_down(taken(floor), "one", "two") == ("waits", 1)
    hand = taken(floor, "hand", HANDS)
    assert (hand.id, hand.delivery.attempt) == (child_id("job", 1, 1), 1)


def test_whatever_dies_and_in_whatever_order_each_round_is_gone_on_with_once(floor: Floor) -> None:
    """Random walks: take, hand down, finish, die, be delivered twice."""
    for seed in range(25):
        floor.client.flushdb()
        _walk(floor, random.Random(seed))


def _walk(floor: Floor, chance: random.Random) -> None:
    roots = [f"root-{n}" for n in range(3)]
    for root in roots:
        floor.send(root)
    held: dict[str, Held] = {}
    went_on: Counter[tuple[str, int]] = Counter()
    for _ in range(2000):
        owner = f"agent-{chance.randrange(4)}"
        mine = held.get(owner)
        if mine is None:
            found = floor.take(owner, chance.choice([HEAD, HANDS]))
            if found is not None and found.delivery.attempt == 0:
                floor.ack(found)
            elif found is not None:
                held[owner] = found
        elif chance.random() < 0.2:
            restore(floor.client, owner)
            del held[owner]
        else:
            _step(floor, chance, held.pop(owner), went_on)
        if all(floor.record(root).get("status") == "succeeded" for root in roots) and not held:
            break
    assert all(floor.record(root)["status"] == "succeeded" for root in roots)
    for root in roots:
        join = json.loads(floor.record(root)["result"])
        assert join == [child_id(root, 2, index) for index in range(3)]
    assert all(went_on[root, number] == 1 for root in roots for number in (1, 2))


def _step(floor: Floor, chance: random.Random, mine: Held, went_on: Counter[tuple[str, int]]) -> None:
    if not mine.id.startswith("root"):
        floor.finish(mine, mine.id)
        return
    if chance.random() < 0.1 and not mine.goes_on:
        floor.send(mine.id)
    join = floor.joins.read(mine.id) if mine.goes_on else None
    number = 1 if join is None else join.round + 1
    if number <= 2:
        if floor.hand_down(mine, *range(3), number=number).what == "waits":
            went_on[mine.id, number] += 1
    else:
        assert join is not None
        floor.finish(mine, [found["result"] for found in join.results])


# --- bounds and cancelling --------------------------------------------------------------------------------------


def test_a_tree_that_is_full_takes_no_more_and_is_not_counted_twice(floor: Floor) -> None:
    floor.send("job")
    boss = taken(floor)
    assert floor.hand_down(boss, 1, 2, 3, most=3) == ("full", 1)
    assert floor.length(HANDS) == 0
    assert floor.hand_down(boss, 1, 2, most=3) == ("waits", 2)
    for _ in range(2):
        floor.finish(taken(floor, "hand", HANDS))
    assert floor.hand_down(taken(floor), 1, number=2, most=3) == ("full", 3)


@pytest.mark.parametrize("cancelled", ["job", "middle"])
def test_nothing_is_handed_down_below_what_is_cancelled(floor: Floor, cancelled: str) -> None:
    floor.send("job")
    floor.hand_down(taken(floor), "one")
    middle = taken(floor, "hand", HANDS)
    name = "job" if cancelled == "job" else middle.id
    floor.client.set(names.cancel_key(name), "{}")
    assert floor.hand_down(middle, "deeper") == ("cancelled", 0)
    assert floor.client.hlen(names.unacked_key("hand")) == 1, "who holds it has to end it"


def test_a_job_that_waits_is_cancelled_at_once_and_late_children_find_nothing(floor: Floor) -> None:
    floor.send("job")
    floor.hand_down(taken(floor), "one", "two")
    middle = taken(floor, "hand", HANDS)
    floor.hand_down(middle, "deeper")
    deepest, other = taken(floor, "hand", HANDS), taken(floor, "hand", HANDS)
    if JobOptions.from_header(other.headers[names.OPTIONS_HEADER]).depth == 2:
        deepest, other = other, deepest
    error = {"type": "JobCancelled", "message": "cancelled"}
    assert floor.joins.cancel_waiting([middle.id, other.id, "unknown"], error) == [middle.id]
    assert floor.record(middle.id)["status"] == "cancelled"
    assert floor.record("job")["waiting_for"] == "1", "the parent of what was cancelled gets to know"
    floor.finish(deepest, "late")
    assert floor.length(HANDS) == 0
    floor.finish(other)
    join = floor.joins.read("job")
    assert join is not None
    assert join.results[0] == {"id": middle.id, "status": "cancelled", "result": None, "error": error}
    found = [report.id for _, report in floor.records.finished(10)]
    assert found == [middle.id, deepest.id, other.id]


def test_a_refusal_says_why(floor: Floor) -> None:
    floor.send("job")
    boss = taken(floor)
    its = spec(agent_id="boss", tree=Tree(max_jobs=2))
    delegating = Delegating(floor.records, its)
    team = delegating.team("job", JobOptions(), boss.delivery, 1.0)
    both = ask(team, payloads=[1, 2])
    with pytest.raises(DelegationRefused, match="a tree may hold 2 jobs, and this one holds 1; 2 more are too many"):
        delegating.hand_down(team, both, None)
    floor.client.set(names.cancel_key("job"), "{}")
    with pytest.raises(JobCancelled):
        delegating.hand_down(team, ask(team, payloads=[1]), None)


# --- what a handler may ask for ---------------------------------------------------------------------------------


def team_of(its: AgentSpec, options: JobOptions, join: Join | None = None) -> Team:
    return Team(its, "job", options, Delivery(1), 5.0, join)


def ask(team: Team, to: Any = "Hands", payloads: Any = (), **fields: Any) -> Any:
    return team.delegate(
        to, payloads, **{"state": None, "timeout": None, "max_attempts": None, "priority": None, **fields}
    )


@pytest.mark.parametrize(
    ("to", "group", "capability"),
    [("Hands", "Hands", None), ("fast-hands", "Fast Hands", None), ("carrying", "Hands", "carrying"),
     ("running", "Fast Hands", "running")],
)  # fmt: skip
def test_work_goes_to_a_group_or_to_who_is_capable_of_it(to: str, group: str, capability: str | None) -> None:
    (child,) = team_of(spec(), JobOptions()).children(ask(team_of(spec(), JobOptions()), to, [1]), 1)
    assert (child.group, child.options.get("capability")) == (group, capability)
    assert {**child.options, "capability": None} == {
        "parent_id": "job", "root_id": "job", "depth": 1, "capability": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"to": "Head"}, r"'Head' cannot hand work to 'Head': those who report to it are 'Hands', 'Fast Hands', which "
         r"offer 'carrying', 'packing', 'running'"),
        ({"to": None}, "cannot hand work to None"),
        ({"payloads": "text"}, "payloads is a list"),
        ({"payloads": {"a": 1}}, "payloads is a list"),
        ({"payloads": [{1, 2}]}, "a payload is not JSON"),
        ({"payloads": ["x" * 1024 * 1024]}, "a payload is 1048578 bytes of JSON; the limit is 1048576"),
        ({"state": float("nan")}, "the state is not JSON"),
        ({"timeout": "soon"}, "timeout must be a duration"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"max_attempts": 0}, "max_attempts is a whole number from 1 to 100"),
        ({"priority": "urgent"}, "there is no priority 'urgent'; there are high, normal, low"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_a_sentence(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(DelegationRefused, match=told):
        ask(team_of(spec(), JobOptions()), **fields)


def test_a_group_without_subordinates_hands_nothing_down() -> None:
    with pytest.raises(DelegationRefused, match="'Head' cannot hand work to 'Hands': no group reports to it"):
        ask(team_of(spec(delegates={}), JobOptions()), "Hands", [1])


def test_depth_and_fan_out_are_bounded() -> None:
    tree = Tree(max_depth=2, max_fan_out=3)
    with pytest.raises(DelegationRefused, match=r"handed down 2 times, and cluster\.delegation\.max_depth is 2"):
        ask(team_of(spec(tree=tree), JobOptions(depth=2)), "Hands", [1])
    team = team_of(spec(tree=tree), JobOptions(depth=1))
    with pytest.raises(DelegationRefused, match="may hand down 3 jobs at once, and this one wants to hand down 4"):
        team.children(ask(team, payloads=[1, 2]) + ask(team, payloads=[3, 4]), 1)


def test_delegations_add_up_in_order_and_one_has_the_state() -> None:
    team = team_of(spec(), JobOptions(root_id="root", depth=1))
    both = ask(team, payloads=[1, 2], state=7) + ask(
        team, "running", [3], priority="high", timeout="2m", max_attempts=4
    )
    assert both.state == 7
    children = team.children(both, 2)
    assert [(child.group, child.payload) for child in children] == [("Hands", 1), ("Hands", 2), ("Fast Hands", 3)]
    assert children[2].priority is Priority.HIGH
    stated = JobOptions.from_header(children[2].options)
    assert stated == JobOptions(
        max_attempts=4, timeout_seconds=120, capability="running", parent_id="job", root_id="root", depth=2
    )
    with pytest.raises(DelegationRefused, match="state is given twice"):
        both + ask(team, state=8)


def test_a_job_in_parts_began_with_the_first_and_used_what_all_used() -> None:
    first = team_of(spec(), JobOptions())
    assert (first.started_at, first.usage(None), first.usage({"calls": 1})) == (5.0, None, {"calls": 1})
    join = Join(1, None, [], 2.0, {"calls": 1, "input_tokens": 10, "model": "a"})
    second = team_of(spec(), JobOptions(), join)
    assert second.started_at == 2.0
    assert second.usage(None) == join.usage
    assert second.usage({"calls": 2, "model": "b"}) == {"calls": 3, "input_tokens": 10, "model": "b"}
