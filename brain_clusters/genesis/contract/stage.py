"""A host as the contract's tests play it: it calls a driver as ``genesis.host`` does, and remembers what it is told."""

from __future__ import annotations

import json
import secrets
import select
import time
from collections.abc import Callable, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar

from brain_clusters.broker import names
from brain_clusters.broker.client import Broker
from brain_clusters.broker.words import DrainWords
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.driver import Driver, Phase, Sighting

Found = TypeVar("Found")
_LOOK_SECONDS = 0.05
_QUIET_LOOKS = 20
_UPKEEP_SECONDS = 2.0
_HOST_KEY_SECONDS = 3600


class Stage:
    """One host with its driver, which is open.

    told: the last sighting of each agent. ends: all sightings of each agent's end, by ``start`` or ``changes``.
    """

    def __init__(self, ground: Ground, host: str) -> None:
        self.ground = ground
        self.keys = ground.keys(host)
        self._host = host
        self.told: dict[str, Sighting] = {}
        self.ends: dict[str, list[Sighting]] = {}
        self._host_id = f"{ground.name}-{host}"
        self._broker = Broker(ground.redis_url)
        self.redis: Any = self._broker.redis
        self.redis.set(names.host_key(self._host_id), "{}", ex=_HOST_KEY_SECONDS)
        self._jobs = count()
        self._next_upkeep = 0.0
        self.open()

    def open(self) -> None:
        """Make the driver anew, as the next host on this engine does."""
        self.driver: Driver = self.ground.factory(self.ground.kit(self._host_id, DrainWords(self.redis)))
        self.call(self.driver.open)
        self.is_open = True

    def close(self) -> None:
        """Close the driver; agents live on."""
        self.driver.close()
        self.is_open = False

    # --- the driver, called as a host does

    def call(self, method: Callable[..., Found], *given: Any, **options: Any) -> Found:
        """Call a method of the driver, again while its engine does not answer."""
        deadline = time.monotonic() + self.ground.patience_seconds
        while True:
            try:
                return method(*given, **options)
            except TemporaryError as exc:
                if time.monotonic() > deadline:
                    raise
                time.sleep(min(exc.delay_seconds, 1.0))

    def spec(self, **fields: Any) -> AgentSpec:
        """Return the spec of a new agent of this host; see ``Ground.spec``."""
        return self.ground.spec(self._host, **fields)

    def start(self, *specs: AgentSpec) -> list[str]:
        """Have the driver start agents; return their ids."""
        self._note(self.call(self.driver.start, specs))
        return [spec.agent_id for spec in specs]

    def agents(self, number: int) -> list[str]:
        """Return the ids of ``number`` new agents that consume."""
        started = self.start(*(self.spec() for _ in range(number)))
        self.until_consuming(started)
        return started

    def until_consuming(self, agents: Sequence[str]) -> None:
        """Wait until each of ``agents`` consumes."""
        self.until(lambda: all(map(self.consumes, agents)), "they consume")

    def agent(self) -> str:
        """Return the id of a new agent that consumes."""
        return self.agents(1)[0]

    def busy_agent(self) -> tuple[str, str]:
        """Return the id of a new agent, and the job that it does until ``open_gate``."""
        agent = self.agent()
        job = self.send(agent, "wait")
        self.until(lambda: job in self.begun(), f"{agent} works")
        return agent, job

    def look(self) -> Sequence[Sighting]:
        """Return what the driver tells by now."""
        if time.monotonic() >= self._next_upkeep:
            self._next_upkeep = time.monotonic() + _UPKEEP_SECONDS
            self.call(self.driver.upkeep, None)
        found = self.call(self.driver.changes)
        self._note(found)
        return found

    def _note(self, found: Sequence[Sighting]) -> None:
        for sighting in found:
            self.told[sighting.agent_id] = sighting
            if sighting.phase is Phase.ENDED:
                self.ends.setdefault(sighting.agent_id, []).append(sighting)

    def has_news(self, seconds: float) -> bool:
        """Return whether the driver's descriptor becomes readable within ``seconds``."""
        return bool(select.select([self.driver.fileno()], [], [], seconds)[0])

    def until(self, condition: Callable[[], Found], what: str, *, looking: bool = True) -> Found:
        """Wait until ``condition`` holds; return what it found. looking: also at what the driver tells meanwhile."""
        deadline = time.monotonic() + self.ground.patience_seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not in {self.ground.patience_seconds:g} s; told: {self.told}"
            if looking and self.is_open:
                self.has_news(_LOOK_SECONDS)
                self.look()
            else:
                time.sleep(_LOOK_SECONDS)
        return found

    def until_quiet(self) -> None:
        """Wait until the driver has nothing more to tell for a while."""
        deadline, quiet = time.monotonic() + self.ground.patience_seconds, 0
        while quiet < _QUIET_LOOKS:
            assert time.monotonic() < deadline, f"it tells of changes again and again: {self.told}"
            self.has_news(_LOOK_SECONDS)
            quiet = 0 if self.look() else quiet + 1

    def until_ended(self, agent: str) -> Sighting:
        """Wait until the end of an agent was told."""
        self.until(lambda: agent in self.ends, f"{agent} has ended")
        return self.ends[agent][0]

    def sighted(self, agents: Sequence[str] | None = None) -> dict[str, Sighting]:
        """Return what the driver sees, by agent id."""
        found = self.call(self.driver.sight, agents)
        assert len({one.agent_id for one in found}) == len(found), f"an agent is sighted twice: {found}"
        return {one.agent_id: one for one in found}

    def consumes(self, agent: str) -> bool:
        """Return whether an agent runs and consumes, by its engine or by its beats."""
        told = self.told.get(agent)
        if told is None or told.phase is not Phase.RUNNING:
            return False
        return bool(self.beat(agent)) if told.ready is None else told.ready

    # --- the agents, reached by Redis

    def beat(self, agent: str) -> str | None:
        """Return what an agent tells of itself, or None when it does not beat."""
        found = self.redis.get(names.beat_key(agent))
        return None if found is None else str(found.decode())

    def send(self, agent: str, do: str = "nothing", text: str = "") -> str:
        """Send a job of ``contract.jobs``; return its name."""
        job = f"{self._host_id}-{next(self._jobs)}-{secrets.token_hex(4)}"
        payload = {"redis": self.ground.agents_redis_url, "keys": self.keys, "job": job, "do": do, "text": text}
        message = SimpleNamespace(id=job, payload=payload, eta=None, priority="normal", options={})
        self._broker.publish_jobs(f"{self.keys}:{agent}", [message])
        return job

    def open_gate(self, job: str) -> None:
        """Let a job that waits go on."""
        self.redis.rpush(f"{self.keys}:gate:{job}", "open")

    def begun(self) -> list[str]:
        """Return the jobs that were begun, by whichever agent, in their order."""
        return [job.decode() for job in self.redis.lrange(f"{self.keys}:begun", 0, -1)]

    def does(self, agent: str, do: str = "nothing", text: str = "") -> None:
        """Send a job and wait until it is done."""
        job = self.send(agent, do, text)
        self.until_done(job)

    def until_done(self, job: str) -> None:
        """Wait until a job is done."""
        done = f"{self.keys}:done"
        self.until(lambda: job in [one.decode() for one in self.redis.lrange(done, 0, -1)], f"{job} is done")

    def until_beats(self, agent: str, times: int) -> None:
        """Wait until an agent has beaten so many times more: while that takes, what must not happen does not."""
        seen = {self.beat(agent)}

        def beaten() -> bool:
            seen.add(self.beat(agent))
            return len(seen) > times

        self.until(beaten, f"{agent} beats")

    def until_draining(self, agent: str, *, draining: bool) -> None:
        """Wait until an agent's beats tell that it drains, or that it does not."""
        told = f"{agent} drains: {draining}"
        self.until(lambda: json.loads(self.beat(agent) or "{}").get("draining") is draining, told)

    # --- the end

    def clear(self) -> None:
        """End and remove every agent, see that the engine has none any more, and close."""
        if not self.is_open:
            self.open()
        ours = list(self.sighted())
        self.call(self.driver.stop, ours, now=True)
        self.until(lambda: all(map(self._has_ended, ours)), "all have ended")
        self.call(self.driver.remove, ours)
        self.until(lambda: not self.sighted(), "nothing is left on the engine")
        self.close()
        for key in [names.host_key(self._host_id), *self.redis.scan_iter(f"*{self.ground.name}*")]:
            self.redis.delete(key)
        self._broker.close()

    def _has_ended(self, agent: str) -> bool:
        found = self.sighted([agent]).get(agent)
        return found is None or found.phase is Phase.ENDED
