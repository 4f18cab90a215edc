"""Supervisors, leads and workers as real agents that hand work down, wait for it without a slot, and are killed."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.broker.restore import restore
from brain_clusters.domain.sharing import SharedMemory
from brain_clusters.domain.specs import Tree
from brain_clusters.domain.states import JobStatus
from tests.integration.agents import Agent, AgentStage, Until

QUEUES = {group: names.group_queue("c", group) for group in ("head", "leads", "hands")}
BELOW = {
    "head": {"Leads": {"queue": QUEUES["leads"], "capabilities": ["leading"]}},
    "leads": {"Hands": {"queue": QUEUES["hands"], "capabilities": ["counting"]}},
    "hands": {},
}
KILLS = 60

HANDLER = """
import os

def head(payload, context):
    if context.results is None:
        if payload.get("to"):
            return context.delegate(payload["to"], [1])
        leads = range(payload["leads"])
        return context.delegate("leading", [{**payload, "lead": n} for n in leads], state={"leads": len(leads)})
    assert context.state == {"leads": payload["leads"]}
    return [found["result"] for found in context.results]

def lead(payload, context):
    if context.results is None:
        hands = range(payload["hands"])
        half = len(hands) // 2
        work = [{"lead": payload["lead"], "hand": n, "fail": n == payload.get("fail")} for n in hands]
        return context.delegate("Hands", work[:half]) + context.delegate("counting", work[half:], state="all")
    assert context.state == "all"
    if "rounds" in payload and len(context.results) > 1:
        return context.delegate("Hands", [{"lead": payload["lead"], "hand": -1}], state="all")
    return [found["result"] or found["status"] for found in context.results]

def hand(payload, context):
    context.memory.incr("runs")
    if payload.get("fail"):
        raise ValueError("as asked")
    return [payload["lead"], payload["hand"]]
"""


class Office:
    """Three groups of agents, and the jobs sent to their head."""

    def __init__(self, stage: AgentStage) -> None:
        self.stage = stage
        self.records = JobRecords(stage.redis)
        self.sent: list[str] = []

    def staff(self, fields: Mapping[str, Any] = MappingProxyType({}), /, **numbers: int) -> list[Agent]:
        agents = [self.hire(group, **fields) for group, number in numbers.items() for _ in range(number)]
        self.stage.until(lambda: self.stage.look() and all(agent.ready for agent in agents), "the agents are ready")
        return agents

    def hire(self, group: str, **fields: Any) -> Agent:
        handler = {"head": "head", "leads": "lead", "hands": "hand"}[group]
        return self.stage.ask_for(
            handler=handler, queue=QUEUES[group], delegates=BELOW[group], memory=SharedMemory(),
            **{"max_deliveries": 1_000_000, **fields},
        )  # fmt: skip

    def ask(self, number: int = 1, **payload: Any) -> list[str]:
        ids = [f"root-{len(self.sent) + n}" for n in range(number)]
        for job_id in ids:
            self.stage.publish(QUEUES["head"], job_id, payload)
        self.sent += ids
        return ids

    def ended(self, ids: list[str]) -> dict[str, JobReport]:
        found = self.records.get(ids)
        return found if len(found) == len(ids) and all(one.finished_at for one in found.values()) else {}

    def until_ended(self, ids: list[str]) -> dict[str, JobReport]:
        found: dict[str, JobReport] = self.stage.until(lambda: self.ended(ids), "every tree is done", seconds=60)
        return found

    def left_over(self) -> list[str]:
        kinds = ("join:*", "unacked:*", "claim:*", "eta:*")
        keys: list[Any] = [key for kind in kinds for key in self.stage.redis.scan_iter(f"brain:{kind}")]
        return sorted(key.decode() for key in keys + [q for q in QUEUES.values() if self.stage.redis.llen(q)])


@pytest.fixture(scope="module")
def stage(redis_url: str, tmp_path_factory: pytest.TempPathFactory, until: Until) -> Iterator[AgentStage]:
    folder = tmp_path_factory.mktemp("office")
    found = AgentStage(redis_url, folder, until, HANDLER, BRAIN_FAILPOINT=f"handed_down:kill:{folder / 'handed_down'}")
    yield found
    found.close()


@pytest.fixture
def office(stage: AgentStage) -> Iterator[Office]:
    yield Office(stage)
    stage.clear()


def answer(leads: int, hands: int) -> list[list[list[int]]]:
    return [[[lead, hand] for hand in range(hands)] for lead in range(leads)]


def test_ten_jobs_of_one_supervisor_with_one_slot_do_not_block_each_other(office: Office) -> None:
    office.staff(head=1, leads=1, hands=1)
    roots = office.ask(10, leads=2, hands=3)
    found = office.until_ended(roots)
    assert {job_id: one.result for job_id, one in found.items()} == dict.fromkeys(roots, answer(2, 3))
    assert {(one.status, one.attempts) for one in found.values()} == {(JobStatus.SUCCEEDED, 1)}
    assert office.left_over() == []
    assert office.stage.redis.xlen(names.ACCEPTED_STREAM) == 10 * (2 + 6)
    ended = [report.id for _, report in office.records.finished(1000)]
    assert len(ended) == len(set(ended)) == 10 * (1 + 2 + 6)


def test_a_failed_child_is_told_to_its_parent_which_goes_on(office: Office) -> None:
    office.staff(head=1, leads=1, hands=1)
    [found] = office.until_ended(office.ask(leads=1, hands=3, fail=1)).values()
    assert found.result == [[[0, 0], "failed", [0, 2]]]


def test_a_continuation_may_hand_down_again(office: Office) -> None:
    office.staff(head=1, leads=1, hands=1)
    [found] = office.until_ended(office.ask(leads=2, hands=3, rounds=2)).values()
    assert found.result == [[[0, -1]], [[1, -1]]]


def test_a_thousand_children_at_once(office: Office) -> None:
    office.staff(head=1, leads=1, hands=2)
    [found] = office.until_ended(office.ask(leads=1, hands=1000)).values()
    assert found.result == answer(1, 1000)
    assert office.left_over() == []


@pytest.mark.parametrize(
    ("fields", "payload", "told"),
    [
        ({}, {"to": "Hands"}, "'g' cannot hand work to 'Hands': those who report to it are 'Leads', which offer "
         "'leading'"),
        ({"tree": Tree(max_fan_out=2)}, {"leads": 3}, "one job may hand down 2 jobs at once, and this one wants to "
         "hand down 3; hand them down in several rounds, or raise cluster.delegation.max_fan_out"),
        ({"tree": Tree(max_jobs=3)}, {"leads": 3}, "a tree may hold 3 jobs, and this one holds 1; 3 more are too many: "
         "hand down fewer, or raise cluster.delegation.max_jobs"),
    ],
)  # fmt: skip
def test_what_the_hierarchy_does_not_have_fails_with_a_sentence(
    office: Office, fields: dict[str, Any], payload: dict[str, Any], told: str
) -> None:
    office.staff(fields, head=1)
    [found] = office.until_ended(office.ask(**payload)).values()
    assert (found.status, found.error) == (JobStatus.FAILED, {"type": "DelegationRefused", "message": told})
    assert office.stage.redis.llen(QUEUES["leads"]) == 0


def test_an_agent_that_dies_right_after_handing_down_has_handed_down_once(office: Office) -> None:
    marker = office.stage.folder / "handed_down"
    marker.touch()
    [victim] = office.staff(head=1)
    roots = office.ask(leads=2, hands=1)
    assert victim.until_ended() == -signal.SIGKILL
    marker.unlink(missing_ok=True)
    assert restore(office.stage.redis, victim.id) == 0
    assert office.stage.redis.llen(QUEUES["leads"]) == 2
    office.staff(head=1, leads=1, hands=1)
    [found] = office.until_ended(roots).values()
    assert (found.result, found.attempts) == (answer(2, 1), 1)


def test_whoever_is_killed_each_tree_is_completed_once(office: Office) -> None:
    chance = random.Random(7)
    agents = {agent: group for group, number in {"head": 2, "leads": 2, "hands": 3}.items()
              for agent in office.staff(**{group: number})}  # fmt: skip
    kills = 0
    while kills < KILLS:
        if len(office.sent) < 200 and office.stage.redis.llen(QUEUES["head"]) < 3:
            office.ask(3, leads=2, hands=4)
        office.stage.look()
        ready = [agent for agent in agents if agent.ready and agent.code is None]
        if ready and chance.random() < 0.5:
            chance.choice(ready).signal(signal.SIGKILL)
        for agent in [agent for agent in agents if agent.code is not None]:
            restore(office.stage.redis, agent.id)
            group = agents.pop(agent)
            agents[office.hire(group)] = group
            kills += 1
        office.stage.wait(chance.uniform(0, 0.03))

    def all_ended() -> bool:
        for agent in office.stage.dead():
            restore(office.stage.redis, agent.id)
        return bool(office.ended(office.sent))

    office.staff(head=1, leads=1, hands=1)
    office.stage.until(all_ended, "every tree is done", seconds=60)
    found = office.records.get(office.sent)
    assert [one.result for one in found.values()] == [answer(2, 4)] * len(office.sent)
    times = Counter(entry[b"id"] for _, entry in office.stage.redis.xrange(names.FINISHED_STREAM))  # type: ignore[union-attr]
    assert set(times.values()) == {1}
    assert len(times) == len(office.sent) * (1 + 2 + 8)
    assert [key for key in office.left_over() if ":join:" in key] == []
    runs = json.loads(office.stage.redis.hget(names.memory_keys("c")[0], "runs") or "0")  # type: ignore[arg-type]
    print(f"{kills} kills, {len(office.sent)} trees; {runs} runs of {len(office.sent) * 8} jobs of workers")
