"""From one look at Redis to the signals of every group. Clusters where nothing is to be done are only recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from brain_clusters.broker import backlog, names
from brain_clusters.broker.backlog import QueueDepth, Reading
from brain_clusters.domain import resting, windows
from brain_clusters.domain.engines import default_start_seconds
from brain_clusters.domain.signals import GroupSignals, Learned, learn, total
from brain_clusters.domain.sizing import DEFAULT_START_SECONDS
from brain_clusters.domain.specs import AgentGroup
from brain_clusters.domain.states import AgentStatus, ClusterStatus, ClusterType, Intent
from brain_clusters.services import scheduled, served
from brain_clusters.services.control import Control
from brain_clusters.services.measured import Measured, measured
from brain_clusters.services.memory import ClusterMemory, Memory
from brain_clusters.services.observation import SeenAgent, SeenCluster
from brain_clusters.services.scheduled import Etas

_QUIET = GroupSignals(ready=0, running=0)
_UNMEASURED = Measured()
_NOBODY: list[SeenAgent] = []
# Below so many jobs per second, the last of a burst are forgotten and the cluster is at rest.
_STILL = 0.01

# A clock may be put right by less than this without a loss of memory.
_SET_BACK_SECONDS = 5.0

Key = tuple[str, str]  # cluster id, group name


def read(control: Control, clusters: Mapping[str, SeenCluster], memory: Memory, *, rest: bool = True) -> Reading:
    """Read Redis for ``clusters``, learn from it, and fill in their signals.

    rest: leave those without signals that need no look, and mark them as resting. Raises TemporaryError when Redis
    does not answer: nothing is known then, which is not that nothing waits.
    """
    queues = [queue for cluster in clusters.values() for queue in cluster.queues]
    agent_ids = [agent.agent_id for cluster in clusters.values() for agent in cluster.agents]
    known = measured(control)
    slow = _slow_starts(control, clusters, known)
    reading = backlog.read(control.broker.redis, queues, agent_ids, soon_of=slow)
    foreign = [one for one in clusters.values() if one.blueprint.foreign]
    looked = [(one.id, one.blueprint, [(agent.agent_id, agent.group) for agent in one.agents]) for one in foreign]
    served.add_foreign(control, looked, reading, slow)
    with control.database.transaction() as session:
        etas = scheduled.waiting(session)
    tick_seconds = control.settings.tick_interval_seconds
    if memory.at is not None and reading.now < memory.at - _SET_BACK_SECONDS:
        memory.clusters = {}  # Redis's clock was set back: what is remembered of the future would count until then
    waited_for, resting_ones = {cluster_id for cluster_id, _ in etas}, Resting(reading, memory)
    for cluster in clusters.values():
        if rest and cluster.id not in waited_for and resting_ones.holds(cluster):
            cluster.resting = True
            cluster.whole = _idle(len(cluster.agents))
        else:
            _fill(cluster, reading, memory, known, etas, tick_seconds)
    memory.at = reading.now
    memory.clusters = {
        name: one for name, one in memory.clusters.items() if _is_kept(clusters.get(name), one, reading.now)
    }
    return reading


def _slow_starts(
    control: Control, clusters: Mapping[str, SeenCluster], known: Mapping[Key, Measured]
) -> dict[str, float]:
    """Return how long before its time a job of a queue counts as due soon, where starting takes long."""
    slow = {}
    for (blueprint, group), measures in known.items():
        seconds = _soon(measures.start_time, control.settings.tick_interval_seconds)
        if seconds > backlog.SOON_SECONDS:
            slow[blueprint, group] = seconds
    if not slow:
        return {}
    return {
        queue: slow[cluster.blueprint.id, group.name]
        for cluster in clusters.values()
        for group, queue in zip(cluster.blueprint.groups, cluster.queues, strict=True)
        if (cluster.blueprint.id, group.name) in slow
    }


def _soon(start_time: float | None, tick_seconds: float, usual_start: float = DEFAULT_START_SECONDS) -> float:
    """Return the seconds before its time at which an agent for a job has to be started: T0 and until the next look."""
    return (usual_start if start_time is None else start_time) + tick_seconds


def _is_kept(cluster: SeenCluster | None, memory: ClusterMemory, now: float) -> bool:
    """Return whether a memory is still of use: not at rest, but for what a window may yet learn from its last way down.

    Rates are learned anew after a rest: over a long gap the first jobs would be next to none.
    """
    if cluster is None or not cluster.resting:
        return cluster is not None
    memory.learned = {}
    return any(windows.is_on_trial(one, now) for one in memory.state.values())


# --- at rest ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1000)
def _idle(agents: int) -> GroupSignals:
    return GroupSignals(ready=0, running=0, agents_ready=agents)


class Resting:
    """Recognises clusters where nothing is there to do, nothing remembered still counts, and nothing could change."""

    def __init__(self, reading: Reading, memory: Memory) -> None:
        self._reading, self._memory = reading, memory
        # Many clusters share a blueprint, whose rules need be asked once for each set of counts. It lives as long.
        self._limits: dict[tuple[Any, ...], float | None] = {}

    def holds(self, cluster: SeenCluster) -> bool:
        """Return whether ``cluster`` rests."""
        if cluster.unknown_ticks or cluster.wake_at is not None or cluster.blueprint.alerts:
            return False
        if cluster.budget.per_day is not None:
            return False
        depths = self._reading.queues
        for queue in cluster.queues:
            depth = depths.get(queue)
            if depth is None or depth.length or depth.held:
                return False
        if cluster.intent is Intent.ASLEEP:
            return self._sleeps_on(cluster)
        return cluster.status is ClusterStatus.ACTIVE and self._is_idle(cluster) and self._stays(cluster)

    def _sleeps_on(self, cluster: SeenCluster) -> bool:
        limit = resting.sleeps_on(cluster.blueprint)
        settled = cluster.status is ClusterStatus.HIBERNATED and not cluster.asleep_backlog
        return settled and limit is not None and (cluster.hibernated_seconds or 0.0) < limit

    def _is_idle(self, cluster: SeenCluster) -> bool:
        held, beats = self._reading.held, self._reading.beats
        for agent in cluster.agents:
            if agent.status is not AgentStatus.IDLE or held[agent.agent_id] or agent.agent_id not in beats:
                return False
        return True

    def _stays(self, cluster: SeenCluster) -> bool:
        found = self._memory.clusters.get(cluster.id)
        if found is not None and any(one.stable >= _STILL for one in found.learned.values()):
            return False
        bounds, kind = (cluster.min_workers, cluster.max_workers), cluster.type
        key = (id(cluster.blueprint), tuple(cluster.group_targets.items()), bounds, kind)
        if key not in self._limits:
            targets = tuple(cluster.group_targets.get(group.name, 0) for group in cluster.blueprint.groups)
            persistent = kind is ClusterType.PERSISTENT
            self._limits[key] = resting.rests_for(cluster.blueprint, targets, bounds, persistent=persistent)
        limit = self._limits[key]
        return limit is not None and cluster.idle_seconds < limit


# --- signals ----------------------------------------------------------------------------------------------------


def _fill(
    cluster: SeenCluster, reading: Reading, memory: Memory,
    known: Mapping[Key, Measured], etas: Mapping[Key, Etas], tick_seconds: float,
) -> None:  # fmt: skip
    members: dict[str, list[SeenAgent]] = {}
    for agent in cluster.agents:
        members.setdefault(agent.group, []).append(agent)
    found = {}
    for group in cluster.blueprint.groups:
        depth = reading.queues.get(names.group_queue(cluster.id, group.slug))
        due = etas.get((cluster.id, group.name))
        agents = members.get(group.name, _NOBODY)
        if depth is None:  # its broker does not answer
            seen = _Group(group, backlog.EMPTY, agents, reading)
            measures = known.get((cluster.blueprint.id, group.name), _UNMEASURED)
            told = seen.signals(due, memory_of(memory, cluster.id, group.name), measures, tick_seconds)
            found[group.name] = replace(told, ready=None, beats_fresh=False)
            continue
        if not agents and depth.length == 0 and depth.held == 0 and due is None:
            found[group.name] = _QUIET  # most groups of most clusters: they sleep
            continue
        seen = _Group(group, depth, agents, reading)
        learned = _learn(cluster, group, seen, memory) if agents else memory_of(memory, cluster.id, group.name)
        measures = known.get((cluster.blueprint.id, group.name), _UNMEASURED)
        found[group.name] = seen.signals(due, learned, measures, tick_seconds)
    cluster.signals = found
    cluster.whole = total(found) if any(one is not _QUIET for one in found.values()) else _QUIET


def memory_of(memory: Memory, cluster_id: str, group: str) -> Learned | None:
    """Return what was learned about a group, if anything."""
    found = memory.clusters.get(cluster_id)
    return None if found is None else found.learned.get(group)


def _learn(cluster: SeenCluster, group: AgentGroup, seen: _Group, memory: Memory) -> Learned | None:
    """Learn from this look. A fixed group is not sized, so only its service time could matter: nothing is kept."""
    before = memory_of(memory, cluster.id, group.name)
    if not group.count.scalable or (before is None and seen.jobs == 0 and seen.ended == 0):
        return before
    scaling = cluster.blueprint.scaling
    windows = (scaling.stable_window_seconds, scaling.panic_window_seconds)
    learned = learn(before, seen.now, seen.jobs, seen.ended, windows, seen.service_time)
    memory.of(cluster.id).learned[group.name] = learned
    return learned


class _Group:
    """One group with agents, as the reading shows it."""

    def __init__(self, group: AgentGroup, depth: QueueDepth, agents: list[SeenAgent], reading: Reading) -> None:
        self.group, self.depth, self.now = group, depth, reading.now
        self.ready = self.starting = self.draining = self.busy = 0
        self.running = self.reserved = self.leaving = self.ended = 0
        self.beats: list[Mapping[str, Any]] = []
        for agent in agents:
            beat, held = reading.beats.get(agent.agent_id), reading.held[agent.agent_id]
            if beat is not None:
                known = agent.tasks_completed + agent.tasks_failed
                self.ended += max(0, beat["completed"] + beat["failed"] - known)
            if agent.status is AgentStatus.DRAINING:
                self.draining += 1
                self.leaving += held
                continue
            running = held if beat is None else min(held, beat["in_flight"])
            self.running += running
            self.reserved += held - running
            self.busy += held > 0
            if agent.status is AgentStatus.STARTING and beat is None:
                self.starting += 1
                continue
            self.ready += 1
            if beat is not None:
                self.beats.append(beat)
        self.jobs = depth.length + depth.held + self.running + self.reserved + self.leaving

    @property
    def service_time(self) -> float | None:
        times = [beat["service_time"] for beat in self.beats if beat["service_time"] is not None]
        return sum(times) / len(times) if times else None

    def signals(
        self, etas: Etas | None, learned: Learned | None, measures: Measured, tick_seconds: float
    ) -> GroupSignals:
        depth, now, beats = self.depth, self.now, self.beats
        cpus = [beat["cpu"] for beat in beats if beat["cpu"] is not None]
        ages = [beat["running_for"] for beat in beats if beat["in_flight"] and beat["running_for"] is not None]
        dues = [one for one in (etas.due_at if etas else None, depth.next_due_at) if one is not None]
        usual_start = default_start_seconds(self.group.driver)
        due_soon = etas.within(_soon(measures.start_time, tick_seconds, usual_start)) if etas else 0
        service = learned.service_time if learned and learned.service_time is not None else measures.service_time
        return GroupSignals(
            ready=depth.length,
            running=self.running,
            reserved=self.reserved,
            leaving=self.leaving,
            held=depth.held + (etas.count if etas else 0),
            due_soon=depth.due_soon + due_soon,
            running_age=sum(ages) / len(ages) if ages else None,
            next_due=max(0.0, min(dues) - now) if dues else None,
            agents_ready=self.ready,
            agents_starting=self.starting,
            agents_draining=self.draining,
            agents_busy=self.busy,
            beats_fresh=len(beats) == self.ready,
            beats_age=max((max(0.0, now - beat["at"]) for beat in beats if beat["at"]), default=None),
            slots=self.group.concurrency,
            oldest_age=None if depth.oldest_published_at is None else max(0.0, now - depth.oldest_published_at),
            arrival_rate=learned.stable if learned else 0.0,
            burst_rate=learned.burst if learned else 0.0,
            service_time=service,
            start_time=measures.start_time,
            usual_start=usual_start,
            cpu_percent=sum(cpus) / len(cpus) if cpus else None,
        )
