"""Agents that were given up: they take nothing more, end at once, and nothing of them counts."""

from __future__ import annotations

import signal

from brain_clusters.broker import fences, names
from brain_clusters.processes import ProcessId
from tests.integration.agents import AgentStage, stage_fixtures

HANDLERS = """
import subprocess, time

def work(payload, context):
    child = subprocess.Popen(["sleep", "600"])
    with open(payload["told"], "w") as told:
        told.write(str(child.pid))
    time.sleep(600)
"""
shared_stage, stage = stage_fixtures({"fenced": HANDLERS})


def test_an_agent_that_is_given_up_ends_at_once_with_all_that_it_started(stage: AgentStage) -> None:
    agent = stage.agent(handler="fenced:work")
    told = stage.folder / "child"
    stage.post(agent.queue, {"told": str(told)})
    stage.until(lambda: told.exists() and told.read_text(), "the job has begun")
    child = int(told.read_text())
    fences.fence(stage.redis, [agent.id])
    assert agent.until_ended() == -signal.SIGKILL
    stage.until(lambda: ProcessId.of(child) is None, "what it started is gone")
    assert "given up" in agent.log
    assert stage.waiting(agent) == 1


def test_an_agent_that_was_given_up_before_it_was_born_does_nothing(stage: AgentStage) -> None:
    fences.fence(stage.redis, [f"agent-{number}" for number in range(20)])  # whichever it will be
    stage.post("queue-early", {"told": str(stage.folder / "never")})
    agent = stage.spawn(queue="queue-early", handler="fenced:work")
    assert agent.until_ended() == -signal.SIGKILL
    assert stage.redis.llen("queue-early") == 1
    assert not (stage.folder / "never").exists()


def test_an_agent_that_does_not_know_yet_that_it_was_given_up_takes_nothing(stage: AgentStage) -> None:
    agent = stage.agent(handler="fenced:work")
    agent.signal(signal.SIGSTOP)
    # As a message lies that was on its way to it.
    stage.post(agent.queue, {"told": str(stage.folder / "never")})
    stage.redis.lmove(agent.queue, names.claim_key(agent.id), "RIGHT", "LEFT")
    stage.post(agent.queue, {"told": str(stage.folder / "never")})
    fences.fence(stage.redis, [agent.id])
    agent.signal(signal.SIGCONT)
    agent.until_ended()
    assert stage.waiting(agent) == 2
    assert not (stage.folder / "never").exists()
