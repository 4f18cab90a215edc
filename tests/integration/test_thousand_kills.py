"""Agents are killed a thousand times, at every step of a job and at random instants, and no job is lost."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords
from brain_clusters.broker.restore import restore
from brain_clusters.domain.states import JobStatus
from tests.integration.agents import Agent, AgentStage, Until

KILLS = 1000
AT_ONCE = 8
QUEUE = "kills"
AGENT: dict[str, Any] = {"queue": QUEUE, "handler": "killed_work:work", "max_deliveries": 1_000_000}
# brought: out of the queue by the blocking pop, not entered yet. claimed: entered and begun, not delivered to Celery.
# delivered: to Celery, which calls. begun: the handler is about to run. done: it ran, and that is not recorded yet.
# finished: recorded and acknowledged, and Celery does not know.
STEPS = ("brought", "claimed", "delivered", "begun", "done", "finished")

HANDLER = """
import redis

client = redis.Redis.from_url({url!r})

def work(payload, context):
    client.rpush("done", context.job_id)
"""


@pytest.fixture
def stage(redis_url: str, tmp_path: Path, until: Until) -> Iterator[AgentStage]:
    points = ",".join(f"{step}:kill:{tmp_path / step}" for step in STEPS)
    found = AgentStage(
        redis_url, tmp_path, until, {"killed_work": HANDLER.format(url=redis_url)}, {"BRAIN_FAILPOINT": points},
        beat_interval=1.0,
    )  # fmt: skip
    yield found
    found.close()


class Killer:
    """Keeps agents alive, lets them die, and sends jobs. Half of the deaths are at steps, half at random instants."""

    def __init__(self, stage: AgentStage, plain: Celery) -> None:
        self._stage, self._plain = stage, plain
        self._random = random.Random(4)
        self._agents: list[Agent] = []
        self._ends: dict[str, float] = {}
        self._armed: set[str] = set()
        self.sent: list[str] = []
        self.kills = 0
        self.at_step: Counter[str] = Counter()

    def round(self) -> None:
        """Look once at everything."""
        self._stage.look()
        for step in [step for step in self._armed if not (self._stage.folder / step).exists()]:
            self._armed.remove(step)
            self.at_step[step] += 1
        for agent in list(self._agents):
            if agent.code is not None:
                self._bury(agent)
            elif agent.ready:
                self._strike(agent)
        while len(self._agents) < AT_ONCE:
            self._agents.append(self._stage.ask_for(**AGENT))
        self._arm()
        if not self._stage.redis.llen(QUEUE):
            self._send(self._random.randint(1, 12))

    def _bury(self, agent: Agent) -> None:
        assert agent.code == -signal.SIGKILL, f"{agent.id} ended with {agent.code}"
        self._agents.remove(agent)
        restore(self._stage.redis, agent.id)
        self.kills += 1

    def _strike(self, agent: Agent) -> None:
        """Kill an agent when its time has come; half of them live a while, for a step to kill them."""
        soon = self._random.uniform(0, 0.3 if self._random.random() < 0.5 else 0.02)
        if time.monotonic() >= self._ends.setdefault(agent.id, time.monotonic() + soon):
            agent.signal(signal.SIGKILL)

    def _steps_left(self) -> list[str]:
        return [step for step in STEPS if self.at_step[step] < KILLS / 2 / len(STEPS)]

    def _arm(self) -> None:
        """Have one step kill whoever comes to it next."""
        if not self._armed and (left := self._steps_left()):
            step = self._random.choice(left)
            (self._stage.folder / step).touch()
            self._armed.add(step)

    def _send(self, number: int) -> None:
        for _ in range(number):
            if self._random.random() < 0.5:
                self.sent.append(self._plain.send_task(names.JOB_TASK, [None], queue=QUEUE).id)
            else:
                self.sent.append(self._stage.post(QUEUE, None))

    def relent(self) -> None:
        """Kill no more. Agents that were struck may still be dying."""
        for step in STEPS:
            (self._stage.folder / step).unlink(missing_ok=True)


def test_a_thousand_kills_lose_no_job(
    stage: AgentStage, redis_url: str, record_property: pytest.RecordProperty, until: Until
) -> None:
    with Celery(broker=redis_url, set_as_current=False) as plain:
        killer = Killer(stage, plain)
        while killer.kills < KILLS:
            killer.round()
            stage.wait(0.001)
        killer.relent()
        records = JobRecords(stage.redis)

        def all_done() -> bool:
            for agent in stage.dead():
                restore(stage.redis, agent.id)
            found = records.get(killer.sent)
            return all(job in found and found[job].status is JobStatus.SUCCEEDED for job in killer.sent)

        stage.agent(**AGENT)
        until(all_done, "every job is recorded as done")
    runs = Counter(stage.list("done"))
    assert set(runs) == set(killer.sent)
    twice = sum(1 for times in runs.values() if times > 1)
    found = f"{killer.kills} kills, {dict(killer.at_step)} at steps; {len(runs)} jobs, none lost, {twice} ran twice"
    record_property("kills", found)
    print(found)
    assert all(killer.at_step[step] > 0 for step in STEPS)
