"""What holds a change of one group's size back, and the memory that takes: windows, votes, limits and panic. Pure.

Sources: the stabilization windows and rate limits are those of Kubernetes' HorizontalPodAutoscaler (behavior), the
panic mode is Knative's, the votes and the undoing of drains are our own. "The tick" in docs/architecture.md tells why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.sizing import metric_value, needed
from brain_clusters.domain.specs import AgentGroup, ScalingPolicy
from brain_clusters.domain.windows import GroupState, hold_seconds, lowest_need, lows_with, peaks_with


@dataclass(frozen=True, slots=True)
class Moment:
    """When a group is looked at, and how it stands. target: its desired count; since_change: seconds since the
    cluster was last scaled; unknown_ticks: looks in a row that could not tell what waits.
    """

    now: float
    target: int
    since_change: float
    unknown_ticks: int = 0


@dataclass(frozen=True, slots=True)
class GroupDecision:
    """target: how many agents there should be; wanted: how many there would be without gates; held: the gate that
    held a change back, None where none did; state: for the next decision.
    """

    target: int
    wanted: int
    reason: str
    held: str | None
    state: GroupState


def decide_group(
    policy: ScalingPolicy, group: AgentGroup, signals: GroupSignals, moment: Moment, state: GroupState
) -> GroupDecision:
    """Decide the size of one scalable group under ``policy: target``."""
    target, now = moment.target, moment.now
    hold = hold_seconds(policy, signals, state)
    state = replace(state, hold=hold)
    if state.target != target:  # somebody else scaled it, or it is new: what they wanted counts like a need of now
        peaks = peaks_with(state.peaks, now, target, hold)
        state = replace(state, peaks=peaks, lows=(), votes=0)
    value, need = metric_value(policy, signals), needed(policy, signals)
    if signals.ready is not None and target == 0 and signals.ready > 0:
        return _from_zero(policy, group, signals, moment, replace(state, target=target))
    if target == 0 and signals.backlog == 0:  # nobody is there and nothing is to be done, so no usage is unknown
        value, need = value or 0.0, need or 0
    if value is None or need is None:
        return _unknown(policy, group, moment, replace(state, target=target, votes=0))
    if (signals.ready or 0) > policy.activation_threshold:
        need = max(need, 1)
    state = replace(state, target=target, panic_until=_panic_until(policy, signals, need, now, state))
    if state.panic_until > now:
        need = max(need, needed(policy, signals, signals.burst_rate) or 0)
    wanted = within(group, max(need + policy.buffer_workers, policy.idle_workers))
    state = replace(
        state,
        peaks=peaks_with(state.peaks, now, wanted, hold),
        lows=lows_with(state.lows, now, wanted, policy.scale_up_stabilization_seconds),
    )
    if wanted > target:
        return _up(policy, signals, value, moment, replace(state, votes=0), wanted)
    if wanted < target:
        return _down(policy, signals, value, moment, state, wanted)
    reason = f"{target} agents are right for {told(signals)}"
    return GroupDecision(target, wanted, reason, None, replace(state, votes=0))


def within(group: AgentGroup, count: int) -> int:
    """Return ``count`` within the group's own bounds."""
    return max(group.count.minimum, min(count, group.count.maximum))


def told(signals: GroupSignals) -> str:
    """Return the jobs of a group as words."""
    running = (signals.running or 0) + signals.reserved
    return f"{signals.ready} waiting and {running} running jobs"


def _kept(moment: Moment, wanted: int, reason: str, held: str, state: GroupState) -> GroupDecision:
    return GroupDecision(moment.target, wanted, reason, held, state)


def _unknown(policy: ScalingPolicy, group: AgentGroup, moment: Moment, state: GroupState) -> GroupDecision:
    """Hold the count; after ``fallback.failure_threshold`` looks in a row go up to ``fallback.workers``, never down."""
    target, ticks = moment.target, moment.unknown_ticks + 1
    fallback = within(group, policy.fallback_workers)
    if ticks >= policy.fallback_failure_threshold and fallback > target:
        reason = f"{policy.metric} is unknown {ticks} times in a row: up from {target} to the {fallback} of fallback"
        return GroupDecision(fallback, fallback, reason, None, state)
    return _kept(moment, target, f"{policy.metric} is unknown, so nothing changes", "unknown", state)


# --- up ---------------------------------------------------------------------------------------------------------


def _from_zero(
    policy: ScalingPolicy, group: AgentGroup, signals: GroupSignals, moment: Moment, state: GroupState
) -> GroupDecision:
    """From zero the metric cannot gate, or one job would never wake a group whose threshold is ten."""
    wanted = within(group, max((needed(policy, signals) or 0) + policy.buffer_workers, policy.idle_workers, 1))
    waiting = "1 job waits" if signals.ready == 1 else f"{signals.ready} jobs wait"
    waiting += " and no agent serves the group"
    if (signals.ready or 0) <= policy.activation_threshold:
        found = decide_group(policy, group, replace(signals, ready=0), moment, state)
        if found.target > 0:  # what is kept in reserve is kept without these jobs too
            return found
        reason = f"{waiting}, but that is not above activation_threshold {policy.activation_threshold}"
        return _kept(moment, wanted, reason, "activation_threshold", found.state)
    state = replace(state, peaks=peaks_with(state.peaks, moment.now, wanted, state.hold))
    state = replace(state, votes=0, panic_until=moment.now + policy.panic_window_seconds)
    return GroupDecision(wanted, wanted, f"{waiting}: up from 0 to {wanted}", None, state)


def _up(
    policy: ScalingPolicy, signals: GroupSignals, value: float, moment: Moment, state: GroupState, wanted: int
) -> GroupDecision:
    target, goal = moment.target, wanted
    late = signals.oldest_age is not None and signals.oldest_age > policy.target_latency_seconds
    needs = f"{wanted} agents are needed for {told(signals)}"
    if not late and (value <= policy.scale_up_threshold or wanted - target <= policy.tolerance * target):
        goal = min(wanted, _reserve(policy, signals, target))
        if goal <= target and value <= policy.scale_up_threshold:
            reason = f"{needs}, but {policy.metric} {value:g} is not above {policy.scale_up_threshold:g}"
            return _kept(moment, wanted, reason, "scale_up_threshold", state)
        if goal <= target:
            reason = f"{needs}, which is within the tolerance of {policy.tolerance:.0%} of {target}"
            return _kept(moment, wanted, reason, "tolerance", state)
    panics = state.panic_until > moment.now
    if policy.scale_up_stabilization_seconds > 0 and not panics:
        lowest = lowest_need(state.lows, now=moment.now, target=target, window=policy.scale_up_stabilization_seconds)
        if lowest <= target:
            seconds = policy.scale_up_stabilization_seconds
            return _kept(moment, wanted, f"{needs}, but not for {seconds:g} s yet", "scale_up.stabilization", state)
        goal = min(goal, lowest)
    allowed = goal if panics else _limit(policy, state, moment)
    if allowed <= target:
        reason = f"{needs}, but it has grown by its most for {policy.scale_up_period_seconds:g} s already"
        return _kept(moment, wanted, reason, "scale_up.limit", state)
    reached = min(goal, allowed)
    why = f"{told(signals)}: up from {target} to {reached}"
    if reached < goal:
        why += f" of {goal} wanted, the most in {policy.scale_up_period_seconds:g} s"
    return GroupDecision(reached, wanted, why, None if reached == goal else "scale_up.limit", state)


def _reserve(policy: ScalingPolicy, signals: GroupSignals, target: int) -> int:
    """Return what is kept beyond the need, whatever waits; without such a rule, what is there."""
    if not (policy.buffer_workers or policy.idle_workers):
        return target
    return max(signals.busy_agents + policy.buffer_workers, policy.idle_workers)


def _limit(policy: ScalingPolicy, state: GroupState, moment: Moment) -> int:
    """Return the most agents now: max_percent or max_workers, the larger, above the count of a period ago."""
    recent = sum(count for at, count in state.grown if at > moment.now - policy.scale_up_period_seconds)
    base = max(0, moment.target - recent)
    return max(int(base * (1 + policy.scale_up_max_percent / 100)), base + policy.scale_up_max_workers)


def _panic_until(policy: ScalingPolicy, signals: GroupSignals, need: int, now: float, state: GroupState) -> float:
    """Panic while the short window's demand is ``panic_threshold`` times what is ready, and a window longer."""
    demand = max(need, needed(policy, signals, signals.burst_rate) or 0)
    panics = demand > signals.agents_ready and demand >= policy.panic_threshold * signals.agents_ready
    return now + policy.panic_window_seconds if panics else state.panic_until


# --- down -------------------------------------------------------------------------------------------------------


def _down(
    policy: ScalingPolicy, signals: GroupSignals, value: float, moment: Moment, state: GroupState, wanted: int
) -> GroupDecision:
    target = moment.target
    would = f"{wanted} agents would do for {told(signals)}"
    if value >= policy.scale_down_threshold:
        reason = f"{would}, but {policy.metric} {value:g} is not below {policy.scale_down_threshold:g}"
        return _kept(moment, wanted, reason, "scale_down_threshold", replace(state, votes=0))
    if not signals.beats_fresh:
        reason = f"{would}, but an agent's beat is missing, so none is taken away"
        return _kept(moment, wanted, reason, "unknown", replace(state, votes=0))
    if signals.backlog is None:
        reason = f"{would}, but what waits or runs is unknown, so none is taken away"
        return _kept(moment, wanted, reason, "unknown", replace(state, votes=0))
    if state.panic_until > moment.now:
        reason = (
            f"{would}, but a burst is on or just over: no way down for {math.ceil(state.panic_until - moment.now)} s"
        )
        return _kept(moment, wanted, reason, "panic", replace(state, votes=0))
    at, highest = state.peaks[0]
    if highest >= target:
        reason = f"{would}, but {highest} were needed {moment.now - at:.0f} s ago, and the highest need of "
        reason += f"{state.hold:g} s counts"
        return _kept(moment, wanted, reason, "scale_down.stabilization", replace(state, votes=0))
    state = replace(state, votes=state.votes + 1)
    if state.votes < policy.scale_down_consecutive:
        reason = f"{highest} agents would do, proposed {state.votes} of {policy.scale_down_consecutive} times in a row"
        return _kept(moment, wanted, reason, "scale_down.consecutive", state)
    if (target - highest) <= policy.tolerance * target and highest > 0:
        reason = f"{would}, which is within the tolerance of {policy.tolerance:.0%} of {target}"
        return _kept(moment, wanted, reason, "tolerance", state)
    learned = policy.scale_down_stabilization_seconds is None
    if learned and state.shrunk_at is not None and highest > 0 and moment.now - state.shrunk_at < state.hold:
        ago = moment.now - state.shrunk_at
        reason = f"{would}, but it shrank {ago:.0f} s ago, and a window of {state.hold:g} s lies between two ways down"
        return _kept(moment, wanted, reason, "scale_down.stabilization", state)
    if moment.since_change < policy.cooldown_seconds:
        left = policy.cooldown_seconds - moment.since_change
        return _kept(moment, wanted, f"{would}; the cooldown lasts {left:.0f} s more", "cooldown", state)
    # Never below what holds work; agents that leave are the idle ones.
    kept = max(highest, min(target, signals.busy_agents))
    if kept == target:
        return _kept(moment, wanted, f"{would}, but all of the {target} are busy", "busy", state)
    reason = f"{told(signals)}: down from {target} to {kept}"
    return GroupDecision(kept, wanted, reason, None, state)  # the votes stand until the count has changed
