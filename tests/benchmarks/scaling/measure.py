"""Figures of runs, and the verdict on ours against the target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from tests.benchmarks.scaling.records import Run
from tests.benchmarks.scaling.traces import Trace

# Waits that differ by less are the same: the phases of ticks alone make more.
SAME_SECONDS = 0.05
COST_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to. p50, p95, p99: seconds of wait; hours, overhead: agent-hours; work: hours of service."""

    p50: float
    p95: float
    p99: float
    hours: float
    overhead: float
    actions: float
    interrupted: float
    undone: float
    work: float


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the seeds."""

    mean: float
    least: float
    most: float


Spreads = Mapping[str, Spread]


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the least value that ``share`` of all do not exceed (nearest rank)."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else 0.0


def figures(trace: Trace, run: Run) -> Figures:
    """Return the figures of one run of ``trace``."""
    waits = sorted(run.waits)
    return Figures(
        p50=percentile(waits, 0.5),
        p95=percentile(waits, 0.95),
        p99=percentile(waits, 0.99),
        hours=run.agent_seconds / 3600,
        overhead=run.overhead_seconds / 3600,
        actions=run.actions,
        interrupted=run.interrupted,
        undone=run.undone,
        work=sum(trace.service) / 3600,
    )


def spreads(runs: Sequence[Figures]) -> Spreads:
    """Return mean, least and most of each figure over ``runs``."""
    found = {}
    for field in fields(Figures):
        values = [getattr(one, field.name) for one in runs]
        found[field.name] = Spread(sum(values) / len(values), min(values), max(values))
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """One trace's target: p95 no worse than the best peer's, at most 80 % of KEDA's agent-hours, none interrupted,
    no more actions than KEDA. Each miss is None where it is met.

    wait: seconds too long, wait_apart: without the peers that ``apart`` names; hours, hours_with_head: our share of
    KEDA's; interrupted, actions: how many too many. work, oracle: the share of KEDA's agent-hours that the jobs'
    service alone is, which is the least for anybody, and that of no avoidable waiting.
    """

    best_peer: str
    wait: float | None
    wait_apart: float | None
    hours: float | None
    hours_with_head: float | None
    interrupted: float | None
    actions: float | None
    work: float
    oracle: float

    @property
    def met(self) -> bool:
        return (self.wait, self.hours, self.interrupted, self.actions) == (None, None, None, None)


def verdict(
    ours: Spreads, peers: Mapping[str, Spreads], keda: Spreads, oracle: Spreads, apart: Sequence[str]
) -> Verdict:
    """Compare means."""
    waits = {name: found["p95"].mean for name, found in peers.items()}
    best = min(waits, key=lambda name: waits[name])
    late = ours["p95"].mean - waits[best]
    late_apart = ours["p95"].mean - min(wait for name, wait in waits.items() if name not in apart)
    cost = keda["hours"].mean
    share, whole = ours["hours"].mean / cost, (ours["hours"].mean + ours["overhead"].mean) / cost
    more = ours["actions"].mean - keda["actions"].mean
    cut = ours["interrupted"].mean + ours["undone"].mean
    return Verdict(
        best_peer=best,
        wait=_above(late, SAME_SECONDS),
        wait_apart=_above(late_apart, SAME_SECONDS),
        hours=_above(share, COST_SHARE),
        hours_with_head=_above(whole, COST_SHARE),
        interrupted=_above(cut, 0.0),
        actions=_above(more, 0.0),
        work=ours["work"].mean / cost,
        oracle=oracle["hours"].mean / cost,
    )


def _above(value: float, limit: float) -> float | None:
    return value if value > limit else None
