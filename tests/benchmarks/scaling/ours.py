"""Our own autoscaler: ``brain_clusters.domain`` as it is, fed with what the tick of ``services`` would see.

The blueprint is an ordinary one that sets no scaling key, so that we run at our defaults as the peers do at theirs.
Every polling_interval (2 s) the signals are made from what is readable: the queue, what agents hold, their beats, the
ETAs that are known. The service time is the mean of the agents' own moving averages (weight 0.2), the start time that
of starts which happened, the arrival rate what ``domain.signals.learn`` makes of two looks; all are unknown at first.
A job that arrives while nobody serves wakes one agent at once, as ``services.jobs`` does. While the broker is away
nothing is known, and the look counts as unknown.

A cluster has one supervisor while it is awake. Peers have none, so its time is kept apart in ``overhead_seconds``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import TYPE_CHECKING

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.domain import scaling, sleeping
from brain_clusters.domain.scaling import ClusterView, State
from brain_clusters.domain.signals import GroupSignals, Learned, learn
from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

BLUEPRINT = """
metadata: {{id: replay, name: Replay, version: "1"}}
cluster: {{type: department, min_workers: 1, max_workers: {all}, default_workers: 1}}
agents:
  - {{role: supervisor, name: Head, count: 1}}
  - {{role: worker, name: Work, count: 0-{workers}}}
"""
HEAD, WORK = "Head", "Work"
NAME = "ours"
_IDLE_HEAD = GroupSignals(ready=0, running=0, agents_ready=1)


class Ours(Scaler):
    """One cluster with one scalable group."""

    name = NAME
    hook = "zero"
    victims = "idle"
    undo = True

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        super().__init__(maximum, seed)
        self.blueprint = parse_blueprint(BLUEPRINT.format(all=maximum + 1, workers=maximum))
        self.policy = self.blueprint.scaling
        self.interval = self.policy.polling_interval_seconds
        self.awake = False
        self._woken = self._changed = self._worked = 0.0
        self._started = False
        self._state: State = {}
        self._learned: Learned | None = None
        self._service: float | None = None
        self._ended = 0
        self._unknown = 0

    # What the engine calls.

    def arrived(self, now: float, view: Simulation, job: int) -> int | None:
        if not self.awake:
            return self._wake(now, 1)
        return self._scaled(now, 1) if view.desired == 0 else None

    def tick(self, now: float, view: Simulation) -> int | None:
        if not self.awake:
            return self._tick_asleep(now, view)
        if not view.readable:
            wanted = self._decide(now, view, self._unreadable(view))
            self._unknown += 1
            return wanted
        self._unknown = 0
        before = self._ended
        seen = self._look(now, view)
        if seen.backlog or seen.leaving or view.finished > before:  # outcomes count: a short job may be in no look
            self._worked = now
        if not self._started:
            self._started = view.serving >= view.desired
        settled = self._started and view.serving == view.desired and not view.leaving and not view.starting
        if settled and sleeping.hibernation(self._view(now, view.desired), self._signals(seen)).sleeps:
            return self._sleep(now)
        return self._decide(now, view, seen)

    def ended(self, now: float) -> None:
        """Charge the supervisor of a cluster that is still awake at the end."""
        if self.awake:
            self._sleep(now)

    # Decisions.

    def _decide(self, now: float, view: Simulation, seen: GroupSignals) -> int | None:
        decision = scaling.decide(self._view(now, view.desired), self._signals(seen), self._state, now)
        self._state = decision.state
        wanted = decision.groups.get(WORK)
        if wanted is None or (wanted < view.desired and not self._started):
            return None  # while a cluster is being started only growth counts
        return self._scaled(now, wanted)

    def _scaled(self, now: float, wanted: int) -> int:
        self._changed = now
        return wanted

    def _tick_asleep(self, now: float, view: Simulation) -> int | None:
        if not view.readable:
            return None
        wake = sleeping.waking(
            self._view(now, 0),
            self._signals(self._look(now, view)),
            asleep_backlog=0,
            look_ahead=self.interval,
            fired=None,
        )
        return self._wake(now, wake.groups.get(WORK, 0)) if wake.wakes else None

    def _wake(self, now: float, workers: int) -> int:
        self.awake, self._started = True, False
        self._woken = self._worked = now
        self._state, self._learned = {}, None
        return self._scaled(now, workers)

    def _sleep(self, now: float) -> int:
        self.awake = False
        self.overhead_seconds += now - self._woken
        return self._scaled(now, 0)

    # What is seen.

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

    def _signals(self, seen: GroupSignals) -> Mapping[str, GroupSignals]:
        return {HEAD: _IDLE_HEAD if seen.ready is not None else GroupSignals(agents_ready=1), WORK: seen}

    def _unreadable(self, view: Simulation) -> GroupSignals:
        return GroupSignals(agents_ready=view.serving, agents_starting=len(view.starting))

    def _look(self, now: float, view: Simulation) -> GroupSignals:
        held, next_due = self._etas(now, view)
        averages = view.service_averages()
        self._service = sum(averages) / len(averages) if averages else self._service
        jobs, ended = view.in_system + held, view.finished - self._ended
        self._ended = view.finished
        windows = (self.policy.stable_window_seconds, self.policy.panic_window_seconds)
        self._learned = learn(self._learned, now, jobs, ended, windows, self._service)
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
            arrival_rate=self._learned.stable,
            burst_rate=self._learned.burst,
            service_time=self._service,
            start_time=view.last_start or None,
        )

    def _etas(self, now: float, view: Simulation) -> tuple[int, float | None]:
        """Return how many jobs wait for their ETA, and the seconds until the first of them is due."""
        trace = view.trace
        if trace.known is None:
            return 0, None
        first = bisect_right(trace.due, now)
        held = sum(1 for at in trace.known[first:] if at <= now)
        return held, (trace.due[first] - now if held else None)
