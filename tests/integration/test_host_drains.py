"""What a host tells its agents about draining, with real agents and a desk whose rows the test writes itself."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from brain_clusters.agent.config import AgentConfig
from brain_clusters.broker import names
from brain_clusters.broker.client import Broker
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.desk import Ended
from brain_clusters.genesis.host import Host
from brain_clusters.genesis.process.driver import ProcessDriver
from brain_clusters.genesis.process.nursery import Nursery
from tests.integration.agents import Sent
from tests.integration.paper_desk import PaperDesk

Until = Callable[..., Any]
_names = count()


class Stage:
    """A desk, and hosts that come and go."""

    def __init__(self, url: str, folder: Path, until: Until) -> None:
        self._url, self._folder, self._until = url, folder, until
        self.redis = redis.Redis.from_url(url)
        self.desk = PaperDesk(self.redis)
        self.gate = folder / "gate"
        self._broker = Broker(url)
        self._host: Host | None = None

    def start(self) -> None:
        config = AgentConfig(self._url, None, str(self._folder), str(self._folder), beat_interval=0.05)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
        nursery = Nursery(asdict(config), environ, self._folder / "zygote.log")
        driver = ProcessDriver(nursery, run_dir=self._folder, log_dir=self._folder)
        self._host = Host(self.desk, driver, capacity=10)
        self._thread = threading.Thread(target=self._host.run)
        self._thread.start()

    def end(self, *, leave_agents: bool = False) -> None:
        assert self._host is not None
        if leave_agents:
            self._host.abandon()
        else:
            self._host.stop(0)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.end()
        self._broker.close()
        self.redis.close()

    def agent(self) -> str:
        """Return the id of an agent that consumes. Its jobs last until the file ``gate`` is there."""
        name = self.asked_for()
        self._until(lambda: name in self.desk.handles, f"{name} is ready")
        return name

    def asked_for(self) -> str:
        """Return the id of an agent that a host has claimed."""
        name = f"agent-{next(_names)}"
        wait = ("sh", "-c", 'while ! [ -e "$0" ]; do sleep 0.02; done', str(self.gate))
        self.desk.pending.append(
            AgentSpec(agent_id=name, cluster_id="c", group_name="g", role="worker", queue=f"queue-{name}", command=wait)
        )
        self.desk.poke()
        self._until(lambda: name in self.desk.rows, f"{name} is claimed")
        return name

    def busy_agent(self) -> str:
        """Return the id of an agent that works on a job."""
        name = self.agent()
        self.send(name)
        self._until(lambda: self.beat(name).get("in_flight"), f"{name} works")
        return name

    def send(self, agent_id: str) -> None:
        self._broker.publish_jobs(f"queue-{agent_id}", [Sent(uuid.uuid4().hex)])

    def beat(self, agent_id: str) -> dict[str, Any]:
        found: Any = self.redis.get(names.beat_key(agent_id))
        return dict(json.loads(found)) if found else {}

    def until_draining(self, agent_id: str, *, draining: bool) -> None:
        self._until(lambda: self.beat(agent_id).get("draining") is draining, f"{agent_id} drains: {draining}")

    def until_done(self, agent_id: str, jobs: int) -> None:
        self._until(lambda: self.beat(agent_id).get("completed") == jobs, f"{agent_id} has done {jobs} jobs")

    def pid(self, agent_id: str) -> int:
        return int(self.desk.handles[agent_id]["pid"])

    def until_gone(self, agent_id: str) -> Ended:
        found = self._until(lambda: self.desk.gone.get(agent_id), f"the end of {agent_id}")
        assert isinstance(found, Ended)
        return found


@pytest.fixture
def stage(redis_url: str, tmp_path: Path, until: Until) -> Iterator[Stage]:
    found = Stage(redis_url, tmp_path, until)
    found.redis.flushdb()
    found.start()
    yield found
    found.close()


def test_a_draining_row_makes_its_agent_leave(stage: Stage) -> None:
    agent = stage.agent()
    stage.desk.wants(agent, draining=True)
    assert stage.until_gone(agent) == Ended(agent, asked=True)


def test_a_drain_that_is_undone_leaves_the_agent_at_work(stage: Stage) -> None:
    agent = stage.busy_agent()
    for draining in (True, False, True, False):
        stage.desk.wants(agent, draining=draining)
        stage.until_draining(agent, draining=draining)
    stage.gate.touch()
    stage.send(agent)
    stage.until_done(agent, 2)
    stage.desk.wants(agent, draining=True)
    assert stage.until_gone(agent) == Ended(agent, asked=True)


def test_an_agent_that_had_begun_to_leave_when_it_was_told_to_go_on_has_left_as_asked(stage: Stage) -> None:
    agent = stage.busy_agent()
    for draining in (True, False):
        stage.desk.wants(agent, draining=draining)
        stage.until_draining(agent, draining=draining)
    os.kill(stage.pid(agent), signal.SIGTERM)  # as it does by itself when it holds nothing
    stage.gate.touch()
    assert stage.until_gone(agent) == Ended(agent, asked=True)


def test_an_agent_that_is_killed_after_its_drain_was_undone_has_died(stage: Stage) -> None:
    agent = stage.busy_agent()
    for draining in (True, False):
        stage.desk.wants(agent, draining=draining)
        stage.until_draining(agent, draining=draining)
    os.kill(stage.pid(agent), signal.SIGKILL)
    ended = stage.until_gone(agent)
    assert not ended.asked
    assert ended.error is not None
    assert ended.error.startswith("killed by SIGKILL")
    assert stage.redis.llen(f"queue-{agent}") == 1


def test_an_agent_that_is_not_ready_yet_is_stopped_for_good(stage: Stage) -> None:
    agent = stage.asked_for()
    stage.desk.wants(agent, draining=True)
    assert stage.until_gone(agent) == Ended(agent, asked=True)


def test_the_next_host_tells_the_agents_what_their_rows_say_now(stage: Stage) -> None:
    stays, leaves = stage.busy_agent(), stage.busy_agent()
    for agent in (stays, leaves):
        stage.desk.wants(agent, draining=True)
        stage.until_draining(agent, draining=True)
    stage.end(leave_agents=True)
    stage.desk.wants(stays, draining=False)
    stage.start()
    stage.until_draining(stays, draining=False)
    stage.gate.touch()
    assert stage.until_gone(leaves) == Ended(leaves, asked=True)
    stage.send(stays)
    stage.until_done(stays, 2)


def test_a_drain_that_the_last_host_has_not_told_any_more_is_told_by_the_next(stage: Stage) -> None:
    agent = stage.busy_agent()
    stage.end(leave_agents=True)
    stage.desk.wants(agent, draining=True)
    stage.start()
    stage.until_draining(agent, draining=True)
    stage.gate.touch()
    assert stage.until_gone(agent) == Ended(agent, asked=True)


def test_a_busy_agent_is_killed_when_its_drain_takes_too_long_and_only_then(stage: Stage) -> None:
    agent = stage.busy_agent()
    stage.desk.wants(agent, draining=True, draining_seconds=10, kill_after=11)
    stage.until_draining(agent, draining=True)
    stage.desk.wants(agent, draining=True, draining_seconds=12)
    assert agent not in stage.desk.gone
    stage.desk.wants(agent, draining=True, draining_seconds=12, kill_after=11)
    assert stage.until_gone(agent) == Ended(agent, asked=True)
    assert stage.redis.llen(f"queue-{agent}") == 1


def test_a_host_that_ends_stops_its_agents_for_good_though_they_were_told_to_go_on(stage: Stage) -> None:
    agent = stage.busy_agent()
    for draining in (True, False):
        stage.desk.wants(agent, draining=draining)
        stage.until_draining(agent, draining=draining)
    stage.end()
    assert stage.desk.gone == {agent: Ended(agent, asked=True)}
    stage.start()
