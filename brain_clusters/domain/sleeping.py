"""When a cluster falls asleep, when it wakes and when it is given up. Pure; times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brain_clusters.domain import sizing
from brain_clusters.domain.gates import within
from brain_clusters.domain.scaling import CLUSTER, ClusterView, Gate
from brain_clusters.domain.signals import GroupSignals, total
from brain_clusters.domain.specs import Blueprint, HibernateRules


@dataclass(frozen=True, slots=True)
class Sleep:
    """Whether a running cluster should sleep now. held: what keeps it awake though it has nothing to do."""

    sleeps: bool
    reason: str
    held: Gate | None = None


def hibernation(view: ClusterView, signals: Mapping[str, GroupSignals]) -> Sleep:
    """Decide whether a running cluster should sleep.

    Always needed: nothing waits, nothing is reserved, nothing runs, every beat is fresh, no schedule asks for agents,
    and no job is due within ``hibernate.eta_horizon``. Then the blueprint's hibernate_conditions must hold; without
    any, ``scaling.hibernate.after`` counts, except for clusters of the type persistent and those that keep
    ``idle_workers`` or ``buffer_workers``, which stay.
    """
    whole, policy = total(signals), view.blueprint.scaling
    rules = _rules(view.blueprint, view.persistent)
    if rules is None or whole.backlog is None or whole.backlog > 0 or whole.leaving or view.idle_seconds is None:
        return Sleep(False, "")
    idle = f"no job for {view.idle_seconds:.0f} s"
    needed = rules.idle_seconds or 0.0
    if view.idle_seconds < needed:
        return Sleep(False, f"{idle}; it sleeps after {needed:g} s")  # nothing is held back: it is not time yet
    if not whole.beats_fresh:
        return _held(f"{idle}, but an agent's beat is missing", "unknown")
    if rules.load_below_percent is not None and (whole.load_percent or 0.0) >= rules.load_below_percent:
        return _held(f"{idle}, but the load is not below {rules.load_below_percent:g} %", "load_below")
    if view.floor > 0:
        return _held(f"{idle}, but a schedule asks for {view.floor} agents", "schedule")
    due = soonest(whole.next_due, view.next_floor)
    if due is not None and (due <= 0 or due < policy.hibernate_eta_horizon_seconds):
        return _held(f"{idle}, but work is due in {max(0.0, due):.0f} s", "eta_horizon")
    if policy.dry_run or view.held in ("in", "both"):
        gate = "dry_run" if policy.dry_run else "paused"
        return _held(f"{gate}: {idle}, nothing waits and nothing runs", gate)
    return Sleep(True, f"{idle}, nothing waits and nothing runs")


def sleeps_after(blueprint: Blueprint, *, persistent: bool) -> float | None:
    """Return the seconds without work before a cluster may sleep; None: it never does by itself."""
    rules = _rules(blueprint, persistent)
    return None if rules is None else rules.idle_seconds or 0.0


def _rules(blueprint: Blueprint, persistent: bool) -> HibernateRules | None:
    policy, rules = blueprint.scaling, blueprint.lifecycle.hibernate
    if rules is not None:
        return rules
    stays = persistent or policy.idle_workers > 0 or policy.buffer_workers > 0
    return None if stays else HibernateRules(idle_seconds=policy.hibernate_after_seconds)


def _held(reason: str, gate: str) -> Sleep:
    return Sleep(False, reason, Gate(gate, reason, 0))


def soonest(*seconds: float | None) -> float | None:
    """Return the least of what is known, or None."""
    return min((found for found in seconds if found is not None), default=None)


@dataclass(frozen=True, slots=True)
class Wake:
    """Whether a sleeping cluster should wake now. groups: the agents that each group with work begins with.

    wake_in: the seconds until it has to start for what is due or scheduled; None when nothing is.
    """

    wakes: bool
    reason: str
    groups: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, Gate] = field(default_factory=dict)
    wake_in: float | None = None


def waking(
    view: ClusterView, signals: Mapping[str, GroupSignals], *, asleep_backlog: int, look_ahead: float, fired: str | None
) -> Wake:
    """Decide whether a sleeping cluster should wake.

    asleep_backlog: jobs that had waited when sleep was asked for by hand, which do not count. look_ahead: the seconds
    until the next look. fired: when a schedule of ``reactivate_triggers`` fired, if one did since the last look.

    A job with an ETA wakes it at the due time less the start time of its group; so does a schedule's begin.
    """
    policy, triggers = view.blueprint.scaling, view.blueprint.lifecycle.reactivate
    starts = {name: sizing.start_seconds(found) for name, found in signals.items()}
    due_in = {n: found.next_due - starts[n] for n, found in signals.items() if found.next_due is not None}
    floor_in = None if view.next_floor is None else view.next_floor - max(starts.values(), default=0.0)
    jobs_count = triggers.new_task_received
    wake_in = soonest(min(due_in.values(), default=None) if jobs_count else None, floor_in)
    groups = {name: _first_size(view, name, found) for name, found in signals.items() if found.ready}
    waiting = sum(found.ready or 0 for found in signals.values())
    due = {
        name: _first_size(view, name, signals[name])
        for name, seconds in due_in.items()
        if jobs_count and seconds <= look_ahead
    }
    new, reason = waiting - asleep_backlog if jobs_count else 0, f"{waiting} jobs wait for a sleeping cluster"
    if new > policy.activation_threshold or (new > 0 and due):
        return _allowed(view, Wake(True, reason, {**due, **groups}, wake_in=wake_in))
    if due:
        seconds = max(0.0, min(signals[name].next_due or 0.0 for name in due))
        return _allowed(view, Wake(True, f"a job is due in {seconds:.1f} s", due, wake_in=wake_in))
    if view.floor > 0 or (floor_in is not None and floor_in <= look_ahead):
        return _allowed(view, Wake(True, "a schedule of scaling asks for agents", wake_in=wake_in))
    if fired is not None:
        return _allowed(view, Wake(True, f"a schedule of reactivate_triggers fired at {fired}", wake_in=wake_in))
    if new > 0:  # last: a schedule that fired is seen once
        reason += f", but that is not above activation_threshold {policy.activation_threshold}"
        held = {CLUSTER: Gate("activation_threshold", reason, sum(groups.values()))}
        return Wake(False, reason, held=held, wake_in=wake_in)
    return Wake(False, "nothing new waits, nothing is due", wake_in=wake_in)


def job_wakes(blueprint: Blueprint, *, asleep: bool) -> bool:
    """Return whether a single job starts a sleeping cluster, or a group without an agent, before the next look.

    Where more than one job is asked for, or a change is held, the look has to decide.
    """
    policy = blueprint.scaling
    held = policy.dry_run or policy.paused in ("out", "both")
    allowed = blueprint.lifecycle.reactivate.new_task_received if asleep else True
    return allowed and policy.activation_threshold == 0 and not held


def _first_size(view: ClusterView, name: str, signals: GroupSignals) -> int:
    """Return what a group begins with: what the formula asks for, at least one."""
    group = view.blueprint.group(name)
    assert group is not None  # noqa: S101 - signals are made from the blueprint's own groups
    return within(group, max(1, sizing.needed(view.blueprint.scaling, signals) or 0))


def _allowed(view: ClusterView, wake: Wake) -> Wake:
    policy = view.blueprint.scaling
    if not policy.dry_run and view.held not in ("out", "both"):
        return wake
    gate = "dry_run" if policy.dry_run else "paused"
    reason = f"{gate}: {wake.reason}"
    return Wake(False, reason, held={CLUSTER: Gate(gate, reason, sum(wake.groups.values()))}, wake_in=wake.wake_in)
