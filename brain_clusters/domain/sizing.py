"""How many agents the jobs of a group need: the target formula, and the reference's step rule. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from brain_clusters.domain.engines import PROCESS, default_start_seconds
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import MAX_COUNT, ScalingPolicy

# Of agents that are forked, until starts were measured.
DEFAULT_START_SECONDS = default_start_seconds(PROCESS)


@dataclass(frozen=True, slots=True)
class Sized:
    """How many agents there should be and why. held: the gate that held a change back."""

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


def needed(policy: ScalingPolicy, signals: GroupSignals, rate: float | None = None) -> int | None:
    """Return the agents that the target formula asks for; None while the backlog is unknown.

    tau  = max(target_latency - T0, target_latency / 2, S)
    need = max(ceil(S * (lambda + (R + U) / tau) / (c * target_utilization)), ceil((A + U) / c))
    cap  = ceil((R + U + A + lambda * T0) / c);  the answer is min(need, cap).
    While S is unknown: ceil((R + U + A) / (c * queue_per_slot)), and no less than the same with S as how long the jobs
    in work have run so far. Waiting work of T0 + payback seconds pays for an agent of its own, within the cap: the same
    work is done by more agents in less time, and what it costs is only their starts and idle ends.
    Once the oldest of R has waited for longer than target_latency, those who are busy are not counted for what waits:
    need = ceil((A + U) / c) + the first term. Their jobs may be longer than S, by any length.
    R includes the held jobs that are due before an agent which starts now is ready.
    Source: Little's law for what arrives and runs; the rate (R + U) / tau empties the queue within the target.
    rate: lambda, if it is not the signals' own.
    """
    if policy.metric in ("cpu_usage", "load_percentage"):
        return _needed_by_usage(policy, signals)
    backlog = signals.backlog
    if backlog is None or signals.ready is None:
        return None
    slots, backlog = signals.slots, backlog + signals.due_soon
    by_length = math.ceil(backlog / (slots * policy.queue_per_slot)) if signals.service_time is None else 0
    service = signals.service_time if signals.service_time is not None else signals.running_age
    if service is None:
        return by_length
    rate = signals.arrival_rate if rate is None else rate
    start = start_seconds(signals)
    waiting, latency = signals.ready + signals.reserved + signals.due_soon, policy.target_latency_seconds
    tau = max(latency - start, latency / 2, service, 1e-9)
    work = service * (rate + waiting / tau)
    flow = _agents(work / (slots * policy.target_utilization))
    need = max(flow, signals.busy_agents, by_length)
    if signals.oldest_age is not None and signals.oldest_age > latency:
        need = max(need, signals.busy_agents + flow)
    return min(max(need, _paid(policy, service * waiting / slots, start)), _agents((backlog + rate * start) / slots))


def _paid(policy: ScalingPolicy, work: float, start: float) -> int:
    """Return how many agents so many seconds of waiting work pay for: each does its share, and idles at the end."""
    return int(min(work / (start + policy.payback_seconds), MAX_COUNT)) if policy.payback_seconds > 0 else 0


def start_seconds(signals: GroupSignals) -> float:
    """Return T0: what was measured or, before that, what a start usually takes on its engine."""
    return signals.start_time if signals.start_time is not None else signals.usual_start


def _agents(value: float) -> int:
    """Round up; a rate that has all but died away is no agent."""
    return math.ceil(min(value, MAX_COUNT) - 1e-6)


def _needed_by_usage(policy: ScalingPolicy, signals: GroupSignals) -> int | None:
    """Return ceil(n * value / target) with the target midway between the thresholds."""
    value = metric_value(policy, signals)
    midway = (policy.scale_up_threshold + policy.scale_down_threshold) / 2
    if value is None or midway <= 0:
        return None
    n = signals.agents_ready or signals.capacity  # the value is that of those which are ready
    return math.ceil(min(n * value / midway, MAX_COUNT))  # a threshold may be next to nothing


def decide_step(
    policy: ScalingPolicy, value: float | None, n: int, bounds: tuple[int, int], since_change: float
) -> Sized:
    """Decide the size of a whole cluster under ``policy: step``, the reference rule.

    Up to int(n * 1.2) + 1 when the metric is above scale_up_threshold, down to int(n * 0.8) when it is below
    scale_down_threshold, both within ``bounds`` and only after cooldown_period.
    """
    low, high = bounds
    if value is None:
        return Sized(n, f"{policy.metric} is unknown, so nothing changes", held="unknown")
    if value > policy.scale_up_threshold:
        wanted, why = max(low, min(high, int(n * 1.2) + 1)), f"above {policy.scale_up_threshold:g}"
    elif value < policy.scale_down_threshold:
        wanted, why = min(high, max(low, int(n * 0.8))), f"below {policy.scale_down_threshold:g}"
    else:
        return Sized(n, f"{policy.metric} {value:g} is between the thresholds")
    if wanted == n:
        return Sized(n, f"{policy.metric} {value:g} is {why}, and {n} is the limit already")
    if since_change < policy.cooldown_seconds:
        left = policy.cooldown_seconds - since_change
        return Sized(n, f"{wanted} agents are wanted, but the cooldown lasts {left:.0f} s more", held="cooldown")
    return Sized(wanted, f"{policy.metric} {value:g} is {why}: from {n} to {wanted} agents")
