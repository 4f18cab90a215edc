"""An agent that is told to drain: it finishes what it has, takes no more, and leaves, unless it is told to go on."""

from __future__ import annotations

import json
import os
import selectors
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from brain_clusters.agent.config import AgentConfig
from brain_clusters.broker import names
from brain_clusters.broker.client import Broker
from brain_clusters.broker.restore import restore
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.process.nursery import Nursery
from brain_clusters.processes import DRAIN_SIGNAL, drain_marker

Until = Callable[..., Any]
DRAIN, GO_ON = True, False

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


@dataclass(frozen=True)
class Sent:
    id: str
    payload: Any
    eta: None = None
    priority: str = "normal"
    options: Mapping[str, Any] = field(default_factory=dict)


class Agent:
    """One agent, forked by a zygote as a host has it done."""

    def __init__(self, stage: Stage, spec: AgentSpec) -> None:
        self._stage = stage
        self.id, self.queue = spec.agent_id, spec.queue
        self._marker = drain_marker(stage.folder, spec.agent_id)
        self.pid: int | None = None
        self.ready = False
        self.code: int | None = None

    def tell(self, drains: bool) -> None:
        """Write the marker and have it looked at, as a host does."""
        if drains:
            self._marker.touch()
        else:
            self._marker.unlink(missing_ok=True)
        self.signal(DRAIN_SIGNAL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: one that is gone hears nothing."""
        assert self.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def until_ended(self) -> int:
        """Wait for its end and return its exit code."""
        self._stage.until(lambda: self._stage.look() and self.code is not None, f"the end of {self.id}")
        assert self.code is not None
        return self.code

    @property
    def beat(self) -> dict[str, Any]:
        found: Any = self._stage.redis.get(names.beat_key(self.id))
        return dict(json.loads(found)) if found else {}


class Stage:
    """A zygote, a Redis, and the agents on them."""

    def __init__(self, url: str, folder: Path, until: Until) -> None:
        self.redis = redis.Redis.from_url(url)
        self.until = until
        self.folder = folder
        self._broker = Broker(url)
        self._numbers = count()
        self._agents: dict[str, Agent] = {}
        (folder / "drained_work.py").write_text(HANDLER.format(url=url))
        config = AgentConfig(url, None, str(folder), str(folder), handler_path=(str(folder),), beat_interval=0.05)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
        self._nursery = Nursery(asdict(config), environ, folder / "zygote.log")
        self._selector = selectors.DefaultSelector()
        self._nursery.attach(self._selector)

    def spawn(self, concurrency: int) -> Agent:
        """Have an agent forked; return it as soon as it has a pid."""
        name = f"agent-{next(self._numbers)}"
        spec = AgentSpec(
            agent_id=name, cluster_id="c", group_name="g", role="worker", queue=f"queue-{name}",
            handler="drained_work:work", concurrency=concurrency,
        )  # fmt: skip
        agent = self._agents[name] = Agent(self, spec)
        self._nursery.spawn(spec)
        self.until(lambda: self.look() and agent.pid is not None, f"{name} is born")
        return agent

    def agent(self, concurrency: int) -> Agent:
        """Return an agent that consumes."""
        agent = self.spawn(concurrency)
        self.until(lambda: self.look() and agent.ready, f"{agent.id} is ready")
        return agent

    def look(self) -> bool:
        """Take the zygote's reports."""
        for report in self._nursery.reports():
            kind = report["is"]
            if kind == "spawned":
                self._agents[report["agent"]].pid = report["pid"]
            elif kind == "ready":
                self._agents[report["agent"]].ready = True
            elif kind == "exited":
                for agent in self._agents.values():
                    if agent.pid == report["pid"]:
                        agent.code = report["code"]
        return True

    def send(self, agent: Agent, say: str, **payload: Any) -> None:
        self._broker.publish_jobs(agent.queue, [Sent(uuid.uuid4().hex, {"say": say, **payload})])

    def list(self, name: str) -> list[str]:
        found: Any = self.redis.lrange(name, 0, -1)
        return [item.decode() for item in found]

    def waiting(self, agent: Agent) -> int:
        """Return how many jobs wait, once what a dead agent still held is back."""
        restore(self.redis, agent.id)
        found: Any = self.redis.llen(agent.queue)
        return int(found)

    def clear(self) -> None:
        for agent in self._agents.values():
            if agent.pid is not None and agent.code is None:
                agent.signal(signal.SIGKILL)
                agent.until_ended()
        self._agents.clear()
        self.redis.flushdb()

    def close(self) -> None:
        self.clear()
        self._nursery.close()
        self._selector.close()
        self._broker.close()
        self.redis.close()


@pytest.fixture(scope="module")
def shared_stage(redis_url: str, tmp_path_factory: pytest.TempPathFactory, until: Until) -> Iterator[Stage]:
    found = Stage(redis_url, tmp_path_factory.mktemp("agents"), until)
    yield found
    found.close()


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """A Redis that is empty and agents of one's own."""
    yield shared_stage
    shared_stage.clear()


both_pools = pytest.mark.parametrize("slots", [1, 2], ids=["solo", "threads"])


@both_pools
def test_an_idle_agent_that_is_told_to_drain_leaves(stage: Stage, slots: int) -> None:
    agent = stage.agent(slots)
    agent.tell(DRAIN)
    assert agent.until_ended() == 0


@both_pools
def test_a_busy_agent_finishes_what_it_has_takes_nothing_more_and_leaves(
    stage: Stage, until: Until, slots: int
) -> None:
    agent = stage.agent(slots)
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
    stage: Stage, until: Until, slots: int
) -> None:
    agent = stage.agent(slots)
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
    stage: Stage, until: Until
) -> None:
    agent = stage.agent(2)
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
def test_what_an_agent_is_told_before_it_listens_is_kept(stage: Stage, until: Until, slots: int) -> None:
    agent = stage.spawn(slots)
    agent.tell(DRAIN)
    assert agent.until_ended() == 0
    other = stage.spawn(slots)
    other.tell(GO_ON)
    stage.send(other, "job")
    until(lambda: stage.list("done") == ["job"])


def test_the_last_word_counts_however_often_it_changes(stage: Stage, until: Until) -> None:
    agent = stage.agent(1)
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
    stage: Stage, until: Until, slots: int
) -> None:
    agent = stage.agent(slots)
    for number in range(60):
        stage.send(agent, str(number))
        agent.tell(DRAIN if number % 2 else GO_ON)
    agent.tell(DRAIN)
    assert agent.until_ended() == 0
    assert not stage.redis.exists(names.unacked_key(agent.id))
    done = stage.list("done")
    assert len(done) == len(set(done))
    assert len(done) + stage.waiting(agent) == 60
