"""How many agents a cluster should have, and why. Pure: what was seen, what is remembered and the time come as
arguments, a decision comes back. Acting on it is ``services.autoscale``.

``signals`` has what is seen, ``sizing`` the formula, ``gates`` what holds a change back, ``sleeping`` the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from brain_clusters.domain import gates, sizing, windows
from brain_clusters.domain.gates import GroupDecision, Moment
from brain_clusters.domain.planning import distribute
from brain_clusters.domain.signals import GroupSignals, total
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.windows import GroupState

_NO_ROOM = "the cluster's bounds and the counts of its groups leave no room for a change"
# The key of what concerns the cluster as a whole, beside its groups' names.
CLUSTER = "cluster"
_FRESH = GroupState()

State = Mapping[str, GroupState]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster as the autoscaler sees it. Times in seconds.

    targets: desired agents by group. since_change: since it was last scaled. idle_seconds: since it last had work;
    None is unknown. floor: the fewest agents that a schedule asks for now; next_floor: the seconds until one asks for
    more than that. unknown_ticks: looks in a row that could not tell what waits. paused: somebody wants it left alone.
    """

    blueprint: Blueprint
    targets: Mapping[str, int]
    min_workers: int
    max_workers: int
    since_change: float
    idle_seconds: float | None
    persistent: bool = False
    unknown_ticks: int = 0
    floor: int = 0
    next_floor: float | None = None
    paused: bool = False

    @property
    def held(self) -> str:
        """Which directions are held, as ``ScalingPolicy.paused`` says it."""
        return "both" if self.paused else self.blueprint.scaling.paused

    @property
    def fewest(self) -> int:
        """The fewest agents now, by the cluster's own minimum and by schedule."""
        return min(max(self.min_workers, self.floor), self.max_workers)


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate that held a change back. wanted: the agents that there would be without it."""

    gate: str
    reason: str
    wanted: int


@dataclass(frozen=True, slots=True)
class ClusterDecision:
    """groups: the new count of each group whose count should change; held: the gates that held a group (or the
    whole, under "cluster"); state: what the next decision has to be given.
    """

    groups: Mapping[str, int]
    reason: str
    held: Mapping[str, Gate]
    state: State = field(default_factory=dict)


def decide(
    view: ClusterView, signals: Mapping[str, GroupSignals], state: State, now: float, *, starting: bool = False
) -> ClusterDecision:
    """Decide a running cluster's group counts within its min_workers and max_workers.

    signals: one for each group of the blueprint. state: what the last decision returned, {} at first. now: seconds on
    any clock that goes on evenly; its zero is of no matter. starting: no group shrinks before all agents are there.
    """
    by_step = view.blueprint.scaling.policy == "step"
    found = _by_step(view, signals) if by_step else _by_target(view, signals, state, now)
    permitted = _permitted(view, found)
    return _remembered(view, _only_growth(view, permitted) if starting else permitted, now)


def _by_target(view: ClusterView, signals: Mapping[str, GroupSignals], state: State, now: float) -> ClusterDecision:
    policy, decisions = view.blueprint.scaling, dict[str, GroupDecision]()
    for group in view.blueprint.groups:
        if group.count.scalable:
            moment = Moment(now, view.targets.get(group.name, 0), view.since_change, view.unknown_ticks)
            before = state.get(group.name, _FRESH)
            decisions[group.name] = gates.decide_group(policy, group, signals[group.name], moment, before)
    wanted = {**view.targets, **{name: decision.target for name, decision in decisions.items()}}
    bounded = bound(view, wanted, signals)
    changed = _changed(view, bounded)
    held = {name: Gate(one.held, one.reason, one.wanted) for name, one in decisions.items() if one.held}
    after = {name: decision.state for name, decision in decisions.items()}
    if not _possible(view, bounded):
        return ClusterDecision({}, _NO_ROOM, {**held, CLUSTER: Gate("bounds", _NO_ROOM, sum(wanted.values()))}, after)
    held |= _cut(view, wanted, bounded)
    return ClusterDecision(changed, _reason(view, changed, decisions, wanted), held, after)


def _reason(
    view: ClusterView, changed: Mapping[str, int], decisions: Mapping[str, GroupDecision], wanted: Mapping[str, int]
) -> str:
    """Return why counts change or, where none does, why all stay."""
    told = []
    for name in changed:
        if name in decisions and changed[name] == wanted[name]:
            told.append(f"{name}: {decisions[name].reason}")
        elif name in decisions and view.targets.get(name, 0) < changed[name] < wanted[name]:
            room = f"but max_workers {view.max_workers} of the cluster leave room for {changed[name]}"
            told.append(f"{name}: {decisions[name].reason}, {room}")
        else:
            by_schedule = view.floor > view.min_workers and changed[name] > wanted[name]
            asked = "a schedule asks" if by_schedule else "the cluster's bounds ask"
            told.append(f"{name}: {asked} for {changed[name]} instead of {view.targets.get(name, 0)}")
    if not told:
        told = [f"{name}: {decision.reason}" for name, decision in decisions.items()]
    return "; ".join(told) or "no group of this blueprint is scalable"


def _cut(view: ClusterView, wanted: Mapping[str, int], bounded: Mapping[str, int]) -> dict[str, Gate]:
    """Return the gate that the cluster's maximum is, for the groups that it gave less than they were to have."""
    lacking = {name: count for name, count in wanted.items() if bounded[name] < count}
    reason = f"the cluster's max_workers {view.max_workers} leave room for "
    return {
        name: Gate("max_workers", f"{reason}{bounded[name]} of {count} agents", count)
        for name, count in lacking.items()
    }


def _changed(view: ClusterView, counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count != view.targets.get(name, 0)}


def _possible(view: ClusterView, counts: Mapping[str, int]) -> bool:
    """Return whether a cluster may have ``counts``: what it may not would be refused at every tick."""
    groups = {group.name: group.count for group in view.blueprint.groups}
    fit = all(groups[name].minimum <= count <= groups[name].maximum for name, count in _changed(view, counts).items())
    return fit and view.min_workers <= sum(counts.values()) <= view.max_workers


def _permitted(view: ClusterView, decision: ClusterDecision) -> ClusterDecision:
    """Hold changes back that ``paused`` or ``dry_run`` forbids."""
    policy = view.blueprint.scaling
    forbidden = {
        name: count
        for name, count in decision.groups.items()
        if policy.dry_run or view.held in ("both", "out" if count > view.targets.get(name, 0) else "in")
    }
    if not forbidden:
        return decision
    gate = "dry_run" if policy.dry_run else "paused"
    held = {name: Gate(gate, f"{gate}: {decision.reason}", count) for name, count in forbidden.items()}
    allowed = {name: count for name, count in decision.groups.items() if name not in forbidden}
    if not _possible(view, {**view.targets, **allowed}):
        allowed = {}
    return replace(decision, groups=allowed, held={**decision.held, **held})


def _only_growth(view: ClusterView, decision: ClusterDecision) -> ClusterDecision:
    """Leave to a cluster that is just being started what it has; more may come before all are there."""
    growth = {name: count for name, count in decision.groups.items() if count > view.targets.get(name, 0)}
    if len(growth) == len(decision.groups):
        return decision
    if growth and _possible(view, {**view.targets, **growth}):
        return replace(decision, groups=growth)
    return replace(decision, groups={}, reason="it is being started, so none is taken away")


def _remembered(view: ClusterView, decision: ClusterDecision, now: float) -> ClusterDecision:
    """Write what changes into the state, for the next decision."""
    period, state = view.blueprint.scaling.scale_up_period_seconds, dict(decision.state)
    for name, one in decision.state.items():
        before = view.targets.get(name, 0)
        after = decision.groups.get(name, before)
        state[name] = windows.remembered(one, now=now, before=before, after=after, period=period)
    return replace(decision, state=state)


def bound(view: ClusterView, wanted: Mapping[str, int], signals: Mapping[str, GroupSignals]) -> dict[str, int]:
    """Bring ``wanted`` within the cluster's bounds; agents cut by max_workers leave where the fewest jobs wait."""
    scalable = {group.name: group for group in view.blueprint.groups if group.count.scalable}
    bounded = dict(wanted)

    def jobs_per_agent(name: str) -> float:
        return (signals[name].backlog or 0) / max(bounded[name], 1)

    def floor(name: str) -> int:
        """Return the fewest that a group may be cut to: never what it has now, which only its own gates may take."""
        return max(scalable[name].count.minimum, min(view.targets.get(name, 0), wanted[name]))

    while sum(bounded.values()) > view.max_workers:
        above = [name for name in scalable if bounded[name] > floor(name)]
        if not above:
            break  # the caller sees that it is not possible
        bounded[min(above, key=lambda name: (jobs_per_agent(name), -bounded[name]))] -= 1
    while sum(bounded.values()) < view.fewest:
        room = [name for name in scalable if bounded[name] < scalable[name].count.maximum]
        if not room:
            break
        # What is there stays there: an agent moved to keep a minimum would be a change without a gain.
        room.sort(key=lambda name: (-(view.targets.get(name, 0) - bounded[name]), bounded[name]))
        bounded[room[0]] += 1
    return bounded


# --- the step rule ----------------------------------------------------------------------------------------------


def _by_step(view: ClusterView, signals: Mapping[str, GroupSignals]) -> ClusterDecision:
    policy, n, whole = view.blueprint.scaling, sum(view.targets.values()), total(signals)
    value, bounds = sizing.metric_value(policy, whole), (view.fewest, view.max_workers)
    decision = sizing.decide_step(policy, value, n, bounds, view.since_change)
    if decision.target < view.fewest:  # neither a gate nor what is unknown holds a minimum back
        return _shared(view, signals, view.fewest, f"the bounds or a schedule ask for {view.fewest} instead of {n}")
    if value is None:
        return _step_unknown(view)
    if decision.held:
        ungated = sizing.decide_step(policy, value, n, bounds, math.inf)
        return _step_held(decision.held, decision.reason, ungated.target)
    if decision.target == n:
        return ClusterDecision({}, decision.reason, {})
    if decision.target < n and (whole.backlog is None or not whole.beats_fresh):
        reason = "what waits or runs is unknown" if whole.backlog is None else "an agent's beat is missing"
        return _step_held("unknown", f"{reason}, so none is taken away", decision.target)
    return _shared(view, signals, decision.target, decision.reason)


def _step_unknown(view: ClusterView) -> ClusterDecision:
    policy, n = view.blueprint.scaling, sum(view.targets.values())
    ticks, fallback = view.unknown_ticks + 1, min(policy.fallback_workers, view.max_workers)
    if ticks >= policy.fallback_failure_threshold and fallback > n:
        reason = f"{policy.metric} is unknown {ticks} times in a row: up from {n} to the {fallback} of fallback"
        return _shared(view, {}, fallback, reason)
    return _step_held("unknown", f"{policy.metric} is unknown, so nothing changes", n)


def _step_held(gate: str, reason: str, wanted: int) -> ClusterDecision:
    return ClusterDecision({}, reason, {CLUSTER: Gate(gate, reason, wanted)})


def _shared(view: ClusterView, signals: Mapping[str, GroupSignals], target: int, reason: str) -> ClusterDecision:
    """Share a cluster's new size among its groups. Nobody busy leaves, and on the way up no group gives one away."""
    up = target > sum(view.targets.values())
    groups = [
        _limited(group, view.targets.get(group.name, 0), None if up else signals[group.name])
        for group in view.blueprint.groups
    ]
    backlogs = {name: found.backlog or 0 for name, found in signals.items()}
    shared = distribute(max(target, sum(group.count.minimum for group in groups)), groups, backlogs)
    if not _possible(view, shared):
        return _step_held("bounds", _NO_ROOM, target)
    changed = _changed(view, shared)
    if not changed and up:
        return _step_held("bounds", f"{reason}, but the groups have no room", target)
    if not changed:
        return _step_held("busy", f"{reason}, but all agents are busy", target)
    return ClusterDecision(changed, reason, {})


def _limited(group: AgentGroup, now: int, leaving: GroupSignals | None) -> AgentGroup:
    """Return ``group`` with the room it has on the way up, or, given its signals, on the way down."""
    ends = group.count
    if leaving is None:
        return replace(group, count=replace(ends, minimum=max(ends.minimum, now), maximum=max(ends.maximum, now)))
    fewest = min(now, max(ends.minimum, leaving.busy_agents))
    return replace(group, count=replace(ends, minimum=fewest, maximum=now))


# --- the record -------------------------------------------------------------------------------------------------


def held_as_json(held: Mapping[str, Gate]) -> dict[str, Any]:
    """Return the gates as JSON-ready data."""
    return {name: {"gate": gate.gate, "reason": gate.reason, "wanted": gate.wanted} for name, gate in held.items()}
