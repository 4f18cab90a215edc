"""Agents as a host has them forked by a zygote, on a Redis of their own."""

from __future__ import annotations

import json
import os
import selectors
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from types import MappingProxyType
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


@dataclass(frozen=True)
class Sent:
    id: str
    payload: Any = None
    eta: None = None
    priority: str = "normal"
    options: Mapping[str, Any] = field(default_factory=dict)


class Agent:
    """One agent, forked by a zygote as a host has it done."""

    def __init__(self, stage: AgentStage, spec: AgentSpec) -> None:
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

    @property
    def log(self) -> str:
        return (self._stage.folder / f"{self.id}.log").read_text()


class AgentStage:
    """A zygote, a Redis, and the agents on them.

    modules: what handlers can be imported from, text by name; variables: of the agents' environment.
    """

    def __init__(
        self, url: str, folder: Path, until: Until, modules: Mapping[str, str],
        variables: Mapping[str, str] = MappingProxyType({}), **config: Any,
    ) -> None:  # fmt: skip
        self.redis = redis.Redis.from_url(url)
        self.until = until
        self.folder = folder
        self._broker = Broker(url)
        self._numbers = count()
        self._agents: dict[str, Agent] = {}
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        found = AgentConfig(
            url, None, str(folder), str(folder), handler_path=(str(folder),), **{"beat_interval": 0.05, **config}
        )
        environ = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
        self._nursery = Nursery(asdict(found), {**environ, **variables}, folder / "zygote.log")
        self._selector = selectors.DefaultSelector()
        self._nursery.attach(self._selector)

    def spawn(self, concurrency: int = 1, **fields: Any) -> Agent:
        """Have an agent forked; return it as soon as it has a pid."""
        agent = self.ask_for(concurrency, **fields)
        self.until(lambda: self.look() and agent.pid is not None, f"{agent.id} is born")
        return agent

    def ask_for(self, concurrency: int = 1, **fields: Any) -> Agent:
        """Have an agent forked, and do not wait for it."""
        name = f"agent-{next(self._numbers)}"
        spec = AgentSpec(
            agent_id=name, cluster_id="c", group_name="g", role="worker", concurrency=concurrency,
            **{"queue": f"queue-{name}", **fields},
        )  # fmt: skip
        agent = self._agents[name] = Agent(self, spec)
        self._nursery.spawn(spec)
        return agent

    def agent(self, concurrency: int = 1, **fields: Any) -> Agent:
        """Return an agent that consumes."""
        agent = self.spawn(concurrency, **fields)
        self.until(lambda: self.look() and (agent.ready or agent.code is not None), f"{agent.id} is ready")
        assert agent.ready, agent.log
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
        self.post(agent.queue, {"say": say, **payload})

    def post(self, queue: str, payload: Any) -> str:
        """Send a job; return its id."""
        job = Sent(uuid.uuid4().hex, payload)
        self._broker.publish_jobs(queue, [job])
        return job.id

    def record(self, job_id: str) -> dict[str, Any]:
        """Return what the job's record says."""
        found: Any = self.redis.hgetall(names.job_key(job_id))
        return {key.decode(): value.decode() for key, value in found.items()}

    def wait(self, seconds: float) -> None:
        """Wait for a report of the zygote, at most for ``seconds``."""
        self._nursery.wait(seconds)

    def dead(self) -> Sequence[Agent]:
        """Return the agents that have ended."""
        self.look()
        return [agent for agent in self._agents.values() if agent.code is not None]

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


def stage_fixtures(modules: Mapping[str, str], **config: Any) -> tuple[Any, Any]:
    """Return the fixtures ``shared_stage``, of a test module, and ``stage``, the same with no agents and no messages.

    modules: what handlers can be imported from, in which {url} stands for the address of Redis.
    """

    @pytest.fixture(scope="module")
    def shared_stage(redis_url: str, tmp_path_factory: pytest.TempPathFactory, until: Until) -> Iterator[AgentStage]:
        written = {name: text.format(url=redis_url) for name, text in modules.items()}
        found = AgentStage(redis_url, tmp_path_factory.mktemp("agents"), until, written, **config)
        yield found
        found.close()

    @pytest.fixture
    def stage(shared_stage: AgentStage) -> Iterator[AgentStage]:
        yield shared_stage
        shared_stage.clear()

    return shared_stage, stage
