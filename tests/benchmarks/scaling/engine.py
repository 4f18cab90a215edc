"""A discrete-event simulator of one queue, the agents that serve it and the autoscaler that sizes them.

An agent does one job at a time, takes the oldest that waits, and is charged from the moment its start is asked for
until it is gone. Jobs killed by a scaler's grace go to the front of the queue and run again from the beginning.
While the broker is out nobody reads the queue: clients hold what arrives, idle agents get nothing.
"""

from __future__ import annotations

import random
from collections import deque
from heapq import heappop, heappush
from itertools import count

from tests.benchmarks.scaling.records import BUSY, GONE, IDLE, STARTING, Agent, Run, Sample
from tests.benchmarks.scaling.scaler import Scaler
from tests.benchmarks.scaling.traces import Trace

_READY, _DONE, _KILL, _TICK, _OUT, _BACK, _SAMPLE = range(7)
# A job that is killed again and again is never done; after this much overtime that is the finding.
_OVERTIME = 3600.0
# As agents have it in brain_clusters.agent.beats.
_EWMA_WEIGHT = 0.2


class Simulation:
    """A run in progress; scalers read its public attributes, as their real selves would by their own means.

    ready: jobs in the queue; running: jobs in work; starting, idle: agents; leaving: draining agents; desired: the
    count asked for last; readable: whether the broker answers; finished: jobs that are done; last_start: the seconds
    that the last start took, 0 at first.
    """

    def __init__(self, trace: Trace, scaler: Scaler, start_time: float, seed: int, sample: float = 0.0) -> None:
        self.trace, self.scaler = trace, scaler
        self.start_time = scaler.start_time if scaler.start_time is not None else start_time
        self.rng = random.Random(f"{trace.name}/{seed}")
        self.queue: deque[int] = deque()
        self.starting: list[Agent] = []
        self.waiting: deque[Agent] = deque()  # idle agents, the longest idle first
        self.busy: dict[Agent, None] = {}
        self.leaving: dict[Agent, None] = {}
        self.idle = self.running = self.desired = self.finished = self.arrived = self.actions = 0
        self.interrupted = self.most_agents = 0
        self.readable = True
        self.agent_seconds = self.last_start = 0.0
        self.began = [0.0] * len(trace.due)
        self.runs = [0] * len(trace.due)
        self.samples: list[Sample] = []
        self._sample = sample
        self._area = self._since = self.now = 0.0
        self._heap: list[tuple[float, int, int, Agent | None, int]] = []
        self._order = count()

    @property
    def ready(self) -> int:
        return len(self.queue)

    @property
    def in_system(self) -> int:
        return len(self.queue) + self.running

    @property
    def capacity(self) -> int:
        """Agents that work or are about to; those that leave are none."""
        return len(self.starting) + self.serving

    @property
    def serving(self) -> int:
        """Ready agents that do not leave."""
        return self.idle + len(self.busy)

    @property
    def alive(self) -> int:
        return self.capacity + len(self.leaving)

    def area(self) -> float:
        """The integral of jobs in the system over time so far, in job seconds: averages are its differences."""
        return self._area + self.in_system * (self.now - self._since)

    def oldest_age(self) -> float | None:
        return self.now - self.trace.due[self.queue[0]] if self.queue else None

    def running_age(self) -> float | None:
        """How long the jobs in work have run so far, on average."""
        ages = [self.now - self.began[agent.job] for agent in self.busy]
        return sum(ages) / len(ages) if ages else None

    def service_averages(self) -> list[float]:
        """What the ready agents' beats say of service times."""
        return [agent.service for agent in [*self.waiting, *self.busy] if agent.service is not None]

    # The run.

    def run(self) -> Run:
        trace = self.trace
        self._prepare()
        arrivals, following = trace.listed, 0
        total, infinite = len(trace.due), float("inf")
        upcoming = arrivals[0] if total else infinite
        while True:
            at = self._heap[0][0] if self._heap else infinite
            if upcoming < at:
                self.now = upcoming
                self._arrive(following)
                following += 1
                upcoming = arrivals[following] if following < total else infinite
                continue
            if at > trace.horizon and self.finished == total:
                break
            if at > trace.horizon + _OVERTIME:
                break
            self.now = at
            self._happen()
        return self._result()

    def _prepare(self) -> None:
        scaler = self.scaler
        self._push(self.rng.uniform(0.0, scaler.interval), _TICK)
        if self.trace.outage:
            self._push(self.trace.outage[0], _OUT)
            self._push(self.trace.outage[1], _BACK)
        if self._sample:
            self._push(0.0, _SAMPLE)
        for _ in range(scaler.minimum):  # what always runs is there from the beginning
            agent = Agent(0.0)
            self.starting.append(agent)
            self._become_ready(agent)
        self.desired = scaler.minimum
        self.most_agents = scaler.minimum

    def _push(self, at: float, kind: int, agent: Agent | None = None, run: int = 0) -> None:
        heappush(self._heap, (at, next(self._order), kind, agent, run))

    def _settle_area(self) -> None:
        """To be called before the number of jobs in the system changes."""
        self._area += (len(self.queue) + self.running) * (self.now - self._since)
        self._since = self.now

    def _arrive(self, job: int) -> None:
        self._settle_area()
        self.arrived += 1
        self.queue.append(job)
        hook = self.scaler.hook
        if self.idle and self.readable:
            self._dispatch()
        if hook == "all" or (hook == "zero" and not self.capacity):
            self._apply(self.scaler.arrived(self.now, self, job))

    def _happen(self) -> None:
        _, _, kind, agent, run = heappop(self._heap)
        if kind == _TICK:
            self._push(self.now + self.scaler.interval, _TICK)
            self._apply(self.scaler.tick(self.now, self))
        elif kind == _SAMPLE:
            self._push(self.now + self._sample, _SAMPLE)
            self.samples.append(Sample(self.now, self.in_system, self.alive, self.desired))
        elif kind in (_OUT, _BACK):
            self.readable = kind == _BACK
            self._dispatch()
        elif agent is not None and agent.state != GONE:
            if kind == _READY:
                self.last_start = self.now - agent.asked
                self._become_ready(agent)
            elif agent.state == BUSY and agent.run == run:
                if kind == _DONE:
                    self._finish(agent)
                elif agent.draining:
                    self._kill(agent)

    def _become_ready(self, agent: Agent) -> None:
        self.starting.remove(agent)
        self._wait(agent)
        self._dispatch()

    def _wait(self, agent: Agent) -> None:
        agent.state, agent.idle_since = IDLE, self.now
        self.idle += 1
        self.waiting.append(agent)

    def _dispatch(self) -> None:
        while self.queue and self.idle and self.readable:
            agent = self.waiting.popleft()
            self.idle -= 1
            job = self.queue.popleft()
            agent.state, agent.job = BUSY, job
            agent.run += 1
            self.busy[agent] = None
            self.running += 1
            self.began[job] = self.now
            self.runs[job] += 1
            self._push(self.now + self.trace.service[job], _DONE, agent, agent.run)

    def _finish(self, agent: Agent) -> None:
        self._settle_area()
        self.running -= 1
        self.finished += 1
        took = self.trace.service[agent.job]
        agent.service = took if agent.service is None else agent.service + _EWMA_WEIGHT * (took - agent.service)
        if agent.draining:
            del self.leaving[agent]
            self._gone(agent)
            self._reconcile()
            return
        del self.busy[agent]
        self._wait(agent)
        self._dispatch()

    def _kill(self, agent: Agent) -> None:
        self._settle_area()
        self.running -= 1
        self.interrupted += 1
        self.queue.appendleft(agent.job)
        del self.leaving[agent]
        self._gone(agent)
        self._dispatch()
        self._reconcile()

    def _gone(self, agent: Agent) -> None:
        agent.state = GONE
        self.agent_seconds += self.now - agent.asked

    def _apply(self, wanted: int | None) -> None:
        if wanted is not None:
            wanted = max(self.scaler.minimum, min(wanted, self.scaler.maximum))
            self.actions += wanted != self.desired
            self.desired = wanted
            self._reconcile()

    def _reconcile(self) -> None:
        missing = self.desired - self.capacity
        if missing < 0:
            for agent in self._victims(-missing):
                self._send_away(agent)
        elif missing:
            for _ in range(missing):
                if not (self.scaler.undo and self._take_back()) and self.alive < self.scaler.maximum:
                    self._spawn()
            self.most_agents = max(self.most_agents, self.alive)

    def _spawn(self) -> None:
        agent = Agent(self.now)
        self.starting.append(agent)
        self._push(self.now + self.start_time, _READY, agent)

    def _take_back(self) -> bool:
        if not self.leaving:
            return False
        agent, _ = self.leaving.popitem()
        agent.draining = False
        self.busy[agent] = None
        return True

    def _victims(self, number: int) -> list[Agent]:
        chosen = self.starting[::-1][:number]
        number -= len(chosen)
        idle, busy = list(self.waiting), list(self.busy)
        if self.scaler.victims == "random":
            return chosen + self.rng.sample(idle + busy, number)
        return chosen + (idle + busy)[:number]

    def _send_away(self, agent: Agent) -> None:
        if agent.state == BUSY:
            del self.busy[agent]
            agent.draining = True
            self.leaving[agent] = None
            if self.scaler.grace is not None:
                self._push(self.now + self.scaler.grace, _KILL, agent, agent.run)
            return
        if agent.state == STARTING:
            self.starting.remove(agent)
        else:
            self.waiting.remove(agent)
            self.idle -= 1
        self._gone(agent)

    def _result(self) -> Run:
        trace = self.trace
        end = max(trace.horizon, self.now)
        self.now = end
        self.scaler.ended(end)
        for agent in [*self.starting, *self.waiting, *self.busy, *self.leaving]:
            self._gone(agent)
        undone = [*self.queue, *(agent.job for agent in [*self.busy, *self.leaving])]
        for job in undone:
            self.began[job] = end
        return Run(
            waits=[began - due for began, due in zip(self.began, trace.due, strict=True)],
            agent_seconds=self.agent_seconds,
            overhead_seconds=self.scaler.overhead_seconds,
            actions=self.actions,
            interrupted=self.interrupted,
            undone=len(undone),
            most_agents=self.most_agents,
            runs=self.runs,
            ended=end,
            samples=self.samples,
        )


def simulate(trace: Trace, scaler: Scaler, start_time: float, seed: int, sample: float = 0.0) -> Run:
    """Run ``scaler`` over ``trace`` to the end of its horizon, or until all jobs are done where that is later."""
    return Simulation(trace, scaler, start_time, seed, sample).run()
