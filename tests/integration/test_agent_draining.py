"""An agent that is told to drain: it finishes what it has, takes no more, and leaves, unless it is told to go on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from brain_clusters.broker import names
from tests.integration.agents import AgentStage, stage_fixtures

Until = Callable[..., Any]
DRAIN, GO_ON = True, False
WORK = "drained_work:work"

# A job tells that it began, waits for its gate if it has one, and tells that it is done.
HANDLER = """
import os
import redis

def work(payload, context):
    client = redis.Redis.from_url({url!r}, socket_timeout=60)
    client.rpush("begun", payload["say"])
    if "gate" in payload:
        client.blpop(payload["gate"], 30)
    client.rpush("done", payload["say"])
    client.close()
"""


shared_stage, stage = stage_fixtures({"drained_work": HANDLER})


both_pools = pytest.mark.parametrize("slots", [1, 2], ids=["solo", "threads"])


@both_pools
def test_an_idle_agent_that_is_told_to_drain_leaves(stage: AgentStage, slots: int) -> None:
    agent = stage.agent(slots, handler=WORK)
    agent.tell(DRAIN)
    assert agent.until_ended() == 0


@both_pools
def test_a_busy_agent_finishes_what_it_has_takes_nothing_more_and_leaves(
    stage: AgentStage, until: Until, slots: int
) -> None:
    agent = stage.agent(slots, handler=WORK)
    for number in range(slots):
        stage.send(agent, f"held-{number}", gate="gate")
    until(lambda: len(stage.list("begun")) == slots)
    agent.tell(DRAIN)
    stage.send(agent, "later")
    until(lambda: agent.beat.get("draining"), "the beat tells that it drains")
    assert agent.beat["state"] == "busy"
    # With two slots: one is free again for as long as the other works, and takes nothing.
    for number in range(slots):
        stage.redis.rpush("gate", "open")
        until(lambda number=number: len(stage.list("done")) == number + 1)
    assert agent.until_ended() == 0
    assert sorted(stage.list("done")) == [f"held-{number}" for number in range(slots)]
    assert not stage.redis.exists(names.unacked_key(agent.id))
    assert stage.waiting(agent) == 1


@both_pools
def test_an_agent_that_is_told_to_go_on_before_it_is_done_takes_the_next_job(
    stage: AgentStage, until: Until, slots: int
) -> None:
    agent = stage.agent(slots, handler=WORK)
    stage.send(agent, "first", gate="gate")
    until(lambda: stage.list("begun"))
    agent.tell(DRAIN)
    until(lambda: agent.beat.get("draining"))
    agent.tell(GO_ON)
    until(lambda: not agent.beat.get("draining"))
    stage.redis.rpush("gate", "open")
    stage.send(agent, "second")
    until(lambda: sorted(stage.list("done")) == ["first", "second"])
    # And it can be told anew.
    agent.tell(DRAIN)
    assert agent.until_ended() == 0


def test_an_agent_with_a_free_slot_takes_none_while_it_drains_and_does_when_it_goes_on(
    stage: AgentStage, until: Until
) -> None:
    agent = stage.agent(2, handler=WORK)
    stage.send(agent, "first", gate="gate")
    until(lambda: stage.list("begun"))
    agent.tell(DRAIN)
    until(lambda: agent.beat.get("draining"))
    # Several at once: the look that is under way when it is told may bring one, which is done like any other.
    for number in range(3):
        stage.send(agent, f"next-{number}")
    beats = {agent.beat["at"]}
    until(lambda: beats.add(agent.beat["at"]) or len(beats) > 30, "it drains for a while")
    assert stage.redis.llen(agent.queue) >= 2
    assert stage.redis.llen(names.claim_key(agent.id)) == 0  # what it took, it does
    agent.tell(GO_ON)
    until(lambda: len(stage.list("done")) == 3, "the free slot does the others")
    stage.redis.rpush("gate", "open")
    until(lambda: len(stage.list("done")) == 4)
    assert agent.code is None


@both_pools
def test_what_an_agent_is_told_before_it_listens_is_kept(stage: AgentStage, until: Until, slots: int) -> None:
    agent = stage.spawn(slots, handler=WORK)
    agent.tell(DRAIN)
    assert agent.until_ended() == 0
    other = stage.spawn(slots, handler=WORK)
    other.tell(GO_ON)
    stage.send(other, "job")
    until(lambda: stage.list("done") == ["job"])


def test_the_last_word_counts_however_often_it_changes(stage: AgentStage, until: Until) -> None:
    agent = stage.agent(1, handler=WORK)
    stage.send(agent, "first", gate="gate")
    until(lambda: stage.list("begun"))
    for drains in (DRAIN, DRAIN, GO_ON, GO_ON, DRAIN, GO_ON):
        agent.tell(drains)
        until(lambda drains=drains: agent.beat.get("draining") == drains)
    # Nor does it matter how closely words follow each other: a busy process handles several signals as one.
    for number in range(200):
        agent.tell(DRAIN if number % 2 else GO_ON)
    until(lambda: agent.beat.get("draining"))
    agent.tell(GO_ON)
    until(lambda: not agent.beat.get("draining"))
    stage.redis.rpush("gate", "open")
    stage.send(agent, "second")
    until(lambda: stage.list("done") == ["first", "second"])
    agent.signal(signal.SIGTERM)
    assert agent.until_ended() == 0


@both_pools
def test_no_job_is_lost_or_done_twice_by_agents_that_drain_and_go_on_under_load(
    stage: AgentStage, until: Until, slots: int
) -> None:
    agent = stage.agent(slots, handler=WORK)
    for number in range(60):
        stage.send(agent, str(number))
        agent.tell(DRAIN if number % 2 else GO_ON)
    agent.tell(DRAIN)
    assert agent.until_ended() == 0
    assert not stage.redis.exists(names.unacked_key(agent.id))
    done = stage.list("done")
    assert len(done) == len(set(done))
    assert len(done) + stage.waiting(agent) == 60
