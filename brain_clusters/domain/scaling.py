"""How many agents there should be, and why. Pure: signals and the time come as arguments, a decision comes back.

Symbols, as in docs/architecture.md: R ready jobs, U reserved, A running, lambda arrivals per second, S service
time, T0 start time, c slots per agent. None means unknown, and unknown never takes an agent away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from brain_clusters.domain.specs import MAX_COUNT, AgentGroup, Blueprint, HibernateRules, ScalingPolicy

# Until starts were measured: several times a fork from a zygote, and a third of a cold `celery worker`.
DEFAULT_START_SECONDS = 0.3

_NO_ROOM = "the cluster's bounds and the counts of its groups leave no room for a change"


@dataclass(frozen=True, slots=True)
class GroupSignals:
    """What one tick saw of one group. Times in seconds, rates per second.

    ready (R): jobs that wait; running (A): jobs that an agent holds, reserved ones (U) included, which under
    prefetch 1 are the same messages. agents_ready + agents_starting is the capacity that exists.
    """

    ready: int | None = None
    running: int | None = None
    agents_ready: int = 0
    agents_starting: int = 0
    beats_fresh: bool = True
    slots: int = 1
    oldest_age: float | None = None
    arrival_rate: float = 0.0
    service_time: float | None = None
    start_time: float | None = None
    cpu_percent: float | None = None

    @property
    def backlog(self) -> int | None:
        """R + U + A, or None while either is unknown."""
        return None if self.ready is None or self.running is None else self.ready + self.running

    @property
    def capacity(self) -> int:
        """Agents that work or are about to."""
        return self.agents_ready + self.agents_starting

    @property
    def load_percent(self) -> float | None:
        """100 * (A + U + R) / (ready agents * c), or None while that cannot be said."""
        if self.backlog is None:
            return None
        if self.agents_ready == 0:
            return 100.0 if self.backlog else 0.0
        return 100.0 * self.backlog / (self.agents_ready * self.slots)


@dataclass(frozen=True, slots=True)
class Decision:
    """target: how many agents there should be; reason: a sentence; held: the gate that held a change back."""

    target: int
    reason: str
    held: str | None = None


def metric_value(policy: ScalingPolicy, signals: GroupSignals) -> float | None:
    """Return the policy's metric: jobs, seconds or percent; None is unknown."""
    if policy.metric == "task_queue_length":
        return signals.ready
    if policy.metric == "queue_latency":
        # An empty queue has no wait, whether or not messages carry a stamp.
        return 0.0 if signals.ready == 0 else signals.oldest_age
    if policy.metric == "cpu_usage":
        return signals.cpu_percent
    return signals.load_percent


def needed(policy: ScalingPolicy, signals: GroupSignals) -> int | None:
    """Return the agents that the target formula asks for; None while the backlog is unknown.

    tau  = max(target_latency - T0, target_latency / 2, S)
    need = max(ceil(S * (lambda + R / tau) / (c * target_utilization)), ceil(A / c))
    cap  = ceil((R + A + lambda * T0) / c);  the answer is min(need, cap).
    While S is unknown: ceil((R + A) / (c * queue_per_slot)).
    Source: Little's law for the running part; the drain rate R / tau empties the queue within the target.
    """
    if policy.metric in ("cpu_usage", "load_percentage"):
        return _needed_by_usage(policy, signals)
    if signals.ready is None or signals.running is None:
        return None
    waiting, running, slots = signals.ready, signals.running, signals.slots
    if signals.service_time is None:
        return math.ceil((waiting + running) / (slots * policy.queue_per_slot))
    start = signals.start_time if signals.start_time is not None else DEFAULT_START_SECONDS
    service = signals.service_time
    tau = max(policy.target_latency_seconds - start, policy.target_latency_seconds / 2, service)
    work = service * (signals.arrival_rate + waiting / tau)
    need = max(math.ceil(work / (slots * policy.target_utilization)), math.ceil(running / slots))
    cap = math.ceil((waiting + running + signals.arrival_rate * start) / slots)
    return min(need, cap)


def _needed_by_usage(policy: ScalingPolicy, signals: GroupSignals) -> int | None:
    """Return ceil(n * value / target) with the target midway between the thresholds."""
    value = metric_value(policy, signals)
    midway = (policy.scale_up_threshold + policy.scale_down_threshold) / 2
    if value is None or midway <= 0:
        return None
    return math.ceil(min(signals.capacity * value / midway, MAX_COUNT))  # a threshold may be next to nothing


def decide_group(
    policy: ScalingPolicy, group: AgentGroup, signals: GroupSignals, *, target: int, since_change: float
) -> Decision:
    """Decide the size of one scalable group under ``policy: target``.

    target: its desired count now; since_change: seconds since the cluster was last scaled.
    """
    value, need = metric_value(policy, signals), needed(policy, signals)
    if target == 0 and (signals.ready or 0) > policy.activation_threshold:
        # From zero the metric cannot gate, or one job would never wake a group whose threshold is ten.
        wanted = min(max(need or 0, 1, group.count.minimum), group.count.maximum)
        return Decision(wanted, f"{signals.ready} jobs wait and no agent serves them")
    if value is None or need is None:
        return Decision(target, f"{policy.metric} is unknown, so nothing changes", held="unknown")
    wanted = max(group.count.minimum, min(need, group.count.maximum))
    if wanted > target:
        return _gated_up(policy, signals, value, target, wanted)
    if wanted < target:
        return _gated_down(policy, signals, value, target, wanted, since_change)
    return Decision(target, f"{target} agents are right for {signals.ready} waiting and {signals.running} running jobs")


def _gated_up(policy: ScalingPolicy, signals: GroupSignals, value: float, target: int, wanted: int) -> Decision:
    late = signals.oldest_age is not None and signals.oldest_age > policy.target_latency_seconds
    if value <= policy.scale_up_threshold and not late:
        reason = f"{wanted} agents would be needed, but {policy.metric} {value:g} is not above "
        return Decision(target, f"{reason}{policy.scale_up_threshold:g}", held="scale_up_threshold")
    work = f"{signals.ready} jobs wait and {signals.running} run"
    return Decision(wanted, f"{work}: up from {target} to {wanted} agents")


def _gated_down(
    policy: ScalingPolicy, signals: GroupSignals, value: float, target: int, wanted: int, since_change: float
) -> Decision:
    if value >= policy.scale_down_threshold:
        reason = f"{wanted} agents would do, but {policy.metric} {value:g} is not below "
        return Decision(target, f"{reason}{policy.scale_down_threshold:g}", held="scale_down_threshold")
    if not signals.beats_fresh:
        return Decision(target, "an agent's beat is missing, so none is taken away", held="unknown")
    wait = max(policy.cooldown_seconds, policy.scale_down_stabilization_seconds) - since_change
    if wait > 0:
        return Decision(target, f"{wanted} agents would do; no way down for {wait:.0f} s more", held="cooldown")
    # Never below what is busy, which would have to finish first anyway; agents that leave are busy beyond the target.
    kept = min(target, max(wanted, math.ceil((signals.running or 0) / signals.slots)))
    if kept == target:
        return Decision(target, f"{wanted} agents would do, but {signals.running} jobs run", held="busy")
    return Decision(kept, f"{signals.ready} jobs wait and {signals.running} run: down from {target} to {kept} agents")


def decide_step(
    policy: ScalingPolicy, value: float | None, n: int, bounds: tuple[int, int], since_change: float
) -> Decision:
    """Decide the size of a whole cluster under ``policy: step``, the reference rule.

    Up to int(n * 1.2) + 1 when the metric is above scale_up_threshold, down to int(n * 0.8) when it is below
    scale_down_threshold, both within ``bounds`` and only after cooldown_period.
    """
    low, high = bounds
    if value is None:
        return Decision(n, f"{policy.metric} is unknown, so nothing changes", held="unknown")
    if value > policy.scale_up_threshold:
        wanted, why = max(low, min(high, int(n * 1.2) + 1)), f"above {policy.scale_up_threshold:g}"
    elif value < policy.scale_down_threshold:
        wanted, why = min(high, max(low, int(n * 0.8))), f"below {policy.scale_down_threshold:g}"
    else:
        return Decision(n, f"{policy.metric} {value:g} is between the thresholds")
    if wanted == n:
        return Decision(n, f"{policy.metric} {value:g} is {why}, and {n} is the limit already")
    if since_change < policy.cooldown_seconds:
        return Decision(n, f"the cooldown lasts {policy.cooldown_seconds - since_change:.0f} s more", held="cooldown")
    return Decision(wanted, f"{policy.metric} {value:g} is {why}: from {n} to {wanted} agents")


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster as the autoscaler sees it. idle_seconds: since it last had work; None is unknown."""

    blueprint: Blueprint
    targets: Mapping[str, int]
    min_workers: int
    max_workers: int
    since_change: float
    idle_seconds: float | None
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class ClusterDecision:
    """The wanted count of each group whose count should change, the reasons, and the gates that held."""

    groups: Mapping[str, int]
    reason: str
    held: Mapping[str, str]


def decide(view: ClusterView, signals: Mapping[str, GroupSignals]) -> ClusterDecision:
    """Decide a running cluster's group counts within its min_workers and max_workers."""
    by_step = view.blueprint.scaling.policy == "step"
    return _permitted(view, _decide_by_step(view, signals) if by_step else _decide_by_target(view, signals))


def _permitted(view: ClusterView, decision: ClusterDecision) -> ClusterDecision:
    """Hold a change back that ``paused`` or ``dry_run`` forbids."""
    policy = view.blueprint.scaling
    growth = sum(count - view.targets.get(name, 0) for name, count in decision.groups.items())
    direction = "out" if growth > 0 else "in"
    if not decision.groups or not (policy.dry_run or policy.paused in ("both", direction)):
        return decision
    gate = "dry_run" if policy.dry_run else "paused"
    return ClusterDecision({}, decision.reason, {**decision.held, "cluster": f"{gate}: {decision.reason}"})


def _decide_by_target(view: ClusterView, signals: Mapping[str, GroupSignals]) -> ClusterDecision:
    decisions = {
        group.name: decide_group(
            view.blueprint.scaling,
            group,
            signals[group.name],
            target=view.targets.get(group.name, 0),
            since_change=view.since_change,
        )
        for group in view.blueprint.groups
        if group.count.scalable
    }
    wanted = {**view.targets, **{name: decision.target for name, decision in decisions.items()}}
    bounded = _bound(view, wanted, signals)
    changed = _changed(view, bounded)
    reasons = [f"{name}: {decisions[name].reason}" for name in changed if name in decisions]
    held = {name: decision.reason for name, decision in decisions.items() if decision.held}
    if not _possible(view, bounded):
        return ClusterDecision({}, _NO_ROOM, {**held, "cluster": _NO_ROOM})
    return ClusterDecision(changed, "; ".join(reasons) or "the cluster's bounds ask for it", held)


def _changed(view: ClusterView, counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count != view.targets.get(name, 0)}


def _possible(view: ClusterView, counts: Mapping[str, int]) -> bool:
    """Return whether a cluster may have ``counts``: what it may not would be refused at every tick."""
    groups = {group.name: group.count for group in view.blueprint.groups}
    fit = all(groups[name].minimum <= count <= groups[name].maximum for name, count in _changed(view, counts).items())
    return fit and view.min_workers <= sum(counts.values()) <= view.max_workers


def _bound(view: ClusterView, wanted: dict[str, int], signals: Mapping[str, GroupSignals]) -> dict[str, int]:
    """Bring ``wanted`` within the cluster's bounds; agents cut by max_workers leave where the fewest jobs wait."""
    scalable = {group.name: group for group in view.blueprint.groups if group.count.scalable}
    bounded = dict(wanted)

    def jobs_per_agent(name: str) -> float:
        return (signals[name].backlog or 0) / max(bounded[name], 1)

    def floor(name: str) -> int:
        """Return the fewest that a group may be cut to: a cut below what it has now is a way down like any other."""
        least, found = scalable[name].count.minimum, signals[name]
        unknown = found.backlog is None or not found.beats_fresh
        scaling = view.blueprint.scaling
        cooling = view.since_change < max(scaling.cooldown_seconds, scaling.scale_down_stabilization_seconds)
        return max(least, view.targets.get(name, 0)) if unknown or cooling else least

    while sum(bounded.values()) > view.max_workers:
        above = [name for name in scalable if bounded[name] > floor(name)]
        if not above:
            break  # the caller sees that it is not possible
        bounded[min(above, key=lambda name: (jobs_per_agent(name), -bounded[name]))] -= 1
    while sum(bounded.values()) < view.min_workers:
        room = [name for name in scalable if bounded[name] < scalable[name].count.maximum]
        if not room:
            break
        # What is there stays there: an agent moved to keep a minimum would be a change without a gain.
        room.sort(key=lambda name: (-(view.targets.get(name, 0) - bounded[name]), bounded[name]))
        bounded[room[0]] += 1
    return bounded


def _decide_by_step(view: ClusterView, signals: Mapping[str, GroupSignals]) -> ClusterDecision:
    from brain_clusters.domain.planning import distribute

    policy, n = view.blueprint.scaling, sum(view.targets.values())
    whole = total(signals)
    decision = decide_step(
        policy, metric_value(policy, whole), n, (view.min_workers, view.max_workers), view.since_change
    )
    if decision.target == n:
        return ClusterDecision({}, decision.reason, {"cluster": decision.reason} if decision.held else {})
    if decision.target < n and not whole.beats_fresh:
        reason = "an agent's beat is missing, so none is taken away"
        return ClusterDecision({}, reason, {"cluster": reason})
    backlogs = {name: found.backlog or 0 for name, found in signals.items()}
    up = decision.target > n
    groups = [_at_least(group, view.targets.get(group.name, 0)) if up else group for group in view.blueprint.groups]
    shared = distribute(decision.target, groups, backlogs)
    if not _possible(view, shared):
        return ClusterDecision({}, _NO_ROOM, {"cluster": _NO_ROOM})
    return ClusterDecision(_changed(view, shared), decision.reason, {})


def _at_least(group: AgentGroup, count: int) -> AgentGroup:
    """Return ``group`` with no less room than ``count``: on the way up no group gives an agent to another."""
    ends = group.count
    return replace(group, count=replace(ends, minimum=max(ends.minimum, count), maximum=max(ends.maximum, count)))


def total(signals: Mapping[str, GroupSignals]) -> GroupSignals:
    """Return the signals of a cluster as if it were one group: sums of jobs and agents, the worst of ages."""
    found = list(signals.values())
    unknown = not found or any(one.backlog is None for one in found)
    ages = [one.oldest_age for one in found if one.oldest_age is not None]
    cpus = [one.cpu_percent for one in found if one.cpu_percent is not None]
    agents = sum(one.agents_ready for one in found)
    return GroupSignals(
        ready=None if unknown else sum(one.ready or 0 for one in found),
        running=None if unknown else sum(one.running or 0 for one in found),
        agents_ready=agents,
        agents_starting=sum(one.agents_starting for one in found),
        beats_fresh=all(one.beats_fresh for one in found),
        slots=max(1, round(sum(one.slots * one.agents_ready for one in found) / agents)) if agents else 1,
        oldest_age=max(ages, default=None),
        cpu_percent=sum(cpus) / len(cpus) if cpus else None,
    )


def hibernation(view: ClusterView, whole: GroupSignals) -> Decision | None:
    """Return why a running cluster should sleep now, or None.

    Always needed: nothing waits, nothing runs, every beat is fresh. Then the blueprint's hibernate_conditions must
    hold; without any, ``scaling.hibernate.after`` counts, except for clusters of the type persistent, which stay.
    """
    policy = view.blueprint.scaling
    if policy.dry_run or policy.paused in ("in", "both"):
        return None
    if whole.backlog is None or whole.backlog > 0 or not whole.beats_fresh or view.idle_seconds is None:
        return None
    rules = view.blueprint.lifecycle.hibernate
    if rules is None:
        if view.persistent:
            return None
        rules = HibernateRules(idle_seconds=policy.hibernate_after_seconds)
    idle_needed = rules.idle_seconds if rules.idle_seconds is not None else 0.0
    if view.idle_seconds < idle_needed:
        return None
    if rules.load_below_percent is not None and (whole.load_percent or 0.0) >= rules.load_below_percent:
        return None
    return Decision(0, f"no job for {view.idle_seconds:.0f} s, nothing waits and nothing runs")


def as_inputs(signals: Mapping[str, GroupSignals]) -> dict[str, Any]:
    """Return ``signals`` as JSON-ready data for the history."""
    return {name: asdict(found) for name, found in signals.items()}
