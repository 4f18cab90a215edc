"""How the agents of a cluster go from one version of its blueprint to another, and how single ones are replaced that
somebody wants out. Pure; time comes as an argument.

Modelled on the RollingUpdate of Kubernetes' Deployments: as many agents of the new version as ``max_parallel`` allows
are started beside the old ones while the cluster's max_workers leave room (maxSurge); without room old ones leave
first (maxUnavailable). Unlike there an agent that drains counts as being replaced until it is gone, as KEP-3973 has it
with TerminationComplete: an old job may take hours, and neither hosts nor budgets should bear a second cluster.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from brain_clusters.domain import planning
from brain_clusters.domain.durations import parse_percent
from brain_clusters.domain.planning import AgentView, Plan, undoable, victim_order
from brain_clusters.domain.specs import AgentGroup, Blueprint, RolloutPolicy
from brain_clusters.domain.states import READY_AGENT_STATUSES, AgentStatus

# A version has failed when so many of its agents died young and none became healthy in between: one may be an accident.
MOST_DEATHS = 3
# A new agent that no host has had a place for in so long gets that of an old one: there is no room for both.
PLACE_PATIENCE_SECONDS = 10.0


def parse_max_parallel(value: object) -> int | str:
    """Return a number of agents from 1 up, or a percentage such as "25%". Raise ValueError with a sentence."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and value.strip().endswith("%") and parse_percent(value) > 0:
        return value.strip()
    raise ValueError("must be a whole number from 1 up, or a percentage such as 25%")


@dataclass(frozen=True, slots=True)
class Pace:
    """How quickly agents may be replaced. parallel: at once; most: all agents there may be.

    held: those of another version stay as they are; single ones that somebody wants out are replaced all the same.
    """

    parallel: int
    most: int
    min_healthy_seconds: float
    held: bool = False

    @classmethod
    def of(cls, policy: RolloutPolicy, total: int, most: int, *, held: bool = False) -> Pace:
        """Return the pace of a cluster that wants ``total`` agents and may have ``most``."""
        stated = policy.max_parallel
        share = stated if isinstance(stated, int) else math.floor(parse_percent(stated) * total / 100)
        return cls(max(1, share), most, policy.min_healthy_seconds, held)


@dataclass(frozen=True, slots=True)
class Course:
    """How agents are to be replaced now. unpark: the groups that nobody serves any more, as a blueprint, if any."""

    pace: Pace
    now: datetime
    unpark: Blueprint | None = None

    @property
    def replaced(self) -> int:
        """How many agents there may be beside those that are wanted."""
        return self.pace.parallel


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a rollout is. old: live agents of another version, draining ones too. new: those of the wanted version
    that stay; healthy: of these, ready for long enough. lacking: how many more agents are wanted, those aside for whom
    an old one makes room.
    """

    old: int
    new: int
    healthy: int
    lacking: int = 0

    @property
    def done(self) -> bool:
        """Whether there are all agents that are wanted, all of them healthy, and no other."""
        return self.old == 0 and self.lacking == 0 and self.healthy == self.new

    @property
    def pending(self) -> bool:
        """Whether an agent of the new version has still to prove itself; else at most old ones are waited for."""
        return self.healthy < self.new or self.lacking > 0

    def ahead_of(self, before: Mapping[str, int]) -> bool:
        """Return whether this is progress over what was noted: a healthy agent more, or an old one less."""
        return self.healthy > before.get("healthy", 0) or self.old < before.get("old", self.old)


def standing(desired: Mapping[str, int], agents: Sequence[AgentView], pace: Pace, now: datetime) -> Standing:
    """Return how far the rollout of ``agents``, the live ones, to ``desired`` counts is."""
    new = [agent for agent in agents if agent.current and agent.status is not AgentStatus.DRAINING]
    there = Counter(agent.group for agent in agents if not agent.current) + Counter(agent.group for agent in new)
    lacking = sum(max(0, count - there[group]) for group, count in desired.items())
    old = sum(not agent.current for agent in agents)
    return Standing(old, len(new), sum(is_healthy(agent, pace, now) for agent in new), lacking)


def is_healthy(agent: AgentView, pace: Pace, now: datetime) -> bool:
    """Return whether an agent has been ready for long enough to count as available."""
    if agent.status not in READY_AGENT_STATUSES or agent.ready_at is None:
        return False
    return now - agent.ready_at >= timedelta(seconds=pace.min_healthy_seconds)


def failure(policy: RolloutPolicy, standing: Standing, *, deaths: int, waited_seconds: float) -> str | None:
    """Return why a version has failed, or None.

    deaths: of its young agents since the last progress; waited_seconds: for an agent that is to prove itself.
    """
    if deaths >= MOST_DEATHS:
        return f"{deaths} of its agents died before they were ready for {policy.min_healthy_seconds:g} s"
    if standing.pending and waited_seconds > policy.progress_deadline_seconds:
        unready = standing.new - standing.healthy + standing.lacking
        return f"{unready} of its agents did not become ready within {policy.progress_deadline_seconds:g} s"
    return None


# --- one step ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Team:
    """The agents of one group, by whether they stay and are of the version that is wanted."""

    want: int
    known: bool  # whether the wanted version has the group
    started: int = 0
    new: list[AgentView] = field(default_factory=list)
    old: list[AgentView] = field(default_factory=list)
    new_leaving: list[AgentView] = field(default_factory=list)
    old_leaving: list[AgentView] = field(default_factory=list)

    def add(self, agent: AgentView) -> None:
        leaves = agent.status is AgentStatus.DRAINING
        if agent.current:
            (self.new_leaving if leaves else self.new).append(agent)
        else:
            (self.old_leaving if leaves else self.old).append(agent)

    @property
    def surplus(self) -> int:
        return len(self.new) + self.started + len(self.old) - self.want


class _Step:
    """One look at a cluster that has agents of two versions."""

    def __init__(
        self, desired: Mapping[str, int], agents: Sequence[AgentView], pace: Pace, now: datetime, busy_may_leave: bool
    ) -> None:
        self._pace, self._now, self._busy_may_leave = pace, now, busy_may_leave
        self._teams = {name: _Team(want, known=True) for name, want in desired.items()}
        for agent in agents:
            self._teams.setdefault(agent.group, _Team(0, known=False)).add(agent)
        self._live = len(agents)
        self._start: dict[str, int] = {}
        self._drain: list[str] = []
        self._undo: list[str] = []

    def plan(self) -> Plan:
        for name, team in self._teams.items():
            self._drop_unready(team)
            self._cut(team)
            self._fill(name, team)
        self._replace()
        return Plan(self._start, tuple(self._drain), tuple(self._undo))

    def _drop_unready(self, team: _Team) -> None:
        """Let old agents go that were never ready, and those of groups that are no more: nobody counts on them."""
        may_go = self._replaceable(team)
        gone = [agent for agent in may_go if agent.status is AgentStatus.STARTING or not team.known]
        for agent in gone:
            self._leaves(team, agent)

    def _replaceable(self, team: _Team) -> list[AgentView]:
        return [agent for agent in team.old if agent.retiring or not self._pace.held]

    def _leaves(self, team: _Team, agent: AgentView) -> None:
        self._drain.append(agent.agent_id)
        (team.new if agent.current else team.old).remove(agent)
        if agent.status is AgentStatus.STARTING:  # one that was never ready is killed at once
            self._live -= 1
        else:
            (team.new_leaving if agent.current else team.old_leaving).append(agent)

    def _cut(self, team: _Team) -> None:
        """Let go what is too many: old ones as far as others are available, new ones beyond what is wanted."""
        if not team.known and self._pace.held:
            return
        healthy = sum(self._is_healthy(agent) for agent in team.new)
        ready = [agent for agent in team.old if agent.status in READY_AGENT_STATUSES]
        spare = healthy + len(ready) - team.want + self._without_place(team)
        for agent in sorted(team.old, key=_leaving_order):
            is_ready = agent.status in READY_AGENT_STATUSES
            if team.surplus <= 0 or (is_ready and spare <= 0):
                break
            spare -= is_ready
            self._leaves(team, agent)
        beyond = len(team.new) - team.want
        if beyond > 0:
            victims = [one for one in team.new if self._busy_may_leave or one.status is not AgentStatus.BUSY]
            for agent in sorted(victims, key=lambda one: (self._is_healthy(one), victim_order(one)))[:beyond]:
                self._leaves(team, agent)

    def _without_place(self, team: _Team) -> int:
        """Return for how many new agents old ones have to make room, however many are available."""
        if self._pace.held:
            return 0
        patience = timedelta(seconds=PLACE_PATIENCE_SECONDS)
        waiting = [one for one in team.new if not one.placed and one.status is AgentStatus.STARTING]
        stuck = sum(self._now - one.spawned_at >= patience for one in waiting)
        return max(0, min(stuck, self._pace.parallel) - len(team.old_leaving))

    def _is_healthy(self, agent: AgentView) -> bool:
        return is_healthy(agent, self._pace, self._now)

    def _fill(self, name: str, team: _Team) -> None:
        """Bring back or start what lacks. What is to take the place of one that drains waits until there is room."""
        missing = max(0, -team.surplus)
        back = set(undoable(team.new_leaving)[:missing])
        self._undo += back
        team.new += [agent for agent in team.new_leaving if agent.agent_id in back]
        missing -= len(back)
        waiting = min(missing, len(team.old_leaving))
        self._begin(name, team, missing - waiting)
        self._begin(name, team, min(waiting, max(0, self._room)))

    @property
    def _room(self) -> int:
        return self._pace.most - self._live

    def _begin(self, name: str, team: _Team, count: int) -> None:
        if count:
            self._start[name] = self._start.get(name, 0) + count
            team.started += count
            self._live += count

    def _replace(self) -> None:
        """Begin to replace as many as ``parallel`` still allows: beside old ones while there is room, else after."""
        slots = self._pace.parallel - self._in_flight()
        for name, team in self._teams.items():
            # Whoever is there beyond the wanted number replaces one already.
            victims = sorted(self._replaceable(team), key=_leaving_order)
            left = min(len(victims), len(team.old) - max(0, team.surplus))
            while slots > 0 and left > 0 and team.want > 0:
                slots, left = slots - 1, left - 1
                if self._room > 0:
                    self._begin(name, team, 1)
                else:
                    self._leaves(team, victims.pop(0))

    def _in_flight(self) -> int:
        """Return how many are being replaced: new ones that have to prove themselves, and old ones that drain."""
        known = [team for team in self._teams.values() if team.known]
        unproven = sum(team.started + sum(not self._is_healthy(agent) for agent in team.new) for team in known)
        return unproven + sum(len(team.old_leaving) for team in known)


def _leaving_order(agent: AgentView) -> tuple[bool, int, float]:
    """Return what sorts agents by who is to leave first: those whom somebody wants out."""
    return (not agent.retiring, *victim_order(agent))


def step(
    desired: Mapping[str, int], agents: Sequence[AgentView], pace: Pace, now: datetime, *, busy_may_leave: bool
) -> Plan:
    """Return what brings ``agents`` (the live ones) nearer to ``desired`` counts of the wanted version.

    Of a group never fewer agents are available than it is to have less ``pace.parallel``, as far as it is up to us: an
    old agent leaves only when others do its part, or as one of those that may lack. Old drains are never undone.
    """
    if all(agent.current for agent in agents):
        return planning.plan(desired, agents, busy_may_leave=busy_may_leave)
    return _Step(desired, agents, pace, now, busy_may_leave).plan()


# --- another blueprint, other counts ----------------------------------------------------------------------------


def moved_targets(targets: Mapping[str, int], groups: Sequence[AgentGroup], fewest: int, most: int) -> dict[str, int]:
    """Return the counts by group when ``groups`` take the place of others: what there is within the new bounds.

    fewest, most: of the whole cluster; with bounds that do not fit together the sum may lie outside of them.
    """
    counts = {one.name: min(max(targets.get(one.name, 0), one.count.minimum), one.count.maximum) for one in groups}
    while sum(counts.values()) > most:
        above = [one.name for one in groups if counts[one.name] > one.count.minimum]
        if not above:
            break
        counts[max(above, key=lambda name: counts[name])] -= 1
    while sum(counts.values()) < fewest:
        room = [one.name for one in groups if counts[one.name] < one.count.maximum]
        if not room:
            break
        counts[min(room, key=lambda name: counts[name])] += 1
    return counts
