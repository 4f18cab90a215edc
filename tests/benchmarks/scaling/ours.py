"""Our own autoscaler: ``brain_clusters.domain`` as it is, fed with what the tick of ``services`` would see.

The blueprint is an ordinary one that sets no scaling key, so that we run at our defaults as the peers do at theirs.
Every polling_interval (2 s) the signals are made as ``services.observation`` makes them, from what is readable: the
queue, what agents hold, their beats, the ETAs that are known; and ``domain.choosing`` chooses, as in the tick. The
service time is the mean of the agents' own moving averages, the start time that of starts which happened, the arrival
rate what ``domain.signals.learn`` makes of looks; all are unknown at first. A job that arrives while nobody serves
wakes one agent at once, as ``services.jobs`` does. While the broker is away nothing is known, and nothing remembered.

A cluster has one supervisor while it is awake. Peers have none, so its time is kept apart in ``overhead_seconds``.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.domain import sizing
from brain_clusters.domain.choosing import Choice, Situation, choose
from brain_clusters.domain.scaling import ClusterView, State
from brain_clusters.domain.signals import GroupSignals, Learned, learn
from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

BLUEPRINT = """
metadata: {{id: replay, name: Replay, version: "1"}}
cluster: {{type: department, min_workers: 1, max_workers: {all}, default_workers: 1, scaling: {scaling}}}
agents:
  - {{role: supervisor, name: Head, count: 1}}
  - {{role: worker, name: Work, count: 0-{workers}}}
"""
HEAD, WORK = "Head", "Work"
NAME = "ours"
_IDLE_HEAD = GroupSignals(ready=0, running=0, agents_ready=1)
_QUIET = GroupSignals(ready=0, running=0)
_BLIND = GroupSignals(beats_fresh=False)


class Ours(Scaler):
    """One cluster with one scalable group. scaling: a YAML flow mapping for ``cluster.scaling``; empty by default."""

    name = NAME
    hook = "zero"
    victims = "idle"
    undo = True

    def __init__(self, maximum: int = 20, seed: int = 0, scaling: str = "{}") -> None:
        super().__init__(maximum, seed)
        self.blueprint = parse_blueprint(BLUEPRINT.format(all=maximum + 1, workers=maximum, scaling=scaling))
        self.policy = self.blueprint.scaling
        self.interval = self.policy.polling_interval_seconds
        self.awake = False
        self._woken = self._changed = self._worked = 0.0
        self._started = False
        self._state: State = {}
        self._learned: Learned | None = None
        self._ended = 0
        self._unknown = 0

    # What the engine calls.

    def arrived(self, now: float, view: Simulation, job: int) -> int | None:
        if not self.awake:
            return self._wake(now, 1)
        return self._scaled(now, 1) if view.desired == 0 else None

    def tick(self, now: float, view: Simulation) -> int | None:
        if not view.readable:
            return self._tick_blind(now, view)
        before = self._ended
        seen = self._look(now, view)
        if seen.backlog or seen.leaving or self._ended > before:  # outcomes count: a short job may be in no look
            self._worked = now
        choice = choose(self._situation(now, view), {HEAD: self._head(_IDLE_HEAD), WORK: seen}, self._state, now)
        self._state = choice.state
        self._unknown = 0
        return self._act(now, choice)

    def ended(self, now: float) -> None:
        """Charge the supervisor of a cluster that is still awake at the end."""
        if self.awake:
            self._sleep(now)

    # Choices, and what is done about them.

    def _tick_blind(self, now: float, view: Simulation) -> int | None:
        if not self.awake:
            return None
        choice = choose(self._situation(now, view), {HEAD: _BLIND, WORK: _BLIND}, {}, now)
        self._unknown += 1
        return self._act(now, choice)

    def _act(self, now: float, choice: Choice) -> int | None:
        if choice.action == "reactivate":
            return self._wake(now, choice.groups.get(WORK, 0))
        if choice.action == "hibernate":
            return self._sleep(now)
        return self._scaled(now, choice.groups[WORK]) if WORK in choice.groups else None

    def _scaled(self, now: float, wanted: int) -> int:
        self._changed = now
        return wanted

    def _wake(self, now: float, workers: int) -> int:
        self.awake, self._started = True, False
        self._woken = self._worked = now
        return self._scaled(now, workers)

    def _sleep(self, now: float) -> int:
        self.awake = False
        self.overhead_seconds += now - self._woken
        return self._scaled(now, 0)

    # What is seen.

    def _situation(self, now: float, view: Simulation) -> Situation:
        return Situation(view=self._view(now, view.desired), phase=self._phase(view), look_ahead=self.interval)

    def _phase(self, view: Simulation) -> Literal["asleep", "starting", "changing", "settled"]:
        if not self.awake:
            return "asleep"
        converged = view.serving == view.desired and not view.leaving and not view.starting
        self._started = self._started or converged
        if not self._started:
            return "starting"
        return "settled" if converged else "changing"

    def _view(self, now: float, workers: int) -> ClusterView:
        return ClusterView(
            blueprint=self.blueprint,
            targets={HEAD: int(self.awake), WORK: workers},
            min_workers=self.blueprint.min_workers,
            max_workers=self.blueprint.max_workers,
            since_change=now - self._changed,
            idle_seconds=now - self._worked,
            unknown_ticks=self._unknown,
        )

    def _head(self, awake: GroupSignals) -> GroupSignals:
        return awake if self.awake else _QUIET

    def _look(self, now: float, view: Simulation) -> GroupSignals:
        held, next_due = self._etas(now, view)
        ended, self._ended = view.finished - self._ended, view.finished
        if view.alive:
            self._learn(now, view, ended)
        learned = self._learned
        return GroupSignals(
            ready=view.ready,
            running=len(view.busy),
            leaving=len(view.leaving),
            held=held,
            next_due=next_due,
            agents_ready=view.serving,
            agents_starting=len(view.starting),
            agents_draining=len(view.leaving),
            beats_age=0.0,
            oldest_age=view.oldest_age(),
            running_age=view.running_age(),
            due_soon=self._due_soon(now, view),
            arrival_rate=learned.stable if learned else 0.0,
            burst_rate=learned.burst if learned else 0.0,
            service_time=learned.service_time if learned else None,
            start_time=view.last_start or None,
        )

    def _learn(self, now: float, view: Simulation, ended: int) -> None:
        if self._learned is None and not view.in_system and not ended:
            return
        averages = view.service_averages()
        service = sum(averages) / len(averages) if averages else None
        windows = (self.policy.stable_window_seconds, self.policy.panic_window_seconds)
        self._learned = learn(self._learned, now, view.in_system, ended, windows, service)

    def _due_soon(self, now: float, view: Simulation) -> int:
        trace = view.trace
        if trace.known is None:
            return 0
        soon = now + (view.last_start or sizing.DEFAULT_START_SECONDS) + self.interval
        return sum(
            1 for job in range(bisect_right(trace.due, now), bisect_right(trace.due, soon)) if trace.known[job] <= now
        )

    def _etas(self, now: float, view: Simulation) -> tuple[int, float | None]:
        """Return how many jobs wait for their ETA, and the seconds until the first of them is due."""
        trace = view.trace
        if trace.known is None:
            return 0, None
        first = bisect_right(trace.due, now)
        held = sum(1 for at in trace.known[first:] if at <= now)
        return held, (trace.due[first] - now if held else None)
