"""From what is desired and what is there to what is to be done. Pure; counts are agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from brain_clusters.domain.specs import AgentGroup, Count
from brain_clusters.domain.states import (
    READY_AGENT_STATUSES,
    AgentRole,
    AgentStatus,
    ClusterStatus,
    Intent,
)

# Replacing agents that die: the first at once, then half a second, doubling up to half a minute. The same shape as
# systemd's RestartSec with RestartSteps and Kubernetes' CrashLoopBackOff, with a start that suits a 30 ms spawn.
RESTART_DELAY_SECONDS = 0.5
RESTART_DELAY_LIMIT_SECONDS = 30.0
FAILURE_WINDOW_SECONDS = 60.0
# An agent that dies so soon after it was ready counts as one that would die again.
YOUTH_SECONDS = 10.0


def distribute(
    target: int,
    groups: Sequence[AgentGroup],
    backlogs: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Share ``target`` agents among ``groups``; return the count of each by name.

    Fixed groups come first (the supervisor before all), then the minimum of each scalable group; the rest goes to
    the scalable groups in proportion to ``backlogs`` (jobs by group name), and what no backlog claims evenly, in
    blueprint order. No group exceeds its maximum, so the sum is the smaller of ``target`` and what the groups can hold.
    """
    counts = dict.fromkeys((group.name for group in groups), 0)
    left = target
    for group in sorted(groups, key=lambda group: (group.role is not AgentRole.SUPERVISOR, group.count.scalable)):
        counts[group.name] = min(group.count.minimum, left)
        left -= counts[group.name]
    rooms = {group.name: group.count.maximum - group.count.minimum for group in groups if group.count.scalable}
    by_backlog = _proportional(left, rooms, backlogs or {})
    rooms = {name: room - by_backlog[name] for name, room in rooms.items()}
    evenly = _evenly(left - sum(by_backlog.values()), rooms)
    return {name: count + by_backlog.get(name, 0) + evenly.get(name, 0) for name, count in counts.items()}


def _proportional(left: int, rooms: Mapping[str, int], backlogs: Mapping[str, int]) -> dict[str, int]:
    """Share ``left`` by ``backlogs``, one agent at a time to whom most jobs per agent wait; never more than jobs."""
    given = dict.fromkeys(rooms, 0)
    for _ in range(left):
        open_groups = [n for n in rooms if given[n] < min(rooms[n], backlogs.get(n, 0))]
        if not open_groups:
            break
        # D'Hondt's highest averages: proportional, and adding one agent never takes one from another group.
        neediest = max(open_groups, key=lambda name: backlogs[name] / (given[name] + 1))
        given[neediest] += 1
    return given


def _evenly(left: int, rooms: Mapping[str, int]) -> dict[str, int]:
    """Share ``left`` in rounds of one, in order, as long as there is room."""
    given = dict.fromkeys(rooms, 0)
    while left > 0:
        open_groups = [name for name in rooms if given[name] < rooms[name]]
        if not open_groups:
            break
        for name in open_groups[:left]:
            given[name] += 1
        left -= len(open_groups[:left])
    return given


def awake(groups: Sequence[AgentGroup], fewest: int, most: int) -> dict[str, int]:
    """Return the agents by group of a cluster that is awake while nothing waits. fewest, most: its own bounds."""
    return distribute(min(most, max(fewest, sum(group.count.minimum for group in groups))), groups)


def one_step_up(
    targets: Mapping[str, int], groups: Sequence[AgentGroup], backlogs: Mapping[str, int], limit: int
) -> dict[str, int]:
    """Return the new counts of the groups that grow when a cluster makes one step; {} where there is no room.

    The step is that of ``policy: step``, n to int(n * 1.2) + 1, within ``limit``, to where most jobs wait.
    """
    n = sum(targets.get(group.name, 0) for group in groups)
    wanted = min(limit, int(n * 1.2) + 1)
    if wanted <= n:
        return {}
    shared = distribute(wanted, [_at_least(group, targets.get(group.name, 0)) for group in groups], backlogs)
    return {name: count for name, count in shared.items() if count > targets.get(name, 0)}


def _at_least(group: AgentGroup, count: int) -> AgentGroup:
    """Return ``group`` with ``count`` as its minimum; one that is not scalable stays at it."""
    highest = max(count, group.count.maximum) if group.count.scalable else count
    return replace(group, count=Count(count, highest, group.count.scalable))


@dataclass(frozen=True, slots=True)
class AgentView:
    """What planning needs to know of one live agent.

    idle_since: None while it works or has not worked yet. draining_since: None for one whose drain cannot be undone.
    ready_at: None for one that never was. current: whether it is one that its cluster is to have, by its version and as
    nobody asked for another in its place; retiring: somebody did. placed: whether a host has taken it.
    """

    agent_id: str
    group: str
    status: AgentStatus
    spawned_at: datetime
    idle_since: datetime | None = None
    draining_since: datetime | None = None
    ready_at: datetime | None = None
    current: bool = True
    placed: bool = True
    retiring: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: agents to start by group, and the agent_ids to drain and whose drain to undo."""

    start: Mapping[str, int]
    drain: tuple[str, ...]
    undo: tuple[str, ...] = ()


def plan(desired: Mapping[str, int], agents: Sequence[AgentView], *, busy_may_leave: bool) -> Plan:
    """Return what brings ``agents`` (the live ones) to ``desired`` counts by group.

    Draining agents are no capacity, but drains are undone before an agent is started: the latest first, since those
    that drain for long have probably left. Victims: starting ones, then the longest idle, then busy ones, which
    finish what they do before they leave. Unless busy_may_leave, a group stays too large until one of them is idle.
    """
    start: dict[str, int] = {}
    drain: list[str] = []
    undo: list[str] = []
    for group in {**desired, **{agent.group: 0 for agent in agents if agent.group not in desired}}:
        members = [agent for agent in agents if agent.group == group]
        staying = [agent for agent in members if agent.status is not AgentStatus.DRAINING]
        surplus = len(staying) - desired.get(group, 0)
        if surplus > 0:
            victims = [agent for agent in staying if busy_may_leave or agent.status is not AgentStatus.BUSY]
            drain.extend(agent.agent_id for agent in sorted(victims, key=victim_order)[:surplus])
        elif surplus < 0:
            back = undoable(members)[:-surplus]
            undo.extend(back)
            if missing := -surplus - len(back):
                start[group] = missing
    return Plan(start, tuple(drain), tuple(undo))


def undoable(members: Sequence[AgentView]) -> list[str]:
    """Return who may be told to stay after all, the one that drains for the shortest time first."""
    since = {
        agent.agent_id: agent.draining_since
        for agent in members
        if agent.status is AgentStatus.DRAINING and agent.draining_since is not None
    }
    return sorted(since, key=lambda agent_id: since[agent_id], reverse=True)


def victim_order(agent: AgentView) -> tuple[int, float]:
    """Return what sorts agents by who is to leave first."""
    rank = {AgentStatus.STARTING: 0, AgentStatus.IDLE: 1}.get(agent.status, 2)
    # Among starting ones the youngest goes: the oldest is nearest to being ready.
    if agent.status is AgentStatus.STARTING:
        return rank, -agent.spawned_at.timestamp()
    return rank, (agent.idle_since or agent.spawned_at).timestamp()


@dataclass(frozen=True, slots=True)
class Census:
    """How many agents are there, by what they do. draining ones are live, but neither starting nor ready."""

    starting: int
    ready: int
    draining: int

    @classmethod
    def of(cls, statuses: Sequence[AgentStatus]) -> Census:
        """Count ``statuses``."""
        return cls(
            starting=sum(status is AgentStatus.STARTING for status in statuses),
            ready=sum(status in READY_AGENT_STATUSES for status in statuses),
            draining=sum(status is AgentStatus.DRAINING for status in statuses),
        )

    @property
    def live(self) -> int:
        """All that run or are about to."""
        return self.starting + self.ready + self.draining


def converged(intent: Intent, target: int, census: Census, *, replaced: int = 0) -> bool:
    """Return whether what is there is what is wanted. replaced: how many may be there beside, as they are replaced."""
    if intent is not Intent.RUNNING:
        return census.live == 0
    if replaced:
        return census.ready >= target and census.live <= target + replaced
    return census.ready == target and census.starting == 0 and census.draining == 0


def cluster_status(
    intent: Intent, target: int, census: Census, *, ready_since_wake: bool, planned: bool, replaced: int = 0
) -> ClusterStatus:
    """Compute a cluster's status, in this one place.

    ready_since_wake: every agent was ready once since the cluster was last started.
    planned: a worker has made the first plan for the last start. replaced: as for ``converged``.
    """
    if intent is Intent.GONE:
        return ClusterStatus.DESTROYED if census.live == 0 else ClusterStatus.DESTROYING
    if intent is Intent.ASLEEP:
        return ClusterStatus.HIBERNATED if census.live == 0 else ClusterStatus.SCALING_DOWN
    if converged(intent, target, census, replaced=replaced):
        return ClusterStatus.ACTIVE
    if not ready_since_wake:
        return ClusterStatus.SPAWNING if planned else ClusterStatus.PLANNING
    growing = census.starting > 0 or census.ready < target
    return ClusterStatus.SCALING_UP if growing else ClusterStatus.SCALING_DOWN


def health_score(intent: Intent, target: int, census: Census, recent_failures: int) -> float:
    """Return 0 to 1: the share of wanted agents that are ready, lowered by agents that died in the last minute."""
    if intent is not Intent.RUNNING or target == 0:
        return 1.0
    present = min(1.0, (census.ready + census.draining) / target)
    return round(present * target / (target + recent_failures), 3)


def agent_health(completed: int, failed: int) -> float:
    """Return 0 to 1: the share of an agent's jobs that succeeded, as if one more had: a single failure tells little."""
    return round((completed + 1) / (completed + failed + 1), 3)


def restart_delay_seconds(recent_failures: int) -> float:
    """Return how long to wait before replacing, after so many that died young in the last FAILURE_WINDOW_SECONDS."""
    if recent_failures <= 1:
        return 0.0
    return min(RESTART_DELAY_LIMIT_SECONDS, RESTART_DELAY_SECONDS * 2.0 ** (recent_failures - 2))
